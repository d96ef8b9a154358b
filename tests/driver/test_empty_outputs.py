"""Models that find nothing in some samples, as detectors do, are calibrated by what they find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from detection_nets import store_detector
from onnx import TensorProto, helper

from tensmith.driver.quantisation import quantise
from tensmith.driver.request import CompileRequest

RNG = np.random.default_rng(4)
DATA = RNG.standard_normal((8, 8, 64)).astype(np.float32)


def store(folder: Path, least: float) -> Path:
    """All rows, and so many of them from the first on as are found."""
    chooses = [
        helper.make_node("Cast", ["found"], ["ones"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["ones"], ["count"]),
        helper.make_node("Slice", ["y", "zero", "count", "zero"], ["z"]),
    ]
    outputs: dict[str, tuple[int | str, ...]] = {"y": (8, 64), "z": ("k", 64)}
    return store_detector(folder, RNG, least, chooses, outputs, zero=np.zeros(1, np.int64))


@needs_native
@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize(
    ("least", "scored"), [(0.5, {"y", "z"}), (1e3, {"y"})], ids=["one sample", "all samples"]
)
def test_samples_in_which_nothing_is_found(least: float, scored: set[str], tmp_path: Path) -> None:
    data = DATA.copy()
    data[3] *= np.float32(0.01)
    request = CompileRequest(precision="int8", calibration={"x": data})
    (tmp_path / "work").mkdir()
    found = quantise(store(tmp_path, least), tmp_path / "q.onnx", request, tmp_path / "work")
    assert [p.precision for p in found.products] == ["int8", "int8"]
    assert (found.samples, found.held_out) == (8, 8)
    assert found.decibels.keys() == scored
    assert all(own > 20 for own in found.decibels.values())
