"""Networks of the shapes that MLPerf Tiny has, trained on data that are drawn here, as ONNX.

    python -m benchmarks.mlperf_tiny               # both
    python -m benchmarks.mlperf_tiny ad-like

`vww-like` is a MobileNetV1 (width 0.25, 3x96x96, 2 classes), `ad-like` the autoencoder of dense
layers (640, four times 128, 8, four times 128, 640) with batch normalisation and ReLU. Neither has
the weights that MLPerf Tiny publishes: how well weights compress is a matter of these. Each gets a
folder in `benchmarks/zoo/`: `model.onnx`, `calibration.npz` and `eval.npz` with `labels`; those of
`ad-like` are the input and 1 for an anomaly, 0 for none, side by side (`area_under_curve`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .zoo import ZOO, ZooModel, check, write_model

SEED = 7
CALIBRATED, EVALUATED, STORED = 64, 600, 16  # samples; of those, as files of one
FRAMES, BANDS = 5, 128
SHRINK = 1e-3  # of weights, added to their gradients: those that nothing needs fade away
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trained:
    """A network in inference mode with its data, f32[count,...]; labels as `eval.npz` has them."""

    module: nn.Module
    calibration: Tensor
    evaluation: Tensor
    labels: Array


def block(channels: int, made: int, stride: int) -> list[nn.Module]:
    """A depthwise and a pointwise convolution."""
    return [
        nn.Conv2d(channels, channels, 3, stride, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, made, 1, bias=False), nn.BatchNorm2d(made), nn.ReLU(),
    ]  # fmt: skip


def mobilenet() -> nn.Sequential:
    """MobileNetV1, width 0.25 (A. Howard et al., "MobileNets", 2017, table 1): f32[n,3,96,96] to
    scores of 2 classes."""
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    channels = 8
    for made, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2),
                         *[(128, 1)] * 5, (256, 2), (256, 1)):  # fmt: skip
        layers += block(channels, made, stride)
        channels = made
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 2))


def autoencoder() -> nn.Sequential:
    """The autoencoder of MLPerf Tiny's anomaly detection: f32[n,640] to f32[n,640]."""
    sizes = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128)
    layers: list[nn.Module] = []
    for inner, made in pairwise(sizes):
        layers += [nn.Linear(inner, made), nn.BatchNorm1d(made), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, 640))


