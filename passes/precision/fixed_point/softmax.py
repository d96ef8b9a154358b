"""Rule: softmax in integers, by tables.

With d = x - max(x), e = exp(d) is looked up for each of the 256 differences that bytes have. A
first r = 1 / sum(e) is looked up; steps of Newton, r (2 - r sum), make it as exact as 15 bits are;
e r is the result. Sums and products of 32 bits are scaled by powers of two alone, and what is
looked up has 16 bits: so processors scale, and look up, within the operator that makes a number.
"""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.ops.byte_table import BYTE_TABLE, SIZE
from ....compiler.ir.ops.interpolated_table import (
    ENTRIES,
    FRACTION_BITS,
    HIGHEST,
    INTERPOLATED_TABLE,
    LOWEST,
)
from ....compiler.ir.ops.quantization import REACHED
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ....compiler.ir.types import DType
from .known_scales import Scale, fitting_scale
from .operands import Array, FixedPoint, centred, given, operand_of, rescaled, result_of

RULES = Rules()
_ONE_BITS = 15
_ONE = (1 << _ONE_BITS) - 1  # that exp(0) is
_HALF = 8  # bits that a table gives
_UNIT = 1 << 2 * _ONE_BITS  # of which a reciprocal is the part that the sum has
_SPAN = HIGHEST - LOWEST
_MOST_ADDENDS = 1 << 15
_MOST_ERROR = 0.5  # of a first reciprocal
_EXACT = 2.0**-12  # relative error of the reciprocal that is left to rounding


@RULES.on("quantize")
def in_integers(node: Node, rw: Rewriter) -> Replacement:
    """quantize(softmax(dequantize(x))) -> the same of bytes"""
    result = result_of(node, rw)
    made = None if result is None else rw.producer(result.value, "softmax")
    if result is None or made is None or rw.producer(made.inputs[0], "dequantize") is None:
        return None
    operand = operand_of(made.inputs[0], rw)
    axis = made.attrs["axis"] % made.output.type.rank
    count = made.output.shape[axis]
    if operand is None or operand.integers.dtype is not DType.I8:
        return None
    if not isinstance(count, int) or not 1 <= count <= _MOST_ADDENDS:
        return None
    low, high = ((end - result.zero) * result.scale for end in (result.low, result.high))
    found = fitting_scale("softmax", max(low, 0.0), high)
    assert found is not None
    scale, zero = found
    shares = _softmax(operand, axis, count, found, rw)
    share = FixedPoint(shares, np.asarray(scale, np.float32), zero)
    reached = (result.dtype, result.low, result.high) == (DType.I8, *REACHED[DType.I8])
    if reached and share.alike(result.scale, result.zero):
        return shares
    return given(centred(share, rw), scale, result, rw)


def _softmax(x: FixedPoint, axis: int, count: int, result: Scale, rw: Rewriter) -> Value:
    scale, zero = result
    along = {"axes": (axis,), "keepdims": True}
    peak = wide(rw.emit("reduce_max", [x.integers], along), rw)
    below = rescaled(
        rw.emit("sub", [wide(x.integers, rw), peak]), 1 << FRACTION_BITS, DType.I16, rw
    )
    differences = np.arange(ENTRIES) - (ENTRIES - 1) // 2
    raised = interpolated(below, _ONE * np.exp(x.largest_scale * np.minimum(differences, 0)), rw)
    total = rw.emit("reduce_sum", [wide(raised, rw)], along)
    share = rescaled(_reciprocal(total, count, rw), 1.0, DType.I16, rw)
    product = rw.emit("mul", [wide(raised, rw), wide(share, rw)])
    return rescaled(product, 1 / (scale * _UNIT), DType.I8, rw, zero=zero)


