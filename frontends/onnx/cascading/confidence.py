"""How sure a model is of each row: nodes that compute it from the model's outputs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from onnx import TensorProto

from ....compiler.errors import UsageError
from .node_writer import NodeWriter, dims_of

CONFIDENCES = ("max_softmax", "margin", "entropy")
_PROBABILITIES = ("Softmax",)
_THROUGH = ("Identity", "Reshape", "Flatten", "Squeeze")
_SAME: Mapping[str, str] = MappingProxyType({})


def write_confidence(
    writer: NodeWriter, kind: str, graph: onnx.GraphProto, outputs: Sequence[onnx.ValueInfoProto],
    prefix: str, opset: int, names: Mapping[str, str] = _SAME,
) -> str:  # fmt: skip
    """The name of a float for every row: the more, the surer.

    kind: one of `CONFIDENCES`, of the first output that has scores, or the name of an output that
    has a number for every row. graph: in which the outputs are made, under names with a prefix.
    opset: of what is written. names: under which values are there, prefix included, if not their
    own. Raises UsageError where there are no such outputs.
    """
    named = {info.name: info for info in outputs}
    if kind in named:
        own = prefix + kind
        return write_column(writer, names.get(own, own), named[kind])
    if kind not in CONFIDENCES:
        raise UsageError(
            f"the small model has no output '{kind}'",
            remedy=f"choose from {', '.join((*CONFIDENCES, *named))}",
        )
    scores = _scores(outputs)
    classes = dims_of(scores)[1]
    name = prefix + scores.name
    probable = _is_probability(graph, name)
    name = names.get(name, name)
    if not probable:
        name = writer.add("Softmax", [name], "probabilities", axis=1)
    if kind == "entropy":
        return _entropy(writer, name, int(classes))
    if kind == "max_softmax":
        if opset < 18:  # before which the axes are an attribute
            return writer.add("ReduceMax", [name], "best", axes=[1], keepdims=0)
        return writer.add("ReduceMax", [name, _classes_axis(writer)], "best", keepdims=0)
    wanted = writer.constant("best_two", np.array([2], np.int64))
    top, _ = writer.pair("TopK", [name, wanted], "top", "top_places", axis=1)
    halves = writer.constant("halves", np.array([1, 1], np.int64))
    first, second = writer.pair("Split", [top, halves], "first", "second", axis=1)
    return _flat(writer, writer.add("Sub", [first, second], "margin"))


def write_column(writer: NodeWriter, name: str, info: onnx.ValueInfoProto) -> str:
    """An output with a number for every row, as floats without further axes.

    Raises UsageError for one that has more.
    """
    dims = dims_of(info)
    if not dims or any(dim != 1 for dim in dims[1:]):
        raise UsageError(
            f"the output '{info.name}' has the shape {dims}, not a number for every row"
        )
    return _flat(writer, writer.add("Cast", [name], "sureness_f32", to=TensorProto.FLOAT))


def _entropy(writer: NodeWriter, probabilities: str, classes: int) -> str:
    """1 less the entropy as a share of the most that it can be."""
    least = writer.constant("least", np.float32(1e-30))
    positive = writer.add("Max", [probabilities, least], "positive")
    logs = writer.add("Log", [positive], "logs")
    terms = writer.add("Mul", [probabilities, logs], "terms")
    total = writer.add("ReduceSum", [terms, _classes_axis(writer)], "entropy", keepdims=0)
    most = writer.constant(f"most_{classes}", np.float32(1 / math.log(classes)))
    scaled = writer.add("Mul", [total, most], "entropy_share")  # it is negative
    return writer.add("Add", [scaled, writer.constant("one", np.float32(1))], "sureness")


def _classes_axis(writer: NodeWriter) -> str:
    return writer.constant("classes_axis", np.array([1], np.int64))


def write_unsure(writer: NodeWriter, score: str, limit: str, output: str) -> str:
    """Which rows are not as sure as the limit, under this very name: what is no number is not."""
    sure = writer.named("GreaterOrEqual", [score, limit], f"{output}/sure")
    return writer.named("Not", [sure], output)


def _scores(outputs: Sequence[onnx.ValueInfoProto]) -> onnx.ValueInfoProto:
    for info in outputs:
        dims = dims_of(info)
        floats = info.type.tensor_type.elem_type == TensorProto.FLOAT
        if floats and len(dims) == 2 and isinstance(dims[1], int) and dims[1] > 1:
            return info
    raise UsageError(
        "the small model has no output of scores: floats of shape [rows, classes]",
        remedy="name an output that has a number for every row: --confidence OUTPUT",
    )


def _flat(writer: NodeWriter, name: str) -> str:
    wanted = writer.constant("row", np.array([-1], np.int64))
    return writer.named("Reshape", [name, wanted], f"{name}_by_row")


def _is_probability(graph: onnx.GraphProto, name: str) -> bool:
    """Whether a value is made by a softmax."""
    made = {output: node for node in graph.node for output in node.output}
    node = made.get(name)
    while node is not None and node.op_type in _THROUGH:
        node = made.get(node.input[0])
    return node is not None and node.op_type in _PROBABILITIES