def figures(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """(pictures f32[count,3,96,96], classes): textures, half of them with an upright figure, a disc
    above an ellipse, in front."""
    total = torch.zeros(count, 3, 96, 96)
    for cells in (3, 12, 48):
        noise = torch.randn(count, 3, cells, cells, generator=draw)
        total += nn.functional.interpolate(noise, size=(96, 96), mode="bilinear")
    classes = torch.arange(count) % 2
    rows, columns = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    for number in torch.nonzero(classes).reshape(-1):
        size = 10 + 14 * torch.rand(1, generator=draw)
        y, x = 20 + 56 * torch.rand(2, generator=draw)
        body = ((rows - y) / size) ** 2 + ((columns - x) / (0.45 * size)) ** 2 < 1
        head = (rows - y + 1.35 * size) ** 2 + (columns - x) ** 2 < (0.4 * size) ** 2
        colour = 1 + torch.rand(3, 1, generator=draw)
        total[number][:, body | head] = 0.5 * total[number][:, body | head] + 2 * colour
    return total, classes


def spectra(count: int, draw: torch.Generator, odd: float = 0.0) -> tuple[Tensor, Tensor]:
    """(log spectra f32[count,640] of a humming machine, which are odd): harmonics of a pitch that
    drifts along the frames, in noise; a share of them with a resonance that does not belong."""
    pitch = 9 + 3 * torch.rand(count, 1, 1, 1, generator=draw)
    drift = 0.2 * torch.randn(count, 1, 1, 1, generator=draw)
    loud = 2 * torch.rand(count, 1, 1, 1, generator=draw)
    frames = torch.arange(float(FRAMES)).reshape(1, -1, 1, 1)
    bands = torch.arange(float(BANDS)).reshape(1, 1, -1, 1)
    order = torch.arange(1.0, 11.0)
    peaks = (pitch + drift * frames) * order
    energy = ((-0.15 * order + loud).exp() * (-(((bands - peaks) / 1.5) ** 2)).exp()).sum(-1)
    strange = (torch.arange(count) * odd).frac() < odd
    place = BANDS * torch.rand(count, 1, 1, generator=draw)
    extra = 0.8 * (-(((bands[..., 0] - place) / 3) ** 2)).exp()
    energy = energy + extra * strange.reshape(-1, 1, 1)
    noisy = (0.1 + energy).log() + 0.3 * torch.randn(energy.shape, generator=draw)
    return noisy.reshape(count, -1) / 1.2, strange


def area_under_curve(outputs: Mapping[str, Array], labels: Array) -> float:
    """How often a larger mean square of what an autoencoder misses tells an anomaly: the area under
    the receiver's curve. labels: inputs and classes, side by side, of any shape."""
    (rebuilt,) = outputs.values()
    rows = labels.reshape(len(rebuilt), -1)
    missed = np.square(rebuilt - rows[:, :-1]).mean(axis=1)
    odd = rows[:, -1] > 0
    wins = missed[odd][:, None] > missed[~odd][None]
    ties = missed[odd][:, None] == missed[~odd][None]
    return float((wins + 0.5 * ties).mean())


def trained(
    module: nn.Module, loss: Callable[[nn.Module], Tensor], steps: int, shrink: float = 0.0
) -> nn.Module:
    """A network after so many steps of Adam. shrink: what is added of weights to gradients."""
    optimiser = torch.optim.Adam(module.parameters(), lr=2e-3, weight_decay=shrink)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for step in range(steps):
        optimiser.zero_grad()
        value = loss(module)
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        slower.step()
        if step % 100 == 0:
            print(f"  step {step} of {steps}: {float(value.detach()):.4f}", flush=True)
    return module.eval()


def vww_like() -> Trained:
    """The classifier, on figures."""
    draw = torch.Generator().manual_seed(SEED)

    def loss(module: nn.Module) -> Tensor:
        x, classes = figures(16, draw)
        return nn.functional.cross_entropy(module(x), classes)

    module = nn.Sequential(trained(mobilenet(), loss, 600, SHRINK), nn.Softmax(1)).eval()
    x, classes = figures(EVALUATED, draw)
    return Trained(module, figures(CALIBRATED, draw)[0], x, classes.numpy())


def ad_like() -> Trained:
    """The autoencoder, on spectra."""
    draw = torch.Generator().manual_seed(SEED)

    def loss(module: nn.Module) -> Tensor:
        x, _ = spectra(256, draw)
        return nn.functional.mse_loss(module(x), x)

    module = trained(autoencoder(), loss, 1000)
    x, odd = spectra(EVALUATED, draw, 0.5)
    labels = torch.cat([x, odd.reshape(-1, 1).float()], 1).numpy()
    return Trained(module, spectra(CALIBRATED, draw)[0], x, labels)


MODELS: dict[str, Callable[[], Trained]] = {"vww-like": vww_like, "ad-like": ad_like}


def export(name: str, root: Path) -> None:
    """Train one of `MODELS`, and write it with its data."""
    torch.manual_seed(SEED)
    print(name)
    made = MODELS[name]()
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    inputs = {"input": made.evaluation[:1]}
    spec = ZooModel(made.module, inputs, [inputs], ["x"], ["y"])
    write_model(spec, folder / "model.onnx")
    check(spec, folder)
    for number, sample in enumerate(made.calibration[:STORED]):
        np.savez(
            folder / (f"inputs_{number}.npz" if number else "inputs.npz"), x=sample[None].numpy()
        )
    for file, x, more in (
        ("calibration", made.calibration, {}), ("eval", made.evaluation, {"labels": made.labels})
    ):  # fmt: skip
        np.savez_compressed(folder / f"{file}.npz", x=x.numpy()[:, None], **more)
    with torch.no_grad():
        y = made.module(made.evaluation).numpy()
    classes = made.labels.ndim == 1
    told = np.mean(np.argmax(y, 1) == made.labels) if classes else area_under_curve(
        {"y": y}, made.labels
    )  # fmt: skip
    print(f"{name}: {'right' if classes else 'area under the curve'} {told:.4f}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Train and export networks of MLPerf Tiny's kind.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="models (default: all)")
    parser.add_argument("--output", type=Path, default=ZOO, help="folder of the zoo")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.names if name not in MODELS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(MODELS)}")
    for name in options.names or MODELS:
        export(name, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
