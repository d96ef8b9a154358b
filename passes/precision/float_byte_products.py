"""Products of 8-bit floats with a scale each are products of the bytes themselves.

With x = s q of the data and w = t p of the weights, the sum of x w is s t times the sum of q p,
which tensor cores multiply exactly and add up in f32: P. Micikevicius et al., "FP8 formats for deep
learning", https://arxiv.org/abs/2209.05433.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.decisions import Decision, Note
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.contraction import FLOAT_BYTES
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from .parameters import uniform, varying_axis


@dataclass(frozen=True)
class FloatByteProducts:
    """The pass; expected before constants are folded. note: is told of every such product."""

    note: Note | None = None
    name: str = "float_byte_products"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        rules = Rules()

        @rules.on("matmul", "conv")
        def product(node: Node, rw: Rewriter) -> Replacement:
            result = _product(node, rw)
            if result is not None and self.note:
                self.note(Decision(node.name, node.op, "fp8"))
            return result

        return rewrite(graph, rules)


@dataclass(frozen=True)
class _Scaled:
    """Floats that are bytes times a scale; None: as they are."""

    bytes: Value
    scale: Value | None


def _product(node: Node, rw: Rewriter) -> Replacement:
    """product(s q, t p) -> s t product(q, p), added up in f32"""
    if node.attrs["accumulate"] is not None or node.output.dtype is not DType.F32:
        return None
    left, right = (_scaled(value, rw) for value in node.inputs[:2])
    if left is None or right is None:
        return None
    rank = node.output.type.rank
    scales = []
    if left.scale is not None:
        if not uniform(left.scale):
            return None
        scales.append(rw.emit("reshape", [left.scale], {"shape": ()}))
    if right.scale is not None:
        own = _by_channel(node, right, rank)
        if own is None:
            return None
        scales.append(rw.emit("reshape", [right.scale], {"shape": own}))
    attrs = {**node.attrs, "accumulate": DType.F32}
    total = rw.emit(node.op, [left.bytes, right.bytes], attrs)
    if scales:
        factor = scales[0] if len(scales) == 1 else rw.emit("mul", scales)
        total = rw.emit("mul", [total, factor])
    if len(node.inputs) < 3:
        return total
    shape = tuple(node.output.shape[1] if axis == 1 else 1 for axis in range(rank))
    return rw.emit("add", [total, rw.emit("reshape", [node.inputs[2]], {"shape": shape})])


def _scaled(value: Value, rw: Rewriter) -> _Scaled | None:
    """What floats are made of, if that is bytes of 8-bit floats."""
    scale: Value | None = None
    if (product := rw.producer(value, "mul")) is not None:
        value, scale = product.inputs
        if rw.producer(value, "cast") is None:
            value, scale = scale, value
    made = rw.producer(value, "cast")
    if made is None or made.inputs[0].dtype not in FLOAT_BYTES or value.dtype is not DType.F32:
        return None
    return _Scaled(made.inputs[0], scale)


def _by_channel(node: Node, weights: _Scaled, rank: int) -> tuple[int, ...] | None:
    """The shape in which the weights' scale belongs to the result; None where it changes along the
    sum."""
    assert weights.scale is not None
    if uniform(weights.scale):
        return ()
    own = weights.bytes.type.rank
    axis = varying_axis(weights.scale, own)
    out, to = (0, 1) if node.op == "conv" else (own - 1, rank - 1)
    channels = node.output.shape[to]
    if axis != out or not isinstance(channels, int):
        return None
    return tuple(channels if at == to else 1 for at in range(rank))
