"""Trains three small models of different kinds on scikit-learn's data, and exports them.

    python tests/models/train.py            # writes NAME.onnx and NAME.npz beside this

Needs torch, onnxscript, scikit-learn and skl2onnx; takes two minutes on one core. Files differ from
one release of these to the next. `NAME.npz` has the inputs of rows that were not trained on by
their names, what the framework that trained the model makes of them (`out:NAME`), and `labels`.

reader: a transformer of two layers that reads the 8 rows of a digit as tokens (torch, exported by
its current exporter, batch symbolic). drawing: a bidirectional GRU over the rows and a convolution
over its states (torch, exported by its older exporter). tissue: scaling, gradient boosted trees and
ZipMap (scikit-learn, exported by skl2onnx as it does by default).

Data: *Optical Recognition of Handwritten Digits* (E. Alpaydin and C. Kaynak, 1998) and *Breast
Cancer Wisconsin (Diagnostic)* (W. Wolberg et al., 1995), UCI Machine Learning
Repository, CC BY 4.0.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

HERE = Path(__file__).parent
SEED, EPOCHS, BATCH = 20240301, 40, 64
KEPT = 64  # rows that are stored


class Reader(nn.Module):
    """Rows as tokens, with places learned, attention of four heads, and the mean at the end."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.places = nn.Parameter(torch.randn(8, width) * 0.1)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        x = self.embed(rows) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x.mean(1)))


class Drawing(nn.Module):
    """A bidirectional GRU, and a strided convolution over its states."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.gru = nn.GRU(8, width, bidirectional=True, batch_first=True)
        self.conv = nn.Conv1d(2 * width, 32, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm1d(32)
        self.head = nn.Linear(32 * 4, 10)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        states = self.gru(rows)[0].transpose(1, 2)
        x = functional.leaky_relu(self.norm(self.conv(states)), 0.1)
        return self.head(x.flatten(1)).log_softmax(-1)


def digits() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rows (n, 8, 8) to train on and held out, and the labels of both."""
    data = load_digits()
    rows = data.images.astype(np.float32) / 16
    found = train_test_split(rows, data.target, test_size=0.3, random_state=SEED)
    return found[0], found[1], found[2], found[3]


def train(net: nn.Module, rows: np.ndarray, labels: np.ndarray) -> None:
    """Fit a network, by AdamW with a rate that falls to nothing."""
    x, y = torch.from_numpy(rows), torch.from_numpy(labels)
    steps = -(-len(x) // BATCH) * EPOCHS
    optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=1e-2)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 6e-3, steps)
    net.train()
    for _ in range(EPOCHS):
        for part in torch.randperm(len(x)).split(BATCH):
            optimiser.zero_grad()
            functional.cross_entropy(net(x[part]), y[part]).backward()
            optimiser.step()
            rate.step()
    net.eval()


def export(name: str, net: nn.Module, *, current: bool) -> None:
    """Train a network, write it and what it makes of rows held out."""
    rows, held, labels, wanted = digits()
    train(net, rows, labels)
    held, wanted = held[:KEPT], wanted[:KEPT]
    with torch.no_grad():
        scores = net(torch.from_numpy(held)).numpy()
    given, path = (torch.from_numpy(held[:2]),), HERE / f"{name}.onnx"
    names = {"input_names": ["rows"], "output_names": ["scores"]}
    if current:
        batch = torch.export.Dim("batch", min=1, max=4096)
        program = torch.onnx.export(net, given, dynamo=True, dynamic_shapes=({0: batch},), **names)
        assert program is not None
        program.save(str(path))
        _without_traces(path)
    else:
        axes = {"rows": {0: "batch"}, "scores": {0: "batch"}}
        torch.onnx.export(net, given, str(path), dynamo=False, dynamic_axes=axes, **names)
    np.savez_compressed(
        HERE / f"{name}.npz", rows=held, labels=wanted.astype(np.uint8), **{"out:scores": scores}
    )
    print(f"{name}: {np.mean(scores.argmax(1) == wanted):.3f} right, {path.stat().st_size} bytes")


def _without_traces(path: Path) -> None:
    """Leave out what the exporter notes of the source, paths of this machine among it."""
    model = onnx.load(path)
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info):
        del item.metadata_props[:]
    for node in graph.node:
        node.ClearField("doc_string")
    onnx.save(model, path)


def trees() -> None:
    """Train a pipeline of trees on measurements of tissue, and write it."""
    data = load_breast_cancer()
    x, held, y, wanted = train_test_split(
        data.data.astype(np.float32), data.target_names[data.target],
        test_size=0.3, random_state=SEED,
    )  # fmt: skip
    model = make_pipeline(
        StandardScaler(), GradientBoostingClassifier(n_estimators=30, random_state=SEED)
    )
    model.fit(x, y)
    held, wanted = held[:KEPT], wanted[:KEPT]
    (HERE / "tissue.onnx").write_bytes(to_onnx(model, x[:1]).SerializeToString())
    outputs = {
        "out:output_label": model.predict(held),
        "out:output_probability": model.predict_proba(held).astype(np.float32),
    }
    np.savez_compressed(HERE / "tissue.npz", X=held, labels=wanted, **outputs)
    print(f"tissue: {np.mean(outputs['out:output_label'] == wanted):.3f} right")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for made, kind, is_current in (("reader", Reader, True), ("drawing", Drawing, False)):
        torch.manual_seed(SEED)
        export(made, kind(), current=is_current)
    trees()
