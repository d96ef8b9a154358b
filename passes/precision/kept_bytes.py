"""Bytes that the graph makes are kept as those of one kind, signed or not, which products take.

A signed byte is an unsigned one with its highest bit turned: what is quantised to one kind is
quantised to the other, by a zero point that is 128 away, and the bit is turned where something has
to see the number that the model has. Instructions of CPUs take unsigned data, tensor cores signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import DType

BIT = 128
UNSIGNED = " + 128"  # behind the name of what is kept so
SIGNED = " - 128"


@dataclass(frozen=True)
class KeptBytes:
    """The pass. kept: U8 or I8."""

    kept: DType = DType.U8
    name: str = "kept_bytes"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        rules = Rules()
        for ops, rule in _RULES:
            rules.on(*ops)(partial(rule, kind=ByteKind(self.kept)))
        return rewrite(graph, rules)


@dataclass(frozen=True)
class ByteKind:
    """From bytes of the kind that is kept to those of the other one, and back."""

    kept: DType

    @property
    def other(self) -> DType:
        """The kind that is not kept."""
        return DType.I8 if self.kept is DType.U8 else DType.U8

    @property
    def shift(self) -> int:
        """What a byte that is kept is more than the other one."""
        return BIT if self.kept is DType.U8 else -BIT

    def kept_of(self, value: Value, rw: Rewriter) -> Value | None:
        """The bytes that are kept of which a value is the others."""
        turned = rw.producer(value, "bitcast")
        flipped = rw.producer(turned.inputs[0], "bitxor") if turned is not None else None
        if flipped is None or value.dtype is not self.other:
            return None
        same = flipped.output.dtype is self.kept and scalar(flipped.inputs[1]) == self.shift
        return flipped.inputs[0] if same else None

    def other_of(self, value: Value, rw: Rewriter) -> Value:
        """Bytes that are kept with their highest bit turned, as those of the other kind."""
        bit = constant(np.asarray(self.shift, self.kept.numpy))
        return rw.emit("bitcast", [rw.emit("bitxor", [value, bit])], {"dtype": self.other})

    def moved(self, number: Any) -> Value:
        """A constant of the other kind as it is among those that are kept."""
        return constant((number.astype(np.int16) + self.shift).astype(self.kept.numpy))


def _made(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """quantize(x) to the other kind -> the other kind of what quantize(x) to the kept one gives"""
    value, scale, zero, *bias = node.inputs
    if zero.dtype is not kind.other or zero.data is None:
        return None
    attrs = dict(node.attrs)
    attrs.update({key: attrs[key] + kind.shift for key in ("low", "high") if key in attrs})
    made = rw.emit(node.op, [value, scale, kind.moved(zero.data), *bias], attrs)
    if made.producer is not None and node.output.name:
        made.name = f"{node.output.name}{UNSIGNED if kind.kept is DType.U8 else SIGNED}"
    return kind.other_of(made, rw)


def _turned_later(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """movement(other(k)) -> other(movement(k)): the order of bytes is the same"""
    source = kind.kept_of(node.inputs[0], rw)
    if source is None or len(node.inputs) > 1 + (node.op not in ("pad", "max_pool")):
        return None
    return kind.other_of(rw.emit(node.op, [source, *node.inputs[1:]], node.attrs), rw)


def _clipped(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """max(other(k), c) -> other(max(k, c moved))"""
    source, bound = kind.kept_of(node.inputs[0], rw), node.inputs[1]
    if source is None or bound.data is None:
        return None
    return kind.other_of(rw.emit(node.op, [source, kind.moved(bound.data)]), rw)


def _joined(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """concat(other(a), other(b)) -> other(concat(a, b))"""
    parts = [kind.kept_of(value, rw) for value in node.inputs]
    found = [part for part in parts if part is not None]
    if len(found) < len(parts):
        return None
    return kind.other_of(rw.emit("concat", found, node.attrs), rw)


def _padded(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """pad(other(k), c) -> other(pad(k, c moved))"""
    source = kind.kept_of(node.inputs[0], rw)
    if source is None or len(node.inputs) < 2 or node.inputs[1].data is None:
        return None
    filler = kind.moved(node.inputs[1].data)
    return kind.other_of(rw.emit("pad", [source, filler], node.attrs), rw)


def _dequantised(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """dequantize(other(k), z) -> dequantize(k, z moved)"""
    source, zero = kind.kept_of(node.inputs[0], rw), node.inputs[2]
    if source is None or zero.data is None:
        return None
    return rw.emit("dequantize", [source, node.inputs[1], kind.moved(zero.data)])


def _widened(node: Node, rw: Rewriter, kind: ByteKind) -> Replacement:
    """i32(other(k)) -> i32(k) - shift"""
    source = kind.kept_of(node.inputs[0], rw)
    if source is None or node.output.dtype is not DType.I32:
        return None
    wide = rw.emit("cast", [source], {"dtype": DType.I32})
    return rw.emit("sub", [wide, constant(np.int32(kind.shift))])


_RULES: tuple[tuple[tuple[str | Trait, ...], Callable[..., Replacement]], ...] = (
    (("quantize", "requantize"), _made),
    ((Trait.INDEX_MAP, Trait.LOOKUP, "max_pool"), _turned_later),
    (("max", "min"), _clipped),
    (("concat",), _joined),
    (("pad",), _padded),
    (("dequantize",), _dequantised),
    (("cast",), _widened),
)
