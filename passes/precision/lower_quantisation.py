"""Quantising and dequantising as plain pointwise operators, where nothing better was found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.errors import InternalError
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.fixed_point import multiplier_of
from ...compiler.ir.ops.interpolated_table import FRACTION_BITS, LOWEST
from ...compiler.ir.ops.quantization import NEAREST, RANGES
from ...compiler.ir.ops.registry import lookup
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import DType
from .byte_products import FLOAT_SUMS

Array = np.ndarray[Any, Any]
LEAST_SCALE = 2.0**-100
_EXACT_IN_F32 = frozenset(RANGES)  # differences of such integers are exact in f32


@dataclass(frozen=True)
class LowerQuantisation:
    """The pass: after it only casts are between floats and integers of few bits, and what makes
    floats of bytes by one constant scale."""

    name: str = "lower_quantisation"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was anything to."""
        return rewrite(graph, _RULES)


_RULES = Rules()
_RULES.extend(FLOAT_SUMS)


def _cast(rw: Rewriter, value: Value, dtype: DType) -> Value:
    if value.dtype is dtype:
        return value
    if value.data is not None:
        return constant(_plain(value).astype(dtype.numpy))
    return rw.emit("cast", [value], {"dtype": dtype})


def _plain(value: Value) -> Array:
    """A constant's elements; of those types that are stored only, as i32."""
    assert value.data is not None
    return value.data.astype(np.int32) if value.dtype.is_narrow else value.data


def _is_zero(value: Value) -> bool:
    return value.data is not None and not value.data.any()


def stays(node: Node) -> bool:
    """Whether kernels make floats of bytes themselves, wherever they read them."""
    x, scale, zero = node.inputs
    known = scalar(scale) is not None and scalar(zero) is not None and not x.is_constant
    return known and x.dtype in (DType.U8, DType.I8) and scale.dtype is DType.F32


@_RULES.on("dequantize")
def _dequantize(node: Node, rw: Rewriter) -> Replacement:
    x, scale, zero = node.inputs
    if stays(node):
        return None
    if _is_zero(zero):
        return rw.emit("mul", [_cast(rw, x, scale.dtype), scale])
    if x.dtype in _EXACT_IN_F32 and scale.dtype in (DType.F32, DType.F64):
        operands = [_cast(rw, x, scale.dtype), _cast(rw, zero, scale.dtype)]
        return rw.emit("mul", [rw.emit("sub", operands), scale])
    difference = rw.emit("sub", [_cast(rw, x, DType.I32), _cast(rw, zero, DType.I32)])
    return rw.emit("mul", [_cast(rw, difference, scale.dtype), scale])


@_RULES.on("unpack")
def _unpack(node: Node, rw: Rewriter) -> Replacement:
    """Integers that no product reads packed lie one to a byte."""
    packed = node.inputs[0].data
    evaluate = lookup(node.op).evaluate
    assert packed is not None
    assert evaluate is not None
    return constant(evaluate([packed], node.attrs)[0], node.output.name)


@_RULES.on("quantize")
def _quantize(node: Node, rw: Rewriter) -> Replacement:
    x, scale, zero = node.inputs
    wide = DType.F64 if x.dtype is DType.F64 else DType.F32
    if wide is DType.F32 and zero.data is not None and _is_usual(scale):
        return _divided(rw, _cast(rw, x, wide), scale, zero)
    steps = rw.emit("div", [_cast(rw, x, wide), _cast(rw, scale, wide)])
    return rounded(rw, steps, zero, *RANGES[zero.dtype])


@_RULES.on("requantize")
def _requantize(node: Node, rw: Rewriter) -> Replacement:
    total, scale, zero, *bias = node.inputs
    low, high, rounding = (node.attrs[key] for key in ("low", "high", "rounding"))
    if rounding == NEAREST:
        factors = [_cast(rw, total, DType.F32), scale]
        real = rw.emit("fma", [*factors, *bias]) if bias else rw.emit("mul", factors)
        return rounded(rw, real, zero, low, high)
    steps = _fixed_point(rw, total, scale, rounding)
    offset = _cast(rw, zero, DType.I64)
    moved = rw.emit("add", [steps, offset])
    inside = rw.emit("max", [moved, constant(np.asarray(low, np.int64))])
    inside = rw.emit("min", [inside, constant(np.asarray(high, np.int64))])
    return _cast(rw, inside, zero.dtype)


