"""Quantisation: floats as integers of few bits, by a scale and a zero point.

Scales and zero points broadcast to what they belong to: one for a tensor, or one for every step of
an axis. Semantics: ONNX QuantizeLinear and DequantizeLinear, opset 25; `requantize` as ONNX Runtime
computes it, or as TFLite and TOSA do (`fixed_point`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Value
from ..types import DType, TensorType, broadcast_shapes
from .common import FLOATS, INTEGERS, need_dtype, same_dtype
from .fixed_point import ROUNDINGS, scaled
from .registry import REQUIRED, Array, OpDef, Trait, register

NEAREST = "nearest"  # in floating point, ties to even
RANGES = {
    DType.U8: (0, 255),
    DType.I8: (-128, 127),
    DType.U16: (0, 65535),
    DType.I16: (-32768, 32767),
    DType.U4: (0, 15),
    DType.I4: (-8, 7),
    DType.U2: (0, 3),
    DType.I2: (-2, 1),
}
REACHED = {**RANGES, DType.I32: (-(1 << 31), (1 << 31) - 1)}  # by what is requantised
_STORED = frozenset(RANGES) | INTEGERS


def _whole(array: Array) -> Array:
    """Integers, also of those types that are stored only, as i64."""
    return array.astype(np.int32).astype(np.int64) if array.dtype.itemsize == 1 else (
        array.astype(np.int64))  # fmt: skip


def _infer_quantize(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, scale, zero = inputs
    need_dtype(x, FLOATS, "what is quantised")
    need_dtype(scale, FLOATS, "the scale")
    need_dtype(zero, frozenset(RANGES), "the zero point")
    return [TensorType(zero.dtype, broadcast_shapes(x.shape, scale.shape, zero.shape))]


def _quantize(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """round(x / scale) + zero, saturated; a NaN gives the least number."""
    x, scale, zero = args
    wide = np.float64 if x.dtype == np.float64 else np.float32
    low, high = RANGES[DType.of(zero.dtype)]
    with np.errstate(all="ignore"):
        steps = np.rint(x.astype(wide) / scale.astype(wide))
        offset = _whole(zero)
        inside = np.where(steps > low - offset, steps, (low - offset).astype(wide))
        inside = np.minimum(inside, (high - offset).astype(wide))
    return [(inside.astype(np.int64) + offset).astype(zero.dtype)]


def _infer_dequantize(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, scale, zero = inputs
    need_dtype(x, _STORED, "what is dequantised")
    need_dtype(scale, FLOATS, "the scale")
    same_dtype([x, zero])
    return [TensorType(scale.dtype, broadcast_shapes(x.shape, scale.shape, zero.shape))]


def _dequantize(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """(x - zero) * scale: the difference as i32, rounded to the scale's type."""
    x, scale, zero = args
    difference = (_whole(x) - _whole(zero)).astype(np.int32)
    wide = scale.astype(np.float32) if scale.dtype.itemsize == 2 else scale
    with np.errstate(all="ignore"):
        real = difference.astype(scale.dtype).astype(wide.dtype) * wide
    return [np.asarray(real.astype(scale.dtype))]


def _infer_requantize(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    total, scale, zero, *bias = inputs
    need_dtype(total, frozenset({DType.I32}), "the sum")
    for value in (scale, *bias):
        need_dtype(value, frozenset({DType.F32}), "the scale, and the bias,")
    need_dtype(zero, frozenset(REACHED), "the zero point")
    low, high = REACHED[zero.dtype]
    if not low <= attrs["low"] <= attrs["high"] <= high:
        raise ValueError(f"the range {attrs['low']}..{attrs['high']} is none of {zero.dtype}")
    if attrs["rounding"] not in (NEAREST, *ROUNDINGS):
        raise ValueError(f"rounding '{attrs['rounding']}' is none of {(NEAREST, *ROUNDINGS)}")
    if zero.dtype is DType.I32 and attrs["rounding"] == NEAREST:
        raise ValueError(f"sums are scaled to sums in integers alone: rounding is no '{NEAREST}'")
    if bias and attrs["rounding"] != NEAREST:
        raise ValueError(f"rounding '{attrs['rounding']}' takes no bias")
    return [TensorType(zero.dtype, broadcast_shapes(*(value.shape for value in inputs)))]


def _requantize(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """The sum times the scale (plus a bias, rounded once), rounded to an integer, plus the zero
    point, within [low, high]."""
    total, scale, zero, *bias = args
    offset = _whole(zero)
    low, high = attrs["low"] - offset, attrs["high"] - offset
    if attrs["rounding"] == NEAREST:
        with np.errstate(all="ignore"):
            real = total.astype(np.float32) * scale
            if bias:  # in f64 the product is exact
                wide = total.astype(np.float32).astype(np.float64) * scale + bias[0]
                real = wide.astype(np.float32)
        real = np.minimum(np.where(real > low, real, low.astype(np.float32)), high)
        steps = np.rint(real).astype(np.int64)
    else:
        steps = np.clip(scaled(total, scale, attrs["rounding"]), low, high)
    return [(steps + offset).astype(zero.dtype)]


_TRAITS = Trait.POINTWISE | Trait.QUANTISATION
register(OpDef("quantize", _infer_quantize, _quantize, _TRAITS | Trait.DISCRETE, {}, (3, 3)))
register(OpDef("dequantize", _infer_dequantize, _dequantize, _TRAITS, {}, (3, 3)))
register(
    OpDef(
        "requantize",
        _infer_requantize,
        _requantize,
        _TRAITS | Trait.DISCRETE,
        {"low": REQUIRED, "high": REQUIRED, "rounding": NEAREST},
        (3, 4),
    )
)
