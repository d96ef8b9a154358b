"""Rules: sums, differences, products, maxima and minima of two quantised tensors, and joins."""

from __future__ import annotations

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.ops.quantization import NEAREST
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ....compiler.ir.types import DType
from .operands import (
    SINGLE,
    WIDE_BITS,
    FixedPoint,
    QuantisedResult,
    centred,
    given,
    integer_bias,
    operand_of,
    rescaled,
    result_of,
)

RULES = Rules()
_MOST_SUM_BITS = 30


@RULES.on("requantize")
def rounded_once(node: Node, rw: Rewriter) -> Replacement:
    """requantize(sum, bias) by floats -> requantize(sum + bias) in fixed point"""
    total, scale, zero, *bias = node.inputs
    if node.attrs["rounding"] != NEAREST or scale.data is None or zero.data is None:
        return None
    if not (scale.data > 0).all() or zero.data.size != 1:
        return None
    if bias:
        moved = None if bias[0].data is None else integer_bias(bias[0].data, scale.data)
        if moved is None:
            return None
        total = rw.emit("add", [total, constant(moved)])
    return rw.emit("requantize", [total, scale, zero], {**node.attrs, "rounding": SINGLE})


@RULES.on("quantize")
def of_two(node: Node, rw: Rewriter) -> Replacement:
    """quantize(a + b) and the like, of quantised tensors and sums -> the same in i32"""
    result = result_of(node, rw)
    made = None if result is None else rw.producer(result.value, *_OF_TWO)
    if result is None or made is None:
        return None
    operands = [operand_of(value, rw) for value in made.inputs]
    left, right = operands
    if left is None or right is None or (left.integers.is_constant and right.integers.is_constant):
        return None
    return _OF_TWO[made.op](made.op, left, right, result, rw)


def _added(
    op: str, left: FixedPoint, right: FixedPoint, result: QuantisedResult, rw: Rewriter
) -> Replacement:
    """Both by one scale, the larger of theirs with 19 bits behind the point."""
    largest = max(left.largest_scale, right.largest_scale)
    wide = 2.0 * largest / (1 << _wide_bits(left, right))
    parts = [
        rescaled(centred(side, rw), side.scale.astype(np.float64) / wide, DType.I32, rw)
        for side in (left, right)
    ]
    return given(rw.emit(op, parts), wide, result, rw)


def _wide_bits(left: FixedPoint, right: FixedPoint) -> int:
    """Bits before the point of what is added: bytes have 9 with a zero point, sums up to 31."""
    widest = max((left, right), key=lambda side: side.integers.dtype.bits)
    bits = {DType.I8: 9, DType.I16: 17}.get(widest.integers.dtype)
    return min(WIDE_BITS, _MOST_SUM_BITS - bits) if bits is not None else 1


def _multiplied(
    op: str, left: FixedPoint, right: FixedPoint, result: QuantisedResult, rw: Rewriter
) -> Replacement:
    if DType.I32 in (left.integers.dtype, right.integers.dtype):
        return None
    if left.integers.dtype is right.integers.dtype is DType.I16:
        return None  # with zero points the product takes more than 32 bits
    total = rw.emit("mul", [centred(left, rw), centred(right, rw)])
    return given(total, left.scale.astype(np.float64) * right.scale, result, rw)


def _extreme(
    op: str, left: FixedPoint, right: FixedPoint, result: QuantisedResult, rw: Rewriter
) -> Replacement:
    parts = [_as_result(side, result, rw) for side in (left, right)]
    return rw.emit(op, parts)


def _as_result(side: FixedPoint, result: QuantisedResult, rw: Rewriter) -> Value:
    """An operand by the scale and zero point of a result."""
    whole = (result.low, result.high) == (-128, 127)
    fits = side.integers.dtype is result.dtype and side.alike(result.scale, result.zero)
    if fits and whole:
        return side.integers
    return given(centred(side, rw), side.scale, result, rw)


_OF_TWO = {"add": _added, "sub": _added, "mul": _multiplied, "max": _extreme, "min": _extreme}


@RULES.on("quantize")
def joined(node: Node, rw: Rewriter) -> Replacement:
    """quantize(concat(dequantize(a), dequantize(b))) -> concat of both by the new scale"""
    result = result_of(node, rw)
    made = None if result is None else rw.producer(result.value, "concat")
    if result is None or made is None:
        return None
    operands = [operand_of(value, rw) for value in made.inputs]
    parts = [_as_result(side, result, rw) for side in operands if side is not None]
    return rw.emit("concat", parts, made.attrs) if len(parts) == len(operands) else None


@RULES.on("quantize")
def of_one(node: Node, rw: Rewriter) -> Replacement:
    """quantize(dequantize(a)) by another scale, and quantize(sum) that is read otherwise, too"""
    result = result_of(node, rw)
    if result is None or result.value.is_constant:
        return None
    operand = operand_of(result.value, rw)
    return None if operand is None else _as_result(operand, result, rw)