@_RULES.on("interpolated_table")
def _interpolated(node: Node, rw: Rewriter) -> Replacement:
    """The two results beside an element, and a straight line between them."""
    table = constant(np.asarray(node.attrs["values"], np.int32))

    def emit(op: str, a: Value, b: Value | int) -> Value:
        return rw.emit(op, [a, b if isinstance(b, Value) else constant(np.int32(b))])

    place = emit("sub", _cast(rw, node.inputs[0], DType.I32), LOWEST)
    index = emit("shr", place, FRACTION_BITS)
    rest = emit("bitand", place, (1 << FRACTION_BITS) - 1)
    below, above = (
        rw.emit("gather", [table, at], {"axis": 0}) for at in (index, emit("add", index, 1))
    )
    slope = emit("mul", emit("sub", above, below), rest)
    return emit("add", emit("shl", below, FRACTION_BITS), slope)


def _is_usual(scale: Value) -> bool:
    """Whether a constant scale is such that neither its inverse nor any bound is out of range."""
    data = scale.data
    if data is None or data.dtype != np.float32 or not data.size:
        return False
    return bool(np.all((data >= LEAST_SCALE) & (data <= 1 / LEAST_SCALE)))


def _divided(rw: Rewriter, x: Value, scale: Value, zero: Value) -> Value:
    """round(x / scale) + zero, of x that is clipped before: a quotient of finite numbers."""
    assert scale.data is not None
    offset = _plain(zero).astype(np.float32)
    bounds = [constant(np.float32(n - offset) * scale.data) for n in RANGES[zero.dtype]]
    inside = rw.emit("at_most", [rw.emit("at_least", [x, bounds[0]]), bounds[1]])
    inverse = constant(np.float32(1) / scale.data)
    number = rw.emit("rint", [rw.emit("quotient", [inside, scale, inverse])])
    if not _is_zero(zero):
        number = rw.emit("add", [number, _cast(rw, zero, DType.I32)])
    return _cast(rw, number, zero.dtype)


def rounded(rw: Rewriter, steps: Value, zero: Value, low: int, high: int) -> Value:
    """round(steps) + zero within [low, high], of the zero point's type; a NaN becomes low."""
    if zero.data is not None:
        offset = _plain(zero).astype(np.int64)
        least, most = (constant((n - offset).astype(steps.dtype.numpy)) for n in (low, high))
    else:
        moved = _cast(rw, zero, steps.dtype)
        least, most = (
            rw.emit("sub", [constant(np.asarray(n, steps.dtype.numpy)), moved]) for n in (low, high)
        )
    inside = rw.emit("at_most", [rw.emit("at_least", [steps, least]), most])
    number = rw.emit("rint", [inside])
    if not _is_zero(zero):
        number = rw.emit("add", [number, _cast(rw, zero, DType.I32)])
    return _cast(rw, number, zero.dtype)


def _fixed_point(rw: Rewriter, total: Value, scale: Value, rounding: str) -> Value:
    """The sum times a constant scale in 64-bit integers (see `ops/fixed_point.py`)."""
    if scale.data is None:
        raise InternalError(f"rounding '{rounding}' with a scale that only a run knows")
    multiplier, shift = multiplier_of(scale.data)
    wide = _cast(rw, total, DType.I64)

    def emit(op: str, a: Value, b: Array | int | Value) -> Value:
        other = b if isinstance(b, Value) else constant(np.asarray(b, np.int64))
        return rw.emit(op, [a, other])

    if rounding == "single":
        left, right = np.maximum(-shift, 0), np.maximum(shift, 0)
        half = np.where(right > 0, np.int64(1) << np.maximum(right - 1, 0), 0)
        product = emit("mul", emit("shl", wide, left) if left.any() else wide, multiplier)
        return emit("shr", emit("add", product, half), right)
    left, right = np.maximum(31 - shift, 0), np.maximum(shift - 31, 0)
    product = emit("mul", emit("shl", wide, left) if left.any() else wide, multiplier)
    negative = emit("lt", product, 0)
    nudge = rw.emit("where", [negative, *_numbers(1 - (1 << 30), 1 << 30)])
    high = emit("div", rw.emit("add", [product, nudge]), 1 << 31)  # towards zero
    mask = (np.int64(1) << right) - 1
    rest = emit("bitand", high, mask)
    threshold = rw.emit("where", [emit("lt", high, 0), *_numbers((mask >> 1) + 1, mask >> 1)])
    more = rw.emit("cast", [rw.emit("gt", [rest, threshold])], {"dtype": DType.I64})
    return rw.emit("add", [emit("shr", high, right), more])


def _numbers(*values: Array | int) -> list[Value]:
    return [constant(np.asarray(value, np.int64)) for value in values]
