"""Cases of quantisation: every integer type, scales per tensor and per axis, roundings, ties."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tensmith.compiler.ir import Dim, DType, Value, constant
from tensmith.compiler.ir.ops.quantization import RANGES

from .case import (
    EXACT,
    F16,
    F32,
    F64,
    HALF,
    I8,
    I32,
    SUM_OF_BYTES,
    U8,
    Case,
    CaseBuilder,
    N,
    S,
    unary,
)

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


def _with_bias() -> Case:
    """Rounded once with the bias, by channel."""

    def build(c: CaseBuilder) -> None:
        total = c.input(9, 41, dtype=I32, low=-(1 << 22), high=1 << 22)
        scale, bias = c.weight(41, low=0.00001, high=0.0001), c.weight(41, low=-9, high=9)
        zero = c.weight(41, dtype=U8, low=0, high=256)
        c.output(c.op("requantize", total, scale, zero, bias, low=3, high=250))

    return Case("requantize_bias", build, EXACT)


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


def _matmul(name: str, a: tuple[Dim, ...], b: tuple[int, ...], **more: Any) -> Case:
    """Products of bytes with constant ones, added up in i32."""
    left, right = more.pop("left", U8), more.pop("right", I8)
    ends = {U8: (0, 256), I8: (-128, 128)}

    def build(c: CaseBuilder) -> None:
        x = c.input(*a, dtype=left, low=ends[left][0], high=ends[left][1])
        w = c.weight(*b, dtype=right, low=ends[right][0], high=ends[right][1])
        total = c.op("matmul", x, w, accumulate=I32)
        scale = c.weight(b[-1], low=0.0001, high=0.0002)
        c.output(c.op("requantize", total, scale, _zero(U8, 128), low=0, high=255), total)

    return Case(f"integer_matmul_{name}", build, EXACT, more.pop("sizes", {}))


def _conv(name: str, x: tuple[Dim, ...], w: tuple[int, ...], **attrs: Any) -> Case:
    """Bytes, surrounded with a number, convolved with constant ones; channels first."""
    rank = len(x) - 2
    ends = {U8: (0, 256), I8: (-128, 128), F32: (-1, 1)}
    right, sizes = attrs.pop("right", I8), attrs.pop("sizes", {})
    window = {"strides": (1,) * rank, "pads": (1,) * (2 * rank), "dilations": (1,) * rank,
              "accumulate": I32, "pad_value": 77, **attrs}  # fmt: skip

    def build(c: CaseBuilder) -> None:
        images = c.input(*x, low=-2, high=2)
        data = c.op("quantize", images, c.scalar(1 / 64), _zero(U8, 120))
        weights = c.weight(*w, dtype=right, low=ends[right][0], high=ends[right][1])
        total = c.op("conv", data, weights, **window)
        if window["accumulate"] is F32:
            c.output(total)
            return
        bias = c.weight(w[0], *(1,) * rank, dtype=I32, low=-5000, high=5000)
        moved = c.op("add", total, bias)
        scale = c.weight(w[0], *(1,) * rank, low=0.0001, high=0.0004)
        c.output(c.op("requantize", moved, scale, _zero(U8, 100), low=100, high=255))

    tolerance = SUM_OF_BYTES if window["accumulate"] is F32 else EXACT
    return Case(f"integer_conv_{name}", build, tolerance, sizes)


def _products() -> Iterator[Case]:
    yield _matmul("groups", (13, 64), (64, 48))
    yield _matmul("odd_columns", (7, 32), (32, 35))
    yield _matmul("odd_depth", (7, 33), (33, 35))
    yield _matmul("one_row", (1, 128), (128, 96))
    yield _matmul("one_column", (9, 64), (64, 1))
    yield _matmul("batch", (2, 3, 5, 16), (16, 24))
    yield _matmul("rows_of_data", (N, 40), (40, 33), sizes={"n": 11})
    yield _matmul("signed", (6, 32), (32, 32), left=I8)
    yield _matmul("unsigned", (6, 32), (32, 32), right=U8)
    yield _matmul("deep", (6, 4096), (4096, 40))
    yield _matmul("matrices", (2, 5, 16), (2, 16, 20))
    yield _matmul("tall", (77, 192), (192, 80))
    yield _matmul("few_rows", (7, 128), (128, 64))
    yield _matmul("short_groups", (64, 144), (144, 32))
    yield _matmul("tall_of_data", (N, 128), (128, 96), sizes={"n": 71})
    yield _conv("wide", (1, 32, 9, 28), (48, 32, 3, 3))
    yield _conv("wide_strided", (2, 64, 16, 33), (40, 64, 3, 3), strides=(2, 2))
    yield _conv("three", (1, 8, 9, 11), (24, 8, 3, 3))
    yield _conv("strided", (2, 16, 9, 11), (19, 16, 3, 3), strides=(2, 2))
    yield _conv("dilated", (1, 8, 9, 11), (16, 8, 3, 3), dilations=(2, 2), pads=(2, 2, 2, 2))
    yield _conv("pointwise", (1, 32, 7, 7), (40, 32, 1, 1), pads=(0, 0, 0, 0))
    yield _conv("grouped", (1, 32, 7, 7), (32, 8, 3, 3), groups=4)
    yield _conv("depthwise", (1, 24, 7, 9), (24, 1, 3, 3), groups=24)
    yield _conv("few_channels", (1, 3, 12, 12), (16, 3, 3, 3), strides=(2, 2))
    yield _conv("line", (1, 8, 17), (16, 8, 3))
    yield _conv("volume", (1, 4, 5, 6, 7), (8, 4, 3, 3, 3))
    yield _conv("size_of_data", (N, 8, S, 10), (16, 8, 3, 3), sizes={"n": 2, "s": 6})
    yield _conv("wide_border", (1, 8, 6, 6), (16, 8, 5, 5), pads=(4, 0, 1, 3))
    yield _conv("depthwise_in_floats", (1, 24, 7, 9), (24, 1, 3, 3), groups=24, right=F32,
                accumulate=F32)  # fmt: skip


def _integer_dot(op: str) -> Case:
    def build(c: CaseBuilder) -> None:
        ends = {"low": -(2**31), "high": 2**31 - 1}
        c.output(c.op(op, c.input(5, 37, dtype=I32, **ends), c.input(37, dtype=I32, **ends)))

    return Case(op, build, EXACT)


def _quotient(scale: float) -> Case:
    """Also quotients halfway between two integers, and next to these."""

    def build(c: CaseBuilder) -> None:
        s = np.float32(scale)
        c.output(c.op("quotient", c.input(64, 67), constant(s), constant(np.float32(1) / s)))

    rng = np.random.default_rng(11)
    halves = (rng.integers(-300, 300, (64, 67)) + 0.5).astype(np.float32) * np.float32(scale)
    given = np.nextafter(halves, np.inf, where=rng.random((64, 67)) < 0.3, out=halves)
    given[:, 40:] *= rng.uniform(0, 2, (64, 27)).astype(np.float32)
    return Case(f"quotient_{scale}", build, EXACT, given={"x0": given})


def _bound(op: str, dtype: DType) -> Case:
    def build(c: CaseBuilder) -> None:
        c.output(c.op(op, c.input(5, 37, dtype=dtype, low=-9, high=9), c.scalar(2, dtype)))

    given = np.linspace(-9, 9, 5 * 37).reshape(5, 37)
    if dtype.is_float:
        given[0, :3] = [np.nan, np.inf, -np.inf]
    return Case(f"{op}_{dtype}", build, EXACT, given={"x0": given})


def _groups() -> Iterator[Case]:
    """Elements put together, along either axis, and products of them."""

    def packed(c: CaseBuilder) -> None:
        x = c.input(3, 8, 20, dtype=I8, low=-128, high=128)
        turned = c.op("transpose", x, perm=(0, 2, 1))
        for value in (x, turned):
            for axis in (-1, -2):
                c.output(c.op("pack_groups", value, axis=axis))
        c.output(c.op("pack_groups", c.input(6, N, dtype=DType.I16, low=-999, high=999), axis=-2))

    yield Case("pack_groups", packed, EXACT, {"n": 5})

    def product(c: CaseBuilder) -> None:
        left = c.input(2, N, 24, dtype=U8, low=0, high=256)
        right = c.input(2, 24, 19, dtype=I8, low=-128, high=128)
        groups = [c.op("pack_groups", left, axis=-1), c.op("pack_groups", right, axis=-2)]
        c.output(c.op("matmul", *groups, product="dot4"))

    yield Case("matmul_groups", product, EXACT, {"n": 7})

    def far(c: CaseBuilder) -> None:
        """Rows of the left operand that lie apart in memory, and begin between groups."""
        x = c.input(5, 30, dtype=U8, low=0, high=256)
        right = c.op("pack_groups", c.input(24, 16, dtype=I8, low=-128, high=128), axis=-2)
        for start in (3, 4):
            part = c.op("slice", x, starts=(0, start), stops=(5, start + 24), steps=(1, 1))
            groups = c.op("pack_groups", part, axis=-1)
            c.output(c.op("matmul", groups, right, product="dot4"))

    yield Case("matmul_groups_of_parts", far, EXACT)


def _byte_table() -> Case:
    def build(c: CaseBuilder) -> None:
        values = tuple(np.random.default_rng(2).permutation(256).tolist())
        for dtype, result in ((U8, I8), (I8, U8)):
            x = c.input(N, 90, dtype=dtype, low=0 if dtype is U8 else -128, high=128)
            table = c.op("byte_table", x, values=values, dtype=result)
            c.output(table, c.op("cast", table, dtype=F32))

    return Case("byte_table", build, EXACT, {"n": 3})


def _interpolated_table() -> Case:
    def build(c: CaseBuilder) -> None:
        steps = np.random.default_rng(3).integers(-300, 301, 512)
        values = tuple(np.append(0, np.cumsum(steps).clip(-32768, 32767)).tolist())
        x = c.input(N, 90, dtype=DType.I16, low=-32768, high=32768)
        c.output(c.op("interpolated_table", x, values=values))

    return Case("interpolated_table", build, EXACT, {"n": 3})


def _scaled_to_sums() -> list[Case]:
    """Sums by another scale, as sums."""

    def case(rounding: str) -> Case:
        def build(c: CaseBuilder) -> None:
            x = c.input(N, 70, dtype=I32, low=-(1 << 20), high=1 << 20)
            limits = {"low": -(1 << 31), "high": (1 << 31) - 1, "rounding": rounding}
            for scale in (0.3, 37.5, 512.0):
                factor, zero = constant(np.float32(scale)), constant(np.int32(0))
                c.output(c.op("requantize", x, factor, zero, **limits))

        return Case(f"requantize_to_sums_{rounding}", build, EXACT, {"n": 2})

    return [case("single"), case("double")]


CASES: list[Case] = [
    _interpolated_table(),
    *_scaled_to_sums(),
    _with_bias(),
    _byte_table(),
    *_groups(),
    *map(_integer_dot, ("dot4", "sdot4", "wdot2")),
    *map(_quotient, (0.0234, 1.9999999, 3e-5, 0.25, 77.7, 0.1)),
    *(_bound(op, dtype) for op in ("at_least", "at_most") for dtype in (F32, F64, I32, I8)),
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
    *_products(),
    unary("rint", 6, 37, tolerance=EXACT, low=-40, high=40),
    unary("rint", 37, tolerance=EXACT, low=-40, high=40, dtype=F64),
    unary("rint", 37, tolerance=EXACT, low=-40, high=40, dtype=F16),
]
