"""How the sweep exports a network: dynamic sizes, by both exporters of PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from torch import Tensor, nn

EXPORTERS = ("torchscript", "dynamo")
OPSET = 18
Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Architecture:
    """A network and how people export it.

    make: the network, with random weights. inputs: makes them for two numbers, the batch and
    another size. sizes: the two pairs that are compared. dynamic: the names of axes by input.
    calls: further arguments of a call. everything: the outputs are all tensors that a call gives,
    not only the first.
    """

    name: str
    make: Callable[[], nn.Module]
    inputs: Callable[[int, int], Inputs]
    sizes: Sequence[tuple[int, int]]
    dynamic: Mapping[str, Mapping[int, str]]
    calls: Mapping[str, Any] | None = None
    everything: bool = False


def configured(config: str, options: Mapping[str, Any], head: str = "AutoModel") -> nn.Module:
    """A network of `transformers` by its configuration's class and options; head: what makes it.

    Options that are pairs (class, options) are configurations themselves.
    """
    options = {
        name: getattr(tf, value[0])(**value[1])
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict)
        else value
        for name, value in options.items()
    }
    attention = options.pop("attn_implementation", "eager")
    made = getattr(tf, config)(**options)
    made._attn_implementation = attention
    maker = getattr(tf, head)
    if head.startswith("Auto"):
        model: nn.Module = maker.from_config(made, attn_implementation=attention)
    else:
        model = maker(made)
    return model


def _tensors(found: Any) -> Iterator[Tensor]:
    """The tensors of a result in its order."""
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _tensors(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _tensors(value)


class Exported(nn.Module):
    """A network that takes inputs by position and gives tensors."""

    def __init__(self, model: nn.Module, architecture: Architecture) -> None:
        super().__init__()
        self.model, self.everything = model, architecture.everything
        self.names = list(architecture.inputs(*architecture.sizes[0]))
        self.calls = dict(architecture.calls or {})

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        found = self.model(**dict(zip(self.names, tensors, strict=True)), **self.calls)
        results = tuple(_tensors(found))
        return results if self.everything else results[:1]


def build(architecture: Architecture) -> nn.Module:
    """The network with seeded random weights."""
    torch.manual_seed(7)
    torch.backends.mha.set_fastpath_enabled(False)  # one operator, which no exporter knows
    return Exported(architecture.make().eval(), architecture).eval()


def export(architecture: Architecture, exporter: str, path: Path) -> list[dict[str, np.ndarray]]:
    """Write the model by an exporter; returns the inputs of the sizes to compare."""
    model = build(architecture)
    batch, size = architecture.sizes[0]
    example = architecture.inputs(batch, size)
    axes = [dict(architecture.dynamic.get(name, {})) for name in example]
    settings: dict[str, Any] = {"opset_version": OPSET, "input_names": list(example)}
    with torch.no_grad():
        if exporter == "torchscript":
            dynamic = dict(zip(example, axes, strict=True))
            torch.onnx.export(model, tuple(example.values()), str(path), dynamo=False,
                              dynamic_axes=dynamic, **settings)  # fmt: skip
        else:
            shapes = (tuple({k: torch.export.Dim.DYNAMIC for k in item} for item in axes),)
            torch.onnx.export(model, tuple(example.values()), str(path), dynamo=True,
                              dynamic_shapes=shapes, verbose=False, external_data=False,
                              **settings)  # fmt: skip
    found = []
    for batch, size in architecture.sizes:
        torch.manual_seed(batch * 1000 + size)
        found.append({name: x.numpy() for name, x in architecture.inputs(batch, size).items()})
    return found
