"""Products of integers as products of bytes, which instructions take several steps at once of.

The data is unsigned or signed, as what multiplies it takes it, the weights are signed. Zero points
leave the sum: that of the data times the sum of the weights of a column is a constant, that of the
weights times the sum of a row's data is a product with ones. Around a convolution's data lies its
zero point. Where data goes in groups of steps and channels are too few for that, floats add up the
same integers exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...compiler.decisions import Decision, Note, tell
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import DType
from .byte_weights import (
    EXACT_F32,
    FEWEST,
    LARGEST,
    STEPS,
    ends_of,
    greatest_sum,
    signed_bytes,
    why_no_bytes,
)
from .data_products import product_of_groups, why_no_groups
from .kept_bytes import BIT, ByteKind
from .requantising import BYTES

Array = np.ndarray[Any, Any]
GROUPS = {DType.U8: "dot4", DType.I8: "sdot4"}  # the operator, by the data's kind


@dataclass(frozen=True)
class ByteProducts:
    """The pass. note: is told of every product of bytes, and of those that could be none. data: U8
    or I8. in_groups: whether it is multiplied in groups of steps. floats: whether these add up what
    makes no groups, or else integers do: without vectors converting costs as much as multiplying.
    """

    note: Note | None = None
    data: DType = DType.U8
    in_groups: bool = True
    floats: bool = True
    name: str = "byte_products"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        rules = Rules()
        kind = ByteKind(self.data)
        form = partial(byte_product, kind=kind, in_groups=self.in_groups, floats=self.floats)
        rules.on("matmul", "conv")(form)
        rules.on("matmul")(partial(product_of_data, kind=kind, in_groups=self.in_groups))
        changed = rewrite(graph, rules)
        tell(self.note, _decisions(graph))
        return changed


def _decisions(graph: Graph) -> Iterator[Decision]:
    """What has become of products of bytes; one may be made of several."""
    for node in graph.walk():
        if node.op not in ("matmul", "conv"):
            continue
        bytes_ = node.attrs["accumulate"] is not None and node.inputs[0].dtype in BYTES
        if bytes_ or node.attrs.get("product") in GROUPS.values():
            yield Decision(node.name, node.op, "int8")
        elif _is_of_bytes(node.inputs[0]):
            weights = _weights(node)
            if weights is None:
                reason = why_no_groups(node)
            else:
                reason = why_no_bytes(node.op, weights, node.attrs)
            yield Decision(
                node.name,
                node.op,
                "int32",
                reason or "an operand is not of bytes with one zero point",
            )


def _is_of_bytes(value: Value) -> bool:
    """Whether an i32 is bytes, less a zero point."""
    node = value.producer
    while node is not None and node.op in ("sub", "add"):
        node = node.inputs[0].producer
    bytes_ = node is not None and node.inputs and node.inputs[0].dtype in (DType.U8, DType.I8)
    return bool(bytes_ and node is not None and node.op == "cast" and value.dtype is DType.I32)


@dataclass(frozen=True)
class _Data:
    """Data of bytes less a zero point (of an i32: None is none)."""

    bytes: Value
    zero: Value | None


def byte_product(
    node: Node, rw: Rewriter, kind: ByteKind, in_groups: bool = True, floats: bool = True
) -> Replacement:
    """product(cast(q) - z, w) -> product of bytes, less what z adds up to"""
    weights = _weights(node)
    if node.attrs["accumulate"] is not None or node.output.dtype is not DType.I32:
        return None
    last = node.attrs.get("layout") == "NHWC"
    if weights is None or not weights.size:
        return None
    ends = ends_of(weights, node.op)
    if why_no_bytes(node.op, weights, node.attrs, ends):
        return None
    data = _bytes_of(node.inputs[0], rw, kind)
    if data is None:
        return None
    if last:
        data = replace(data, bytes=_channels_moved(data.bytes, rw, last=False))
    signed, offset = signed_bytes(node.op, weights, ends)
    product = _Product(node, data, rw, in_groups, floats)
    total = product.of(signed)
    if total is None:
        return None
    if offset.any():
        rows = product.rows(signed)
        if rows is None:
            return None
        total = rw.emit("add", [total, rw.emit("mul", [rows, constant(offset)])])
    total = _biased(product.centred(total, weights), node.inputs[2:], rw)
    return _channels_moved(total, rw, last=True) if last else total


def _biased(total: Value, bias: Sequence[Value], rw: Rewriter) -> Value:
    """The sums of a convolution, channels first, with its bias, where there is one."""
    for own in bias:
        shape = tuple(own.shape[0] if axis == 1 else 1 for axis in range(total.type.rank))
        total = rw.emit("add", [total, rw.emit("reshape", [own], {"shape": shape})])
    return total


def _weights(node: Node) -> Array | None:
    """The constant weights of a product; those of a convolution with output channels first."""
    weights = node.inputs[1].data
    if weights is None or node.attrs.get("layout") != "NHWC":
        return weights
    return weights.transpose(-1, -2, *range(weights.ndim - 2))


def _channels_moved(value: Value, rw: Rewriter, *, last: bool) -> Value:
    """Channels behind the spatial axes, or in front of them."""
    spatial = range(2, value.type.rank)
    perm = (0, *spatial, 1) if last else (0, value.type.rank - 1, *(n - 1 for n in spatial))
    return rw.emit("transpose", [value], {"perm": perm})


def product_of_data(
    node: Node, rw: Rewriter, kind: ByteKind, in_groups: bool = True
) -> Replacement:
    """matmul(cast(q) - z, cast(p) - o) of what the run makes -> product of bytes, in groups where
    they are unsigned, less what the zero points add up to"""
    if node.attrs["accumulate"] is not None or node.output.dtype is not DType.I32:
        return None
    if node.inputs[1].is_constant or node.attrs["product"] or why_no_groups(node):
        return None
    left, right = (_bytes_of(value, rw, kind) for value in node.inputs)
    if left is None or right is None:
        return None
    depth = node.inputs[0].shape[-1]
    assert isinstance(depth, int)
    flip = BIT if kind.kept is DType.U8 else 0  # the right operand's bytes have to be signed
    if in_groups:
        total = product_of_groups(rw, GROUPS[kind.kept], left.bytes, right.bytes, flip)
    else:
        attrs = {**node.attrs, "accumulate": DType.I32}
        total = rw.emit("matmul", [left.bytes, right.bytes], attrs)
    # its right operand are the bytes less a flip: sum (p - z)(q - o) = sum p (q - flip)
    # - (o - flip) sum p - z sum q + depth z o
    if (number := _number(right.zero)) != flip:
        moved = _scalar(right.zero)
        if number is not None:
            moved = constant(np.int32(number - flip))
        elif flip:
            moved = rw.emit("sub", [moved, constant(np.int32(flip))])
        total = rw.emit("sub", [total, rw.emit("mul", [_sums(left.bytes, -1, rw), moved])])
    if _number(left.zero) != 0:
        zero = _scalar(left.zero)
        columns = rw.emit("mul", [_sums(right.bytes, -2, rw), zero])
        both = rw.emit(
            "mul", [zero, rw.emit("mul", [_scalar(right.zero), constant(np.int32(depth))])]
        )
        total = rw.emit("add", [rw.emit("sub", [total, columns]), both])
    return total


def _number(zero: Value | None) -> int | None:
    """A zero point that is known."""
    number = 0 if zero is None else scalar(zero)
    return None if number is None else int(number)


def _scalar(zero: Value | None) -> Value:
    return constant(np.int32(0)) if zero is None else zero


def _sums(data: Value, axis: int, rw: Rewriter) -> Value:
    """What bytes add up to along an axis, kept with size 1, in i32."""
    wide = rw.emit("cast", [data], {"dtype": DType.I32})
    attrs = {"axes": (data.type.rank + axis,), "keepdims": True}
    return rw.emit("reduce_sum", [wide], attrs)


def _bytes_of(value: Value, rw: Rewriter, kind: ByteKind) -> _Data | None:
    """What an i32 is made of, if it is bytes less a zero point; of the other kind than the kept
    one they are turned."""
    known, points = 0, list[Value]()
    zero: Value | None = None
    while (moved := rw.producer(value, "sub", "add")) is not None:
        value, point = moved.inputs
        number = scalar(point)
        if number is not None:
            known += int(number) if moved.op == "sub" else -int(number)
        elif moved.op == "sub" and point.type.elements == 1:
            points.append(point)
        else:
            return None
    made = rw.producer(value, "cast")
    if made is None or made.inputs[0].dtype not in BYTES:
        return None
    data = made.inputs[0]
    if data.dtype is kind.other:
        known += kind.shift
        octets = rw.emit("bitcast", [data], {"dtype": kind.kept})
        data = rw.emit("bitxor", [octets, constant(np.asarray(kind.shift, kind.kept.numpy))])
    for point in points:
        point = rw.emit("reshape", [point], {"shape": ()})
        zero = point if zero is None else rw.emit("add", [zero, point])
    if zero is None:
        return _Data(data, constant(np.int32(known)) if known else None)
    return _Data(data, rw.emit("add", [zero, constant(np.int32(known))]) if known else zero)


class _Product:
    """One contraction of bytes with signed ones."""

    def __init__(
        self, node: Node, data: _Data, rw: Rewriter, in_groups: bool, floats: bool
    ) -> None:
        self.node, self.data, self.rw = node, data, rw
        self.attrs = {**node.attrs, "layout": "NCHW"} if node.op == "conv" else dict(node.attrs)
        self.bytes, self.in_groups, self.floats = data.bytes, in_groups, floats
        self.ready = node.op == "matmul" or self._pad()

    def _pad(self) -> bool:
        """Surround a convolution's data with its zero point."""
        zero = self.data.zero
        if zero is None or all(pad == 0 for pad in self.attrs["pads"]):
            return True
        number = scalar(zero)
        if number is not None:
            self.attrs["pad_value"] = int(number)
            least = 0 if self.bytes.dtype is DType.U8 else -BIT
            return bool(least <= number <= least + LARGEST)
        rank, pads = self.bytes.type.rank, self.attrs["pads"]
        half = len(pads) // 2
        around = (0, 0, *pads[:half], 0, 0, *pads[half:])
        point = self.rw.emit("cast", [zero], {"dtype": self.bytes.dtype})
        point = self.rw.emit("reshape", [point], {"shape": ()})
        attrs = {"pads": around, "mode": "constant"}
        self.bytes = self.rw.emit("pad", [self.bytes, point], attrs)
        self.attrs["pads"] = (0,) * len(pads)
        return rank == half + 2

    def of(self, weights: Array) -> Value | None:
        """The sums with weights (signed bytes), in i32; None where nothing adds them up fast."""
        if not self.ready:
            return None
        matmul = self.node.op == "matmul"
        depth = weights.shape[-2 if matmul else 1]
        missing = -depth % STEPS
        if not missing or not self.in_groups:
            return self._emit(self.bytes, weights)
        if depth < FEWEST or self.attrs.get("groups", 1) > 1:
            if not self.floats:
                return self._emit(self.bytes, weights)
            exact = greatest_sum(weights, self.node.op) < EXACT_F32
            return self._in_floats(weights) if exact else None
        axis = self.bytes.type.rank - 1 if matmul else 1
        pads = [0] * (2 * self.bytes.type.rank)
        pads[self.bytes.type.rank + axis] = missing
        attrs = {"pads": tuple(pads), "mode": "constant"}
        filled = self.rw.emit("pad", [self.bytes], attrs)
        more = [(0, 0)] * weights.ndim
        more[-2 if matmul else 1] = (0, missing)
        return self._emit(filled, np.pad(weights, more))

    def rows(self, weights: Array) -> Value | None:
        """The sums of the data that the weights of each column meet, as `of`: all ones of a group
        of a convolution, or of a matrix."""
        if self.node.op == "matmul":
            return self.of(np.ones_like(weights[..., :1]))
        groups = self.attrs["groups"]
        sums = self.of(np.ones_like(weights[:groups]))
        if sums is None or groups == 1:
            return sums
        shape, each = sums.shape, len(weights) // groups
        split = self.rw.emit("reshape", [sums], {"shape": (*shape[:2], 1, *shape[2:])})
        wide = self.rw.emit("broadcast_to", [split], {"shape": (*shape[:2], each, *shape[2:])})
        return self.rw.emit("reshape", [wide], {"shape": (shape[0], len(weights), *shape[2:])})

    def _emit(self, data: Value, weights: Array) -> Value:
        attrs = {**self.attrs, "accumulate": DType.I32}
        operands = [data, constant(weights, self.node.inputs[1].name)]
        return self.rw.emit(self.node.op, operands, attrs)

    def _in_floats(self, weights: Array) -> Value:
        attrs = {**self.attrs, "accumulate": DType.F32}
        operands = [self.bytes, constant(weights.astype(np.float32), self.node.inputs[1].name)]
        total = self.rw.emit(self.node.op, operands, attrs)
        return self.rw.emit("cast", [total], {"dtype": DType.I32})

    def centred(self, total: Value, weights: Array) -> Value:
        """The sums less the data's zero point times the sums of the (whole) weights."""
        zero = self.data.zero
        if zero is None or scalar(zero) == 0:
            return total
        if self.node.op == "matmul":
            columns = weights.sum(0, dtype=np.int32)
        else:
            columns = weights.reshape(len(weights), -1).sum(1, dtype=np.int32)
            columns = columns.reshape(-1, *(1,) * (weights.ndim - 2))
        number = scalar(zero)
        if number is not None:
            return self.rw.emit("add", [total, constant(columns * np.int32(-number))])
        point = self.rw.emit("reshape", [zero], {"shape": ()})
        taken = self.rw.emit("mul", [point, constant(columns)])
        return self.rw.emit("sub", [total, taken])


FLOAT_SUMS = Rules()


@FLOAT_SUMS.on("cast")
def floats_stay(node: Node, rw: Rewriter) -> Replacement:
    """f32(i32(t) + c) -> t + c, of sums that floats add up exactly"""
    value = node.inputs[0]
    if node.output.dtype is not DType.F32 or value.dtype is not DType.I32:
        return None
    moved: list[Value] = []
    while (added := rw.producer(value, "add")) is not None and added.inputs[1].data is not None:
        if np.abs(added.inputs[1].data.astype(np.int64)).max() >= EXACT_F32:
            return None
        moved.append(added.inputs[1])
        value = added.inputs[0]
    made = rw.producer(value, "cast")
    if made is None or made.inputs[0].dtype is not DType.F32:
        return None
    product = rw.producer(made.inputs[0], "matmul", "conv")
    if product is None or product.attrs["accumulate"] is not DType.F32:
        return None
    result = made.inputs[0]
    offset = sum((m.data.astype(np.int64) for m in moved if m.data is not None), start=np.int64(0))
    if np.abs(offset).max() >= EXACT_F32:
        return None
    return rw.emit("add", [result, constant(np.asarray(offset, np.float32))]) if moved else result
