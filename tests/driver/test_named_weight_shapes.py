"""Quantised weights whose shape a size of the input names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith

ROWS, COLUMNS = 64, 48


@needs_native
@pytest.mark.parametrize("turned", [False, True])
def test_weights_are_of_as_many_rows_as_a_run_brings(tmp_path: Path, turned: bool) -> None:
    """y = dequantize(x) reshape(w, (columns of x, 48)), or of its transpose."""
    rng = np.random.default_rng(0)
    weights = rng.integers(-8, 8, ROWS * COLUMNS).astype(np.int8)
    scales = rng.uniform(0.01, 0.1, COLUMNS if turned else ()).astype(np.float32)
    shape, axis = (["c", "k"], 0) if turned else (["k", "c"], 1)
    nodes = [
        helper.make_node("Shape", ["x"], ["k"], start=1, end=2),
        helper.make_node("Concat", shape, ["shape"], axis=0),
        helper.make_node("Reshape", ["w", "shape"], ["shaped"]),
        helper.make_node("DequantizeLinear", ["shaped", "scales"], ["floats"], axis=axis),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "s", "z"], ["data"]),
        helper.make_node("Transpose" if turned else "Identity", ["floats"], ["m"]),
        helper.make_node("MatMul", ["data", "m"], ["y"]),
    ]
    known = {"w": weights, "scales": scales, "c": np.array([COLUMNS]), "s": np.float32(0.05),
             "z": np.uint8(100)}  # fmt: skip
    graph = helper.make_graph(
        nodes,
        "named",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", "k"))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("n", COLUMNS))],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in known.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, tmp_path / "named.onnx")
    x = rng.standard_normal((3, ROWS)).astype(np.float32)
    data = (np.clip(np.rint(x / np.float32(0.05)) + 100, 0, 255) - 100) * np.float32(0.05)
    m = weights.reshape(COLUMNS, ROWS).T if turned else weights.reshape(ROWS, COLUMNS)
    found = tensmith.compile(tmp_path / "named.onnx").load()(x)["y"]
    np.testing.assert_allclose(found, data @ (m * scales), rtol=1e-4, atol=1e-4)
