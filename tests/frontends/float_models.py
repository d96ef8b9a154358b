"""Small models of floats, to be quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, Any]


def normal(*shape: int) -> Array:
    return np.random.default_rng([*shape, len(shape)]).standard_normal(shape).astype(np.float32)


def store(
    folder: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, Array],
    outputs: tuple[str, ...] = ("y",),
    *,
    shape: tuple[int, ...] = (1, 3, 6, 6),
    opset: int = 17,
    listed: bool = False,
) -> Path:
    """A model of one input x; listed: weights are inputs too, as in files of IR version 3."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    if listed:
        inputs += [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape)
            for name, array in weights.items()
        ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", inputs, results, tensors)
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=domains, ir_version=3 if listed else 8)
    path = folder / "model.onnx"
    onnx.save_model(onnx.shape_inference.infer_shapes(model), path)
    return path


def small_net(folder: Path, **options: Any) -> Path:
    """Conv, BatchNormalization, Relu, grouped Conv, Gemm with transposed weights, Softmax."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "first", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "s", "t", "m", "v"], ["n"], epsilon=0.5),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "d", "b"], ["e"], "depthwise", group=4),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "h"], ["l"], "last", transB=1),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    weights = {
        "w": normal(4, 3, 3, 3),
        "s": normal(4),
        "t": normal(4),
        "m": normal(4),
        "v": np.abs(normal(4)),
        "d": normal(4, 1, 3, 3),
        "b": normal(4),
        "g": normal(5, 64) * 0.2,
        "h": normal(5),
    }
    return store(folder, nodes, weights, **options)
