"""The products of a model: which of them can be computed in integers, and why others cannot."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import onnx

from ....compiler.ir.ops.packed import FEWEST_PACKED
from ..origin import node_name
from ..reduction.draft import subgraphs
from .constants import Constants

F32 = onnx.TensorProto.FLOAT
PLAIN = ("Conv", "MatMul", "Gemm")
LSTM = "LSTM"  # the recurrent layer that has an operator for products of bytes
GATES = {LSTM: 4, "GRU": 3, "RNN": 1}  # of recurrent layers
QUANTISABLE = (*PLAIN, *GATES)
# other operators that are, or hold, products
OTHER_PRODUCTS = {
    "ConvTranspose": "transposed convolutions are computed in floats",
    "Einsum": "sums of products that are named by letters are computed in floats",
    "Attention": "no operand of it is constant",
    "MultiHeadAttention": "no operand of it is constant",
    "FusedConv": "the operator is none of the standard",
    "FusedMatMul": "the operator is none of the standard",
}
NOT_CONSTANT = "its weights are not constant"
_INNER = "it is in a branch or loop"
FEW = f"it has fewer than {FEWEST_PACKED} weights"


@dataclass(frozen=True)
class ModelProduct:
    """A node of a model that multiplies and adds up.

    key: its result. name, op: as messages call it. data: the tensor that is quantised before it.
    reason: why it cannot be computed in integers; "" where it can. terms: how many products an
    element of the result adds up (0: the size of the data tells). last: no other product lies
    between it and an output. other: the second operand, where the run makes that, too.
    """

    key: str
    name: str
    op: str
    data: str
    reason: str = ""
    terms: int = 0
    last: bool = False
    other: str = ""

    @property
    def operands(self) -> tuple[str, ...]:
        """The tensors that are quantised before it."""
        return (self.data, self.other) if self.other else (self.data,)

    @property
    def axis(self) -> int:
        """Along which the channels of the data lie."""
        return 1 if self.op == "Conv" else -1

    @property
    def by_run(self) -> bool:
        """Whether nothing has to be known of its data: a run finds their ranges, or they are not
        quantised."""
        return self.op in GATES

    @property
    def weights_only(self) -> bool:
        """Whether its weights are stored as bytes, and multiplied as floats."""
        return self.op in GATES and self.op != LSTM


def products_of(model: onnx.ModelProto, constants: Constants) -> tuple[ModelProduct, ...]:
    """The products of a model in order; those of branches and loops are there with the reason."""
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    last = _last(graph, makers)
    found = []
    for node in graph.node:
        if node.op_type in QUANTISABLE or node.op_type in OTHER_PRODUCTS:
            reason = _reason(node, makers, constants)
            terms = 0 if reason else _terms(node, constants)
            key, name = node.output[0], node_name(node)
            other = node.input[1] if not reason and _of_data(node, constants) else ""
            found.append(
                ModelProduct(
                    key, name, node.op_type, node.input[0], reason, terms, key in last, other
                )
            )
        for inner in _inner(node):
            name = node_name(inner)
            found.append(ModelProduct(inner.output[0], name, inner.op_type, "", _INNER))
    return tuple(found)


def _inner(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    for graph in subgraphs(node):
        for inner in graph.node:
            if inner.op_type in QUANTISABLE or inner.op_type in OTHER_PRODUCTS:
                yield inner
            yield from _inner(inner)


def _of_data(node: onnx.NodeProto, constants: Constants) -> bool:
    """Whether it is a matrix product of two operands that the run makes."""
    return node.op_type == "MatMul" and not any(name in constants for name in node.input)


def _reason(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto], constants: Constants) -> str:
    if node.op_type in OTHER_PRODUCTS:
        return OTHER_PRODUCTS[node.op_type]
    if node.op_type in GATES:
        return _recurrent_reason(node, constants)
    data, weights = node.input[0], node.input[1]
    made = [makers[name].op_type for name in (data, weights) if name in makers]
    if "DequantizeLinear" in made:
        return "the model says itself how it is quantised"
    if data in constants:
        return "its data are constant"
    if _of_data(node, constants):
        return ""
    if weights not in constants:
        return NOT_CONSTANT
    if constants.type_of(weights) != F32:
        kind = onnx.TensorProto.DataType.Name(constants.type_of(weights)).lower()
        return f"its weights are {kind}"
    rank = len(constants.shape_of(weights))
    if node.op_type != "Conv" and rank != 2:
        return f"its weights have {rank} axes"
    attributes = {a.name: a for a in node.attribute}
    if "transA" in attributes and attributes["transA"].i:
        return "its data are transposed"
    return "" if constants.elements(weights) else "it has no weights"


def _recurrent_reason(node: onnx.NodeProto, constants: Constants) -> str:
    if any(name not in constants for name in node.input[1:3]):
        return NOT_CONSTANT
    if any(constants.type_of(name) != F32 for name in node.input[1:3]):
        return "its weights are not f32"
    if node.op_type == LSTM and any(a.name == "layout" and a.i for a in node.attribute):
        return "its batch comes first, which the operator for weights of bytes does not take"
    of_direction = [math.prod(constants.shape_of(name)[1:]) for name in node.input[1:3]]
    return FEW if node.op_type != LSTM and max(of_direction) < FEWEST_PACKED else ""


def _terms(node: onnx.NodeProto, constants: Constants) -> int:
    if node.op_type in GATES:
        gates = GATES[node.op_type]
        return sum(gates * constants.shape_of(name)[2] for name in node.input[1:3])
    if _of_data(node, constants):
        return 0
    shape = constants.shape_of(node.input[1])
    if node.op_type == "Conv":
        return math.prod(shape[1:])
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return shape[1 if transposed else 0]


def _last(graph: onnx.GraphProto, makers: dict[str, onnx.NodeProto]) -> set[str]:
    """Results of products between which and an output of the graph no product lies."""
    found, seen = set(), set()
    waiting = [info.name for info in graph.output]
    while waiting:
        name = waiting.pop()
        node = makers.get(name)
        if node is None or name in seen:
            continue
        seen.add(name)
        if node.op_type in QUANTISABLE or node.op_type in OTHER_PRODUCTS:
            found.add(node.output[0])
        else:
            waiting += node.input
    return found
