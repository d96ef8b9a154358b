"""Which samples calibrate does not decide how good a quantised model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.driver.quantisation import Quantisation, quantise
from tensmith.driver.ranges_observed import decibels_of, shares_of_noise
from tensmith.driver.request import CompileRequest
from tensmith.frontends.onnx import load

Array = np.ndarray[Any, Any]
USUAL = np.random.default_rng(5).standard_normal((24, 1, 1, 12, 12)).astype(np.float32)


def store(folder: Path) -> Path:
    """Two convolutions, of which the first is a twelfth of the work, and scores of classes."""
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.standard_normal((8, 1, 3, 3)) / 3,
        "v": rng.standard_normal((16, 8, 3, 3)) / 9,
        "m": rng.standard_normal((16, 6)) / 2,
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "v"], ["d"], "second", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["d"], ["s"]),
        helper.make_node("GlobalAveragePool", ["s"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"], "last"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 12, 12))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 6))],
        [numpy_helper.from_array(a.astype(np.float32), name) for name, a in constants.items()],
    )
    path = folder / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path)
    return path


def quantised(net: Path, data: Array) -> Quantisation:
    folder = net.parent / "work"
    folder.mkdir()
    request = CompileRequest(precision="int8", calibration={"x": data})
    return quantise(net, net.parent / "q.onnx", request, folder)


def exactness(net: Path, found: Quantisation, data: Array) -> float:
    """Decibels that the error lies below the scores, of data that took no part."""
    exact, real = load(net), load(found.path)
    pairs = [(run_graph(exact, {"x": x}), run_graph(real, {"x": x})) for x in data]
    return decibels_of(shares_of_noise(pairs)["y"])


@needs_native
@pytest.mark.parametrize("large", [1, 2])
def test_a_sample_that_is_ten_times_larger_costs_others_little(large: int, tmp_path: Path) -> None:
    """Its noise is no more than that of others, however large it is, and wherever it lies."""
    data = USUAL[:12].copy()
    data[large] *= 15
    found = quantised(store(tmp_path), data)
    assert found.samples == found.held_out == 12
    assert exactness(tmp_path / "net.onnx", found, USUAL[12:]) > 32
