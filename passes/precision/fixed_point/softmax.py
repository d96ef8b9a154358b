"""Rule: softmax in integers, by tables of bytes.

With d = x - max(x), e = exp(d) is looked up for each of the 256 differences that bytes have, in two
halves of 8 bits. A first r = 1 / sum(e) is looked up with the sum's highest bits; steps of Newton,
r (2 - r sum), make it as exact as 15 bits are; e r is the result.
"""

from __future__ import annotations

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.ops.byte_table import BYTE_TABLE, SIZE
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ....compiler.ir.types import DType
from .operands import Array, FixedPoint, operand_of, rescaled

RULES = Rules()
RESULT_BITS = 8  # behind the point, with the zero point -128
_ONE_BITS = 15
_ONE = (1 << _ONE_BITS) - 1  # that exp(0) is
_HALF = 8  # bits that a table gives
_PEAK = 127  # the byte of the difference 0
_MOST_ADDENDS = 1 << 15
_FEW = 32  # addends whose reciprocal has 3 bits at least in one byte
_EXACT = 2.0**-12  # relative error of the reciprocal that is left to rounding


@RULES.on("softmax")
def in_integers(node: Node, rw: Rewriter) -> Replacement:
    """softmax(dequantize(x)) -> dequantize(the same of bytes)"""
    made = rw.producer(node.inputs[0], "dequantize")
    operand = operand_of(node.inputs[0], rw) if made is not None else None
    axis = node.attrs["axis"] % node.output.type.rank
    count = node.output.shape[axis]
    if operand is None or operand.integers.dtype is not DType.I8:
        return None
    if not isinstance(count, int) or not 1 <= count <= _MOST_ADDENDS:
        return None
    made_bytes = _softmax(operand, axis, count, rw)
    scale = constant(np.float32(2.0**-RESULT_BITS))
    return rw.emit("dequantize", [made_bytes, scale, constant(np.int8(-128))])


def _softmax(x: FixedPoint, axis: int, count: int, rw: Rewriter) -> Value:
    along = {"axes": (axis,), "keepdims": True}
    peak = wide(rw.emit("reduce_max", [x.integers], along), rw)
    below = rescaled(rw.emit("sub", [wide(x.integers, rw), peak]), 1.0, DType.I8, rw, zero=_PEAK)
    differences = np.arange(-128, 128) - _PEAK
    raised = looked_up(below, _ONE * np.exp(x.largest_scale * np.minimum(differences, 0)), rw)
    total = rw.emit("reduce_sum", [raised], along)
    product = rw.emit("mul", [raised, _reciprocal(total, count, rw)])
    return rescaled(product, 2.0**RESULT_BITS / (_ONE * _ONE), DType.I8, rw, zero=-128)


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
    values = np.roll(results, -128).astype(np.int8).view(np.uint8)
    attrs = {"values": tuple(values.tolist()), "dtype": DType.I8}
    return rw.emit(BYTE_TABLE, [index], attrs)


def _reciprocal(total: Value, count: int, rw: Rewriter) -> Value:
    """_ONE * _ONE / total, for a total from _ONE to count * _ONE."""
    step = count * _ONE / (SIZE - 1)
    index = rescaled(total, 1 / step, DType.I8, rw, zero=-128)
    places = np.arange(SIZE)
    least = np.clip((places - 0.5) * step, _ONE, count * _ONE)
    most = np.clip((places + 0.5) * step, _ONE, count * _ONE)
    results = 2.0 * _ONE * _ONE / (least + most)
    error = float(np.max((most - least) / (most + least)))
    if count > _FEW:
        share = looked_up(index, results, rw)
    else:  # steps of Newton make up for what one table has less
        high = wide(byte_table(index, np.rint(results / SIZE), rw), rw)
        share = rw.emit("mul", [high, constant(np.int32(SIZE))])
        error += count / (_ONE / SIZE)
    while error > _EXACT:
        share = _closer(share, total, rw)
        error *= error
    return share


def _closer(share: Value, total: Value, rw: Rewriter) -> Value:
    """r (2 - r total), with products of 30 bits: what is missing from one is 15 bits of them."""
    one = constant(np.int32(1 << 2 * _ONE_BITS))
    missing = rw.emit("sub", [one, rw.emit("mul", [share, total])])
    missing = rescaled(missing, 2.0**-_ONE_BITS, DType.I32, rw)
    added = rescaled(rw.emit("mul", [share, missing]), 2.0**-_ONE_BITS, DType.I32, rw)
    return rw.emit("add", [share, added])
