"""Unsigned bytes that the graph makes are kept as signed ones, which integer processors take.

The opposite of `unsigned_bytes.py`: what is quantised to the former is quantised to the latter, by
a zero point that is 128 lower.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ....compiler.ir.graph import Graph, Node, Value, constant
from ....compiler.ir.ops.registry import Trait
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ....compiler.ir.types import DType
from ..unsigned_bytes import BIT

RULES = Rules()


@dataclass(frozen=True)
class SignedBytes:
    """The pass."""

    name: str = "signed_bytes"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        return rewrite(graph, RULES)


def _source(value: Value, rw: Rewriter) -> Value | None:
    """The signed bytes of which a value is the unsigned ones."""
    if value.dtype is not DType.U8:
        return None
    if value.data is not None:
        return constant((value.data.astype(np.int16) - BIT).astype(np.int8), value.name)
    flipped = rw.producer(value, "bitxor")
    turned = rw.producer(flipped.inputs[0], "bitcast") if flipped is not None else None
    if flipped is None or turned is None or turned.inputs[0].dtype is not DType.I8:
        return None
    return turned.inputs[0] if scalar(flipped.inputs[1]) == BIT else None


def _unsigned(value: Value, rw: Rewriter) -> Value:
    """Signed bytes with their highest bit turned, as unsigned ones."""
    turned = rw.emit("bitcast", [value], {"dtype": DType.U8})
    return rw.emit("bitxor", [turned, constant(np.uint8(BIT))])


@RULES.on("quantize", "requantize")
def made_signed(node: Node, rw: Rewriter) -> Replacement:
    """quantize(x) to u8 -> the unsigned bytes of quantize(x) to i8"""
    value, scale, zero, *bias = node.inputs
    point = _source(zero, rw) if zero.is_constant else None
    if point is None:
        return None
    attrs = dict(node.attrs)
    attrs.update({key: attrs[key] - BIT for key in ("low", "high") if key in attrs})
    return _unsigned(rw.emit(node.op, [value, scale, point, *bias], attrs), rw)


@RULES.on(Trait.INDEX_MAP, Trait.LOOKUP, "max_pool")
def turned_later(node: Node, rw: Rewriter) -> Replacement:
    """movement(unsigned(s)) -> unsigned(movement(s)): the order of bytes is the same"""
    source = None if node.inputs[0].is_constant else _source(node.inputs[0], rw)
    if source is None or len(node.inputs) > 1 + (node.op not in ("pad", "max_pool")):
        return None
    return _unsigned(rw.emit(node.op, [source, *node.inputs[1:]], node.attrs), rw)


@RULES.on("max", "min", "concat", "pad")
def of_several(node: Node, rw: Rewriter) -> Replacement:
    """concat(unsigned(a), unsigned(b)) -> unsigned(concat(a, b)); so are bounds, and what pads"""
    parts = [_source(value, rw) for value in node.inputs]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts) or len(found) < 2:
        return None
    return _unsigned(rw.emit(node.op, found, node.attrs), rw)


@RULES.on("dequantize")
def dequantised_signed(node: Node, rw: Rewriter) -> Replacement:
    """dequantize(unsigned(s), z) -> dequantize(s, z - 128)"""
    data, scale, zero = node.inputs
    source, point = _source(data, rw), _source(zero, rw)
    if source is None or point is None:
        return None
    return rw.emit("dequantize", [source, scale, point])
