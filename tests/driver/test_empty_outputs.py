"""Models that find nothing in some samples, as detectors do, are calibrated by what they find."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

from tensmith.driver.quantisation import quantise
from tensmith.driver.request import CompileRequest

RNG = np.random.default_rng(4)
DATA = RNG.standard_normal((8, 8, 64)).astype(np.float32)


def store(folder: Path, least: float) -> Path:
    """Two products, and of what they make so many rows as have an element greater than some."""
    constants = {
        "a": (RNG.standard_normal((64, 64)) / 8).astype(np.float32),
        "b": (RNG.standard_normal((64, 64)) / 8).astype(np.float32),
        "least": np.float32(least),
        "zero": np.zeros(1, np.int64),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], "second"),
        helper.make_node("ReduceMax", ["y"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["m", "least"], ["found"]),
        helper.make_node("Cast", ["found"], ["ones"], to=TensorProto.INT64),
        helper.make_node("ReduceSum", ["ones"], ["count"]),
        helper.make_node("Slice", ["y", "zero", "count", "zero"], ["z"]),
    ]
    outputs = {"y": (8, 64), "z": ("k", 64)}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (8, 64))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "net.onnx"
    onnx.save_model(model, path)
    return path


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
