"""A model that may be shown to others: other weights, other names."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from .draft import subgraphs

FEW = 16  # elements of what is a setting (axes, shapes, scales) rather than a weight
_REAL = {
    onnx.TensorProto.FLOAT: np.float32,
    onnx.TensorProto.DOUBLE: np.float64,
    onnx.TensorProto.FLOAT16: np.float16,
}


def random_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose weights of floats and bytes are drawn from a fixed seed: normal, of a variance
    that keeps magnitudes through products. Settings of a few numbers stay."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(0)
    for tensor in _tensors(copy.graph):
        count, dims = math.prod(tensor.dims), tuple(tensor.dims)
        if count <= FEW:
            continue
        if tensor.data_type in _REAL:
            scale = 1 / math.sqrt(max(1, count // max(dims)))
            drawn = np.asarray(rng.standard_normal(dims) * scale, _REAL[tensor.data_type])
        elif tensor.data_type in (onnx.TensorProto.UINT8, onnx.TensorProto.INT8):
            signed = tensor.data_type == onnx.TensorProto.INT8
            drawn = rng.integers(0, 127, dims).astype(np.int8 if signed else np.uint8)
        else:
            continue
        tensor.CopyFrom(numpy_helper.from_array(drawn, tensor.name))
    return copy


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
        for inner in subgraphs(node):
            yield from _tensors(inner)


def anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without names that mean something: values, nodes, graphs and dims are numbered.

    Names of operators and functions stay.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.ClearField("producer_name")
    copy.ClearField("producer_version")
    copy.ClearField("domain")
    _Names().graph(copy.graph)
    return copy


class _Names:
    def __init__(self) -> None:
        self.values: dict[str, str] = {"": ""}
        self.dims: dict[str, str] = {"": ""}
        self.nodes = 0

    def value(self, name: str) -> str:
        return self.values.setdefault(name, f"v{len(self.values)}")

    def graph(self, graph: onnx.GraphProto) -> None:
        graph.name = "graph"
        del graph.value_info[:]
        for info in (*graph.input, *graph.output):
            info.name = self.value(info.name)
            info.ClearField("doc_string")
            for dim in info.type.tensor_type.shape.dim:
                if dim.dim_param:
                    dim.dim_param = self.dims.setdefault(dim.dim_param, f"d{len(self.dims)}")
        for tensor in graph.initializer:
            tensor.name = self.value(tensor.name)
            tensor.ClearField("doc_string")
        for node in graph.node:
            self.nodes += 1
            node.name = f"n{self.nodes}"
            node.ClearField("doc_string")
            node.ClearField("metadata_props")
            node.input[:] = [self.value(name) for name in node.input]
            node.output[:] = [self.value(name) for name in node.output]
            for inner in subgraphs(node):
                self.graph(inner)