def interpolated(index: Value, results: Array, rw: Rewriter) -> Value:
    """What lies at an index of 16 bits between results for every 128th, as i16."""
    values = tuple(np.clip(np.rint(results), LOWEST, HIGHEST).astype(int).tolist())
    found = rw.emit(INTERPOLATED_TABLE, [index], {"values": values})
    return rescaled(found, 2.0**-FRACTION_BITS, DType.I16, rw)


def wide(value: Value, rw: Rewriter) -> Value:
    """Integers as i32."""
    return rw.emit("cast", [value], {"dtype": DType.I32})


def looked_up(index: Value, results: Array, rw: Rewriter) -> Value:
    """The results for bytes from -128 on, of 15 bits and without a sign, as i32: two tables."""
    whole = np.clip(np.rint(results), 0, _ONE).astype(np.int32)
    halves = whole >> _HALF, (whole & (SIZE - 1)) - 128
    high, low = (wide(byte_table(index, half, rw), rw) for half in halves)
    low = rw.emit("add", [low, constant(np.int32(128))])
    parts = (high, float(SIZE)), (low, 1.0)
    return rw.emit("add", [rescaled(part, unit, DType.I32, rw) for part, unit in parts])


def byte_table(index: Value, results: Array, rw: Rewriter) -> Value:
    """A table in the order of unsigned bytes, as its operator has it."""
    bytes_ = np.clip(results, -128, 127).astype(np.int8)
    values = np.roll(bytes_, -128).view(np.uint8)
    attrs = {"values": tuple(values.tolist()), "dtype": DType.I8}
    return rw.emit(BYTE_TABLE, [index], attrs)


def _reciprocal(total: Value, count: int, rw: Rewriter) -> Value:
    """_UNIT / total, for a total from _ONE to count * _ONE."""
    step = _power(max(1, count - 1) * _ONE / _SPAN)
    places = _ONE + np.arange(ENTRIES) * (step << FRACTION_BITS)
    first, second = (float(place) for place in places[:2])
    error = (first + second) ** 2 / (4 * first * second) - 1  # half way between both
    if error < _MOST_ERROR:
        least = rw.emit("add", [total, constant(np.int32(LOWEST * step - _ONE))])
        index = rescaled(least, 1 / step, DType.I16, rw)
        half = interpolated(index, _UNIT / 2 / places, rw)
        share = rw.emit("mul", [wide(half, rw), constant(np.int32(2))])
    else:
        share, error = _coarse_reciprocal(total, count, rw)
    while error > _EXACT:
        share = _closer(share, total, rw)
        error *= error
    return share


def _coarse_reciprocal(total: Value, count: int, rw: Rewriter) -> tuple[Value, float]:
    """(the same by tables of bytes, its relative error, below 1 for any count)"""
    step = _power((count - 1) * _ONE / (SIZE - 1))
    index = rw.emit("add", [total, constant(np.int32(-_ONE))])
    index = rescaled(index, 1 / step, DType.I8, rw, zero=-128)
    places = np.arange(SIZE)
    least = np.clip(_ONE + (places - 0.5) * step, _ONE, count * _ONE)
    most = np.clip(_ONE + (places + 0.5) * step, _ONE, count * _ONE)
    results = 2.0 * _UNIT / (least + most)
    return looked_up(index, results, rw), float(np.max((most - least) / (most + least)))


def _power(least: float) -> int:
    """The least power of two that is not below a number."""
    return 1 << max(0, math.ceil(math.log2(least)))


def _closer(share: Value, total: Value, rw: Rewriter) -> Value:
    """r (2 - r total), with products of 30 bits: what is missing from one is 15 bits of them."""
    one = constant(np.int32(1 << 2 * _ONE_BITS))
    missing = rw.emit("sub", [one, rw.emit("mul", [share, total])])
    missing = rescaled(missing, 2.0**-_ONE_BITS, DType.I32, rw)
    added = rescaled(rw.emit("mul", [share, missing]), 2.0**-_ONE_BITS, DType.I32, rw)
    return rw.emit("add", [share, added])
