"""Evaluation data and what is counted of runs on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensmith.compiler.artifact import TensorSpec
from tensmith.compiler.errors import UsageError
from tensmith.driver.budget.evaluation import FIRST_LOOK, Evaluation
from tensmith.driver.budget.metrics import metric_of

OPEN = TensorSpec("x", "f32", ("batch", 3))
FIXED = TensorSpec("x", "f32", (1, 3))


def scores(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 3), np.float32)


class Model:
    """Gives its input; from some call on, that turned round. calls: how many there were."""

    def __init__(self, turned_from: int = 1 << 30) -> None:
        self.turned_from, self.calls = turned_from, 0

    def __call__(self, inputs: Any) -> dict[str, np.ndarray]:
        self.calls += 1
        x = inputs["x"]
        return {"y": -x if self.calls > self.turned_from else x}


def evaluation(
    data: Any, folder: Path, metric: Any = None, spec: TensorSpec = FIXED, classifies: bool = True
) -> Evaluation:
    chosen = metric_of(metric, "higher")
    return Evaluation(
        data, [spec], chosen, folder, lambda text: None, classifies=classifies, outputs=["y"]
    )


def test_labels_and_figures(tmp_path: Path) -> None:
    x = scores(8)
    labels = x.argmax(axis=1)
    labels[:2] = (labels[:2] + 1) % 3
    found = evaluation({"x": x[:, None], "labels": labels}, tmp_path)
    found.run_exact(Model())
    assert found.metric.name == "top1"
    assert found.exact == 0.75
    drop = found.drop(Model(turned_from=4), 1.0, "half of it")
    assert drop.rows == 8
    assert drop.exact == 0.75
    assert drop.score == pytest.approx(0.75 - drop.drop)
    assert drop.drop > 0.2


def test_without_labels_models_are_compared_with_f32(tmp_path: Path) -> None:
    named = {"x": scores(4)[:, None]}
    for classifies, name in ((True, "agreement"), (False, "cosine")):
        found = evaluation(named, tmp_path / name, classifies=classifies)
        found.run_exact(Model())
        assert found.metric.name == name
        assert found.exact == 1.0
        assert found.drop(Model(), 0.0, "the same").drop == 0.0


def test_an_open_batch_is_taken_apart(tmp_path: Path) -> None:
    x = scores(6)
    data = {"x": x, "y": x.argmax(axis=1)}
    found = evaluation(data, tmp_path / "open", "f1", OPEN)
    model = Model()
    found.run_exact(model)
    assert model.calls == 6
    assert found.exact == 1.0
    assert np.isfinite(found.drop(Model(3), 1.0, "half").high)
    shared = TensorSpec("x", "f32", ("batch", "batch"))
    whole = evaluation({"x": scores(3)}, tmp_path / "shared", "agreement", shared)
    model = Model()
    whole.run_exact(model)
    assert model.calls == 1


def test_what_cannot_do_is_left_early(tmp_path: Path) -> None:
    found = evaluation({"x": scores(200)[:, None]}, tmp_path)
    found.run_exact(Model())
    bad, good = Model(turned_from=0), Model()
    drop = found.drop(bad, 0.01, "turned")
    assert bad.calls == FIRST_LOOK
    assert not drop.whole
    assert not drop.meets(0.01)
    assert found.drop(good, 0.01, "the same").whole
    assert good.calls == 200
    assert found.drop(Model(0), 2.0, "allowed").whole
    assert found.evaluations == 3


def test_digests_are_of_samples_and_labels(tmp_path: Path) -> None:
    x = scores(3)[:, None]
    given = [{"x": x, "labels": [0, 1, 2]}, {"x": x, "labels": [0, 1, 1]}, {"x": x}, {"x": x + 1}]
    digests = [evaluation(data, tmp_path / str(n)).digest() for n, data in enumerate(given)]
    assert len(set(digests)) == 4
    again = evaluation({"x": x, "l": [0, 1, 2]}, tmp_path / "again").digest()
    assert again == digests[0]


def test_outputs_of_other_shapes_are_lost(tmp_path: Path) -> None:
    """Functions judge them as they are."""
    cut = lambda inputs: {"y": inputs["x"][:, : 1 + (inputs["x"][0, 0] > 0.5)]}  # noqa: E731
    for metric in (None, "cosine", "snr"):
        found = evaluation({"x": scores(4)[:, None]}, tmp_path / str(metric), metric)
        found.run_exact(Model())
        assert found.drop(cut, 1.0, "cut").drop == 1.0
    counted = evaluation({"x": scores(4)[:, None]}, tmp_path / "counted", _elements)
    counted.run_exact(Model())
    assert counted.exact == 12
    assert counted.drop(cut, 1.0, "cut").drop == 12 - 4 - np.sum(scores(4)[:, 0] > 0.5)


def _elements(outputs: dict[str, Any], labels: Any) -> float:
    return float(sum(array.size for array in outputs["y"]))


def test_figures_that_are_no_number_are_refused_with_a_remedy(tmp_path: Path) -> None:
    data = {"x": scores(3)[:, None], "labels": np.full((3, 1, 3), np.nan)}
    found = evaluation(data, tmp_path, "mae")
    with pytest.raises(UsageError, match="in fp32 is nan") as caught:
        found.run_exact(Model())
    assert "leave out the samples" in caught.value.remedy
