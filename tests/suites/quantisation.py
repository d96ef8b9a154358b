"""Cases of quantisation: every integer type, scales per tensor and per axis, roundings, ties."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tensmith.compiler.ir import DType, Value, constant
from tensmith.compiler.ir.ops.quantization import RANGES

from .case import EXACT, F16, F32, F64, HALF, I8, I32, U8, Case, CaseBuilder, N, unary

_TYPES = (DType.U8, DType.I8, DType.U16, DType.I16, DType.U4, DType.I4, DType.U2, DType.I2)


def _zero(dtype: DType, number: int) -> Value:
    return constant(np.array(number).astype(dtype.numpy))


def _bytes(c: CaseBuilder, value: Value) -> None:
    """Make a quantised value an output, of a type that can be returned."""
    c.output(c.op("cast", value, dtype=I32) if value.dtype.is_narrow else value)


def _quantize(dtype: DType) -> Case:
    middle = sum(RANGES[dtype]) // 2

    def build(c: CaseBuilder) -> None:
        x = c.input(6, 37, low=-40, high=40)
        _bytes(c, c.op("quantize", x, c.scalar(0.25), _zero(dtype, middle)))

    # halves are ties, and what is far outside saturates
    given = (np.arange(6 * 37).reshape(6, 37) - 111) * 0.125
    given[0, :6] = [np.nan, np.inf, -np.inf, 1e9, -1e9, -0.0]
    return Case(f"quantize_{dtype}", build, EXACT, given={"x0": given})


def _per_axis() -> Iterator[Case]:
    def quantized(c: CaseBuilder) -> None:
        x = c.input(N, 5, 33, low=-9, high=9)
        scale = c.weight(5, 1, low=1, high=2)
        c.output(c.op("quantize", x, scale, c.weight(5, 1, dtype=I8, low=-30, high=30)))

    yield Case("quantize_per_axis", quantized, EXACT, {"n": 3})

    def both(c: CaseBuilder) -> None:
        x = c.input(4, 35, low=-9, high=9)
        scale, zero = c.input(1, low=1, high=2), c.input(1, dtype=U8, low=100, high=160)
        c.output(c.op("dequantize", c.op("quantize", x, scale, zero), scale, zero))

    yield Case("quantize_dequantize_by_data", both, EXACT)

    def real(c: CaseBuilder) -> None:
        x = c.input(4, 6, 9, dtype=U8, low=0, high=256)
        zero = c.weight(6, 1, dtype=U8, low=0, high=256)
        c.output(c.op("dequantize", x, c.weight(6, 1), zero))

    yield Case("dequantize_per_axis", real, EXACT)


def _dequantize(dtype: DType, scale: DType = F32) -> Case:
    low, high = RANGES.get(dtype, (-(2**31), 2**31 - 1))

    def build(c: CaseBuilder) -> None:
        x = c.weight(5, 19, dtype=I32, low=low, high=high)
        stored = constant(x.data.astype(dtype.numpy)) if x.data is not None else x
        factor = c.input(dtype=scale, low=1, high=2)  # nothing is folded
        c.output(c.op("dequantize", stored, factor, _zero(dtype, (low + high) // 2)))

    tolerance = HALF if scale is F16 else EXACT
    return Case(f"dequantize_{dtype}_{scale}", build, tolerance)


def _requantize(rounding: str, dtype: DType, low: int, high: int) -> Case:
    def build(c: CaseBuilder) -> None:
        total = c.input(9, 41, dtype=I32, low=-(1 << 22), high=1 << 22)
        scale = c.weight(41, low=0.00001, high=0.0001)
        if rounding == "nearest":
            scale = c.input(41, low=0, high=1)
        _bytes(c, c.op("requantize", total, scale, _zero(dtype, 3), low=low, high=high,
                       rounding=rounding))  # fmt: skip

    return Case(f"requantize_{rounding}_{dtype}", build, EXACT)


def _ties(rounding: str) -> Case:
    """Every sum is halfway between two integers, or just beside."""

    def build(c: CaseBuilder) -> None:
        total = c.input(3, 64, dtype=I32, low=-200, high=200)
        c.output(c.op("requantize", total, constant(np.float32(0.25)), _zero(I8, -5),
                      low=-128, high=127, rounding=rounding))  # fmt: skip

    return Case(f"requantize_ties_{rounding}", build, EXACT)


def _large(rounding: str) -> Case:
    """Scales above one, and sums at the ends of their type."""

    def build(c: CaseBuilder) -> None:
        total = c.input(4, dtype=I32)
        c.output(c.op("requantize", total, constant(np.float32([1.75, 3.0, 1e-9, 1e-12])),
                      _zero(I8, 0), low=-128, high=127, rounding=rounding))  # fmt: skip

    given = {"x0": [60, -41, 2**31 - 1, -(2**31)]}
    return Case(f"requantize_ends_{rounding}", build, EXACT, given=given)


CASES: list[Case] = [
    *map(_quantize, _TYPES),
    *_per_axis(),
    *(_dequantize(dtype) for dtype in (*_TYPES, I32)),
    _dequantize(U8, F16),
    _dequantize(I8, F64),
    *(
        _requantize(rounding, dtype, low, high)
        for rounding in ("nearest", "single", "double")
        for dtype, low, high in ((U8, 0, 255), (I8, -100, 90), (DType.I4, -8, 7))
    ),
    *map(_ties, ("nearest", "single", "double")),
    *map(_large, ("nearest", "single", "double")),
    unary("rint", 6, 37, tolerance=EXACT, low=-40, high=40),
    unary("rint", 37, tolerance=EXACT, low=-40, high=40, dtype=F64),
    unary("rint", 37, tolerance=EXACT, low=-40, high=40, dtype=F16),
]
