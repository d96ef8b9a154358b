"""When the rows of a batch are samples."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native

from tensmith.compiler.artifact import TensorSpec
from tensmith.driver.batch_rows import batch_of, only_rows, rows_of
from tensmith.driver.quantisation import quantise
from tensmith.driver.request import CompileRequest

MODELS = Path(__file__).parents[1] / "models"
Array = np.ndarray[Any, Any]
X, Y = TensorSpec("x", "f32", ("n", 3)), TensorSpec("y", "f32", ("n", 2))
SAMPLE = {"x": np.arange(18, dtype=np.float32).reshape(6, 3), "y": np.ones((6, 2), np.float32)}


def test_the_batch() -> None:
    assert batch_of([X, Y]) == "n"
    assert batch_of([X, TensorSpec("z", "f32", ("m", 2))]) == ""
    assert batch_of([X, TensorSpec("z", "f32", ("n", "n"))]) == ""
    assert batch_of([TensorSpec("z", "f32", (1, 3))]) == ""
    assert batch_of([TensorSpec("z", "f32", ())]) == ""


def test_rows_are_batches_of_one() -> None:
    rows = rows_of(SAMPLE, [X, Y])
    assert len(rows) == 6
    assert (rows[4]["x"] == SAMPLE["x"][4:5]).all()
    assert rows_of(SAMPLE, [X, TensorSpec("y", "f32", (6, 2))]) == []


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda x: x * 2, 6),
        (lambda x: x - x.mean(0), 0),  # rows depend on each other
        (lambda x: np.cumsum(x, 0), 0),  # the last on those before
        (lambda x: x.sum(0), 0),  # no rows
    ],
)
def test_rows_that_depend_on_each_other_are_no_samples(
    function: Callable[[Array], Array], count: int
) -> None:
    def run(inputs: Any) -> dict[str, Array]:
        return {"out": np.asarray(function(inputs["x"]))}

    assert len(only_rows([SAMPLE], [X, Y], run, ["out"])) == count
    assert only_rows([SAMPLE, SAMPLE], [X, Y], run, ["out"]) == []
    few = {name: array[:3] for name, array in SAMPLE.items()}
    assert only_rows([few], [X, Y], run, ["out"]) == []
    assert only_rows([SAMPLE], [X, Y], run, []) == []


@needs_native
def test_a_batch_is_calibrated_by_its_rows(tmp_path: Path) -> None:
    """Each is judged by what others show; the file is that of samples given one by one."""
    rows = np.load(MODELS / "drawing.npz")["rows"][:16]
    files = []
    for name, data in (("batch", {"rows": rows}), ("stack", {"rows": rows[:, None]})):
        folder = tmp_path / name
        folder.mkdir()
        request = CompileRequest(precision="int8", calibration=data)
        found = quantise(MODELS / "drawing.onnx", tmp_path / f"{name}.onnx", request, folder)
        assert (found.samples, found.held_out) == (16, 16)
        assert not any("one calibration sample" in note for note in found.notes)
        files.append(found.path.read_bytes())
    assert files[0] == files[1]
