"""What rules read and make: tensors of integers that stand for real numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.ops.quantization import REACHED
from ....compiler.ir.ops.registry import lookup
from ....compiler.ir.rewrite import Rewriter, scalar
from ....compiler.ir.types import DType
from ..parameters import one_scale
from ..requantising import clipped_range, float_of_sum

Array = np.ndarray[Any, Any]
SINGLE = "single"
WIDE_BITS = 20  # before the point, of what is added up
MOST = 127  # of constants as signed bytes


@dataclass(frozen=True)
class FixedPoint:
    """scale * (integers - zero). scale: one number, or an array that broadcasts to the integers,
    which are i8, i16 or i32."""

    integers: Value
    scale: Array
    zero: int

    def alike(self, scale: float, zero: int) -> bool:
        """Whether another tensor of the same numbers has the same integers."""
        return self.scale.size == 1 and float(self.scale.reshape(-1)[0]) == scale and (
            self.zero == zero
        )  # fmt: skip

    @property
    def largest_scale(self) -> float:
        """The scale, or the largest of the channels'."""
        return float(self.scale.max())


@dataclass(frozen=True)
class QuantisedResult:
    """What a `quantize` makes of a value: by which scale and zero point, within which range."""

    value: Value
    scale: float
    zero: int
    dtype: DType
    low: int
    high: int


def result_of(node: Node, rw: Rewriter) -> QuantisedResult | None:
    """What a `quantize` by one constant scale makes, clips before it taken in; None for others."""
    if not one_scale(node) or node.output.dtype not in (DType.I8, DType.I16):
        return None
    scale, zero = scalar(node.inputs[1]), scalar(node.inputs[2])
    if scale is None or zero is None or not 0 < scale < np.inf:
        return None
    step = np.asarray(scale, np.float32)
    with np.errstate(all="ignore"):
        clipped = clipped_range(node, step, np.asarray(zero), rw)
    if clipped is None or clipped[0].shape != node.output.shape:
        return None
    value, low, high = clipped
    return QuantisedResult(value, float(scale), int(zero), node.output.dtype, low, high)


def operand_of(value: Value, rw: Rewriter) -> FixedPoint | None:
    """The integers that a value of floats is made of, or could be where it is constant."""
    if value.data is not None:
        return _constant_operand(value)
    made = rw.producer(value, "dequantize")
    if made is not None:
        scale, zero = scalar(made.inputs[1]), scalar(made.inputs[2])
        bytes_ = made.inputs[0].dtype in (DType.I8, DType.I16)
        if not bytes_ or not one_scale(made) or scale is None or zero is None or scale <= 0:
            return None
        return FixedPoint(made.inputs[0], np.asarray(scale, np.float32), int(zero))
    return sum_operand(value, rw)


def sum_operand(value: Value, rw: Rewriter) -> FixedPoint | None:
    """A sum of products, with a constant bias, that floats are made of."""
    bias: Array | None = None
    added = rw.producer(value, "add")
    if added is not None and added.inputs[1].data is not None:
        bias, value = added.inputs[1].data, added.inputs[0]
    product = rw.producer(value, "mul")
    sums = float_of_sum(product, rw) if product is not None else None
    if sums is None or sums[1].data is None or not (sums[1].data > 0).all():
        return None
    total, scale = sums
    assert scale.data is not None
    if bias is not None:
        moved = integer_bias(bias, scale.data)
        if moved is None:
            return None
        total = rw.emit("add", [total, constant(moved)])
    return FixedPoint(total, scale.data.astype(np.float32), 0)


def integer_bias(bias: Array, scale: Array) -> Array | None:
    """A bias of floats in steps of the sums that it is added to; None where i32 is too small."""
    with np.errstate(all="ignore"):
        steps = np.rint(bias.astype(np.float64) / scale.astype(np.float64))
    low, high = REACHED[DType.I32]
    if not np.isfinite(steps).all() or steps.min() < low or steps.max() > high:
        return None
    return steps.astype(np.int32)


def _constant_operand(value: Value) -> FixedPoint | None:
    data = value.data
    if data is None or not value.dtype.is_float or not np.isfinite(data).all():
        return None
    peak = float(np.abs(data).max(initial=0.0))
    scale = np.asarray(peak / MOST if peak > 0 else 1.0, np.float32)
    steps = np.clip(np.rint(data / scale), -MOST, MOST).astype(np.int8)
    return FixedPoint(constant(steps, value.name), scale, 0)


def centred(operand: FixedPoint, rw: Rewriter) -> Value:
    """The integers less their zero point, as i32."""
    wide = operand.integers
    if wide.data is not None:
        return constant(wide.data.astype(np.int32) - np.int32(operand.zero), wide.name)
    if wide.dtype is not DType.I32:
        wide = rw.emit("cast", [wide], {"dtype": DType.I32})
    return rw.emit("add", [wide, constant(np.int32(-operand.zero))]) if operand.zero else wide


def rescaled(
    total: Value,
    scale: Array | float,
    dtype: DType,
    rw: Rewriter,
    *,
    zero: int = 0,
    low: int | None = None,
    high: int | None = None,
) -> Value:
    """i32 times a scale, rounded once, plus a zero point, within a range: that of the type, unless
    it is given."""
    least, most = REACHED[dtype]
    attrs = {
        "low": least if low is None else low,
        "high": most if high is None else high,
        "rounding": SINGLE,
    }
    operands = [total, constant(np.asarray(scale, np.float32)), constant(dtype.numpy.type(zero))]
    if total.is_constant and dtype is not DType.I32:  # of i32, processors read the bytes before
        return _evaluated("requantize", operands, attrs)
    return rw.emit("requantize", operands, attrs)


def _evaluated(op: str, operands: list[Value], attrs: dict[str, Any]) -> Value:
    """The result of an operator on constants."""
    evaluate = lookup(op).evaluate
    assert evaluate is not None
    (result,) = evaluate([value.data for value in operands if value.data is not None], attrs)
    return constant(result, operands[0].name)


def given(total: Value, scale: Array | float, result: QuantisedResult, rw: Rewriter) -> Value:
    """A sum, by the scale of its steps, as a result."""
    factor = np.asarray(scale, np.float64) / result.scale
    return rescaled(
        total, factor, result.dtype, rw, zero=result.zero, low=result.low, high=result.high
    )
