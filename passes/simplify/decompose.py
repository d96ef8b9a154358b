"""Decomposition of composite operators into those that fusion and code generation know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Builder
from ...compiler.ir.types import DType


class Emits(Protocol):
    """What appends nodes."""

    def emit(self, op: str, inputs: Sequence[Value], attrs: dict[str, Any] | None = None) -> Value:
        """Append a node with one output, which is returned."""


Rule = Callable[[Emits, Node], Value]


def _scalar(value: float, like: Value) -> Value:
    return constant(np.asarray(value, like.dtype.numpy))


def _wide(b: Emits, value: Value) -> Value:
    """A 16-bit float as f32: only the results of an operator are rounded, no step inside."""
    narrow = value.dtype in (DType.F16, DType.BF16)
    return b.emit("cast", [value], {"dtype": DType.F32}) if narrow else value


def _like(b: Emits, value: Value, node: Node) -> Value:
    """The value with the element type of the node's output."""
    dtype = node.output.dtype
    return value if value.dtype is dtype else b.emit("cast", [value], {"dtype": dtype})


def _softmax(b: Emits, node: Node) -> Value:
    x = _wide(b, node.inputs[0])
    axes = {"axes": (node.attrs["axis"] % x.type.rank,), "keepdims": True}
    shifted = b.emit("sub", [x, b.emit("reduce_max", [x], axes)])
    raised = b.emit("exp", [shifted])
    total = b.emit("reduce_sum", [raised], axes)
    one = _scalar(1.0, x)
    return _like(b, b.emit("mul", [raised, b.emit("div", [one, total])]), node)


def _layer_norm(b: Emits, node: Node) -> Value:
    x, scale, *bias = (_wide(b, value) for value in node.inputs)
    axis = node.attrs["axis"] % x.type.rank
    axes = {"axes": tuple(range(axis, x.type.rank)), "keepdims": True}
    centred = b.emit("sub", [x, b.emit("reduce_mean", [x], axes)])
    variance = b.emit("reduce_mean", [b.emit("mul", [centred, centred])], axes)
    spread = b.emit("sqrt", [b.emit("add", [variance, _scalar(node.attrs["epsilon"], x)])])
    inverse = b.emit("div", [_scalar(1.0, x), spread])
    result = b.emit("mul", [b.emit("mul", [centred, inverse]), scale])
    return _like(b, b.emit("add", [result, *bias]) if bias else result, node)


def _attention(b: Emits, node: Node) -> Value:
    q, k, v, *mask = (_wide(b, value) for value in node.inputs)
    rank = k.type.rank
    perm = (*range(rank - 2), rank - 1, rank - 2)
    scores = b.emit("matmul", [q, b.emit("transpose", [k], {"perm": perm})])
    scores = b.emit("mul", [scores, _scalar(node.attrs["scale"], q)])
    if mask:
        scores = b.emit("add", [scores, *mask])
    weights = b.emit("softmax", [scores], {"axis": rank - 1})
    return _like(b, b.emit("matmul", [weights, v]), node)


RULES: dict[str, Rule] = {
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "attention": _attention,
}


def _nothing(_: Node) -> bool:
    return False


@dataclass(frozen=True)
class Decompose:
    """The pass: replaces softmax, layer_norm and attention, also in regions.

    keeps: whether a node is left as it is.
    """

    keeps: Callable[[Node], bool] = _nothing
    name: str = "decompose"

    def run(self, graph: Graph) -> bool:
        """Rewrite until no composite operator is left but what is kept; whether there was one."""
        changed = False
        while any(node.op in RULES and not self.keeps(node) for node in graph.walk()):
            changed = True
            for part in list(graph.graphs()):
                self._rewrite(part)
        return changed

    def _rewrite(self, graph: Graph) -> None:
        nodes: list[Node] = []
        replaced: dict[Value, Value] = {}
        for node in graph.nodes:
            rule = RULES.get(node.op)
            if rule is None or self.keeps(node):
                nodes.append(node)
            else:
                result = rule(Builder(nodes, node.name), node)
                result.name = node.output.name
                replaced[node.output] = result
        graph.nodes = nodes
        graph.replace_uses(replaced)
