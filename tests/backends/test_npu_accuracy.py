"""Whole networks of MLPerf Tiny's kind in integers are as right as in floats, within 1 %.

Judged is the graph of integers, whose bits streams have. Data: those of ../shared/models, few of
which are labelled, and of `python -m benchmarks.mlperf_tiny`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from integer_graphs import ranges_of
from sklearn.metrics import roc_auc_score

from tensmith.backends.ethosu.integer_form import integer_passes
from tensmith.backends.reference import run_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.frontends.onnx import load

ROOT = Path(__file__).resolve().parents[2]
MODELS, ZOO = ROOT.parent / "shared" / "models" / "dev", ROOT / "benchmarks" / "zoo"
MOST_LOST = 0.01


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        pytest.skip(f"not here: {(folder / name).relative_to(ROOT.parent)}")
    return folder / name


def _outputs(
    folder: Path, calibration: Iterable[np.ndarray], judged: Iterable[np.ndarray]
) -> np.ndarray:
    """What a model of one input gives in integers: a row for each sample."""
    graph = load(_file(folder, "model.onnx"))
    (x,) = graph.inputs
    calibrated, samples = (
        [{x.name: np.float32(array).reshape(x.type.static_shape)} for array in arrays]
        for arrays in (calibration, judged)
    )
    run_passes(graph, integer_passes(ranges_of(graph, calibrated)))
    return np.stack([next(iter(run_graph(graph, s).values())).ravel() for s in samples])


def _in_floats(folder: Path, samples: Iterable[np.ndarray]) -> np.ndarray:
    """What ONNX Runtime gives: a row for each sample."""
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
    name = session.get_inputs()[0].name
    return np.stack([session.run(None, {name: sample})[0].ravel() for sample in samples])


@pytest.mark.parametrize(("name", "alike"), [("kws", 0.96), ("resnet8", 0.97)])
def test_published_networks_recognise_what_floats_do(name, alike):
    folder = MODELS / name
    data, labels = (np.load(_file(folder, f"{n}.npz")) for n in ("agreement", "labels"))
    own = [next(iter(np.load(file).values())) for file in sorted(folder.glob("inputs_*.npz"))]
    given = data["x"] / data.get("x_div", np.float32(1))
    found = _outputs(folder, own, [*own, *given])
    classes = found.argmax(1)
    known, wanted = labels["labels"] >= 0, labels["labels"]
    floats = _in_floats(folder, own).argmax(1)
    right = (classes[: len(own)] == wanted)[known].mean()
    assert right >= (floats == wanted)[known].mean() - MOST_LOST
    # of pictures and recordings that are none of a class, many are in two minds
    assert (classes[len(own) :] == data["ref"].argmax(1)).mean() >= alike


@pytest.mark.slow
def test_the_classifier_trained_here_is_as_right():
    folder = ZOO / "vww-like"
    data = np.load(_file(folder, "eval.npz"))
    found = _outputs(folder, np.load(folder / "calibration.npz")["x"], data["x"])
    right = (found.argmax(1) == data["labels"]).mean()
    floats = (_in_floats(folder, data["x"]).argmax(1) == data["labels"]).mean()
    assert right >= floats - MOST_LOST


def test_the_autoencoder_trained_here_tells_as_many_anomalies():
    folder = ZOO / "ad-like"
    data = np.load(_file(folder, "eval.npz"))
    wanted, odd = data["labels"][:, :-1], data["labels"][:, -1]
    found = _outputs(folder, np.load(folder / "calibration.npz")["x"], data["x"])
    floats = _in_floats(folder, data["x"])
    area, whole = (
        roc_auc_score(odd, np.square(rebuilt - wanted).mean(1)) for rebuilt in (found, floats)
    )
    assert area >= whole - MOST_LOST
