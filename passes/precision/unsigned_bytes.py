"""Signed bytes that the graph makes are kept as unsigned ones, which products of bytes take.

A signed byte is an unsigned one with its highest bit turned: what is quantised to the former is
quantised to the latter, by a zero point that is 128 higher, and the bit is turned where something
has to see the signed number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import DType

RULES = Rules()
BIT = 128
UNSIGNED = " + 128"  # behind the name of what is kept so


@dataclass(frozen=True)
class UnsignedBytes:
    """The pass."""

    name: str = "unsigned_bytes"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        return rewrite(graph, RULES)


def unsigned(value: Value, rw: Rewriter) -> Value | None:
    """The unsigned bytes of which a value is the signed ones."""
    turned = rw.producer(value, "bitcast")
    flipped = rw.producer(turned.inputs[0], "bitxor") if turned is not None else None
    if flipped is None or flipped.output.dtype is not DType.U8 or value.dtype is not DType.I8:
        return None
    return flipped.inputs[0] if scalar(flipped.inputs[1]) == BIT else None


def signed(value: Value, rw: Rewriter) -> Value:
    """Unsigned bytes with their highest bit turned, as signed ones."""
    flipped = rw.emit("bitxor", [value, constant(np.uint8(BIT))])
    return rw.emit("bitcast", [flipped], {"dtype": DType.I8})


@RULES.on("quantize", "requantize")
def made_unsigned(node: Node, rw: Rewriter) -> Replacement:
    """quantize(x) to i8 -> the signed bytes of quantize(x) to u8"""
    value, scale, zero, *bias = node.inputs
    if zero.dtype is not DType.I8 or zero.data is None:
        return None
    point = constant((zero.data.astype(np.int16) + BIT).astype(np.uint8))
    attrs = dict(node.attrs)
    attrs.update({key: attrs[key] + BIT for key in ("low", "high") if key in attrs})
    made = rw.emit(node.op, [value, scale, point, *bias], attrs)
    if made.producer is not None and node.output.name:
        made.name = f"{node.output.name}{UNSIGNED}"
    return signed(made, rw)


@RULES.on(Trait.INDEX_MAP, Trait.LOOKUP, "max_pool")
def turned_later(node: Node, rw: Rewriter) -> Replacement:
    """movement(signed(u)) -> signed(movement(u)): the order of bytes is the same"""
    source = unsigned(node.inputs[0], rw)
    if source is None or len(node.inputs) > 1 + (node.op not in ("pad", "max_pool")):
        return None
    return signed(rw.emit(node.op, [source, *node.inputs[1:]], node.attrs), rw)


@RULES.on("max", "min")
def clipped_unsigned(node: Node, rw: Rewriter) -> Replacement:
    """max(signed(u), c) -> signed(max(u, c + 128))"""
    source, bound = unsigned(node.inputs[0], rw), node.inputs[1]
    if source is None or bound.data is None:
        return None
    moved = constant((bound.data.astype(np.int16) + BIT).astype(np.uint8))
    return signed(rw.emit(node.op, [source, moved]), rw)


@RULES.on("concat")
def joined_unsigned(node: Node, rw: Rewriter) -> Replacement:
    """concat(signed(a), signed(b)) -> signed(concat(a, b))"""
    parts = [unsigned(value, rw) for value in node.inputs]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return signed(rw.emit("concat", found, node.attrs), rw)


@RULES.on("dequantize")
def dequantised_unsigned(node: Node, rw: Rewriter) -> Replacement:
    """dequantize(signed(u), z) -> dequantize(u, z + 128)"""
    source = unsigned(node.inputs[0], rw)
    zero = node.inputs[2]
    if source is None or zero.data is None:
        return None
    point = constant((zero.data.astype(np.int16) + BIT).astype(np.uint8))
    return rw.emit("dequantize", [source, node.inputs[1], point])


@RULES.on("cast")
def widened(node: Node, rw: Rewriter) -> Replacement:
    """i32(signed(u)) -> i32(u) - 128"""
    source = unsigned(node.inputs[0], rw)
    if source is None or node.output.dtype is not DType.I32:
        return None
    wide = rw.emit("cast", [source], {"dtype": DType.I32})
    return rw.emit("sub", [wide, constant(np.int32(BIT))])
