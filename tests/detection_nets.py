"""Models that choose rows of what two products make by their largest element, as detectors do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def store_detector(
    folder: Path,
    rng: np.random.Generator,
    least: float,
    chooses: Sequence[onnx.NodeProto],
    outputs: Mapping[str, tuple[int | str, ...]],
    **constants: np.ndarray[Any, Any],
) -> Path:
    """y[8, 64] of x[8, 64], and `found`: the rows of y that have an element greater than `least`.

    chooses: nodes that make outputs of both, and of constants.
    """
    arrays = {
        "a": (rng.standard_normal((64, 64)) / 8).astype(np.float32),
        "b": (rng.standard_normal((64, 64)) / 8).astype(np.float32),
        "least": np.float32(least),
        **constants,
    }
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], "first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], "second"),
        helper.make_node("ReduceMax", ["y"], ["m"], axes=[1], keepdims=0),
        helper.make_node("Greater", ["m", "least"], ["found"]),
        *chooses,
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (8, 64))],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "net.onnx"
    onnx.save_model(model, path)
    return path
