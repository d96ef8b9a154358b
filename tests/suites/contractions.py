"""Cases of matmul, convolutions, poolings and attention."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensmith.compiler.ir.dims import Dim

from .case import (
    BF16,
    BRAIN,
    CLOSE,
    DOUBLE,
    EXACT,
    F16,
    F32,
    F64,
    HALF,
    I32,
    I64,
    SUM,
    U8,
    Case,
    CaseBuilder,
    DType,
    N,
    S,
    Tolerance,
    unary,
)


def _matmul(
    name: str,
    a: tuple[Dim, ...],
    b: tuple[Dim, ...],
    *,
    constant: bool = False,
    dtype: DType = F32,
    tolerance: Tolerance = SUM,
    sizes: dict[str, int] | None = None,
) -> Case:
    def build(c: CaseBuilder) -> None:
        x = c.input(*a, dtype=dtype)
        other = (c.weight if constant else c.input)(*b, dtype=dtype, low=-3, high=3)  # type: ignore[operator]
        c.output(c.op("matmul", x, other))

    return Case(f"matmul_{name}", build, tolerance, sizes or {})


def _matmuls() -> Iterator[Case]:
    yield _matmul("square", (16, 16), (16, 16))
    yield _matmul("odd", (7, 13), (13, 11))
    yield _matmul("one_row", (1, 33), (33, 65), constant=True)
    yield _matmul("one_column", (9, 33), (33, 1))
    yield _matmul("one_term", (9, 1), (1, 17))
    yield _matmul("odd_weight", (5, 67), (67, 35), constant=True)
    yield _matmul("wide_weight", (6, 32), (32, 129), constant=True)
    yield _matmul("batch", (2, 3, 5, 7), (2, 3, 7, 9))
    yield _matmul("batch_broadcast", (2, 1, 5, 7), (3, 7, 4))
    yield _matmul("batch_shared", (4, 5, 7), (7, 6), constant=True)
    yield _matmul("symbolic_rows", (N, 12), (12, 10), constant=True, sizes={"n": 7})
    yield _matmul("symbolic_one_row", (N, 12), (12, 10), constant=True, sizes={"n": 1})
    yield _matmul("symbolic_batch", (N, S, 8), (N, 8, S), sizes={"n": 2, "s": 5})
    yield _matmul("symbolic_depth", (3, S), (S, 4), sizes={"s": 19})
    yield _matmul("f64", (5, 9), (9, 6), dtype=F64, tolerance=DOUBLE)
    yield _matmul("f16", (5, 9), (9, 6), dtype=F16, tolerance=HALF)
    yield _matmul("bf16", (5, 9), (9, 6), dtype=BF16, tolerance=BRAIN)
    yield _matmul("i32", (5, 9), (9, 6), dtype=I32, tolerance=EXACT)
    yield _matmul("i64_batch", (2, 3, 4), (2, 4, 5), dtype=I64, tolerance=EXACT)
    yield _matmul("empty_depth", (3, 0), (0, 4), tolerance=EXACT)


def window(spatial: int, **more: Any) -> dict[str, Any]:
    """Window attributes with their usual values where `more` has no others."""
    ones = (1,) * spatial
    return {"strides": ones, "dilations": ones, "pads": (0, 0) * spatial, **more}


def _conv(
    name: str,
    x: tuple[Dim, ...],
    w: tuple[int, ...],
    *,
    op: str = "conv",
    bias: int = 0,
    sizes: dict[str, int] | None = None,
    dtype: DType = F32,
    constant: bool = True,
    tolerance: Tolerance = SUM,
    **attrs: Any,
) -> Case:
    def build(c: CaseBuilder) -> None:
        more = [c.weight(bias, dtype=dtype)] if bias else []
        make = c.weight if constant else c.input
        weight = make(*w, dtype=dtype, low=-1, high=1)
        data = c.input(*x, dtype=dtype)
        c.output(c.op(op, data, weight, *more, **window(len(x) - 2, **attrs)))

    return Case(f"{op}_{name}", build, tolerance, sizes or {})


def _convs() -> Iterator[Case]:
    yield _conv("1x1", (2, 5, 4, 7), (9, 5, 1, 1))
    yield _conv("1x1_stride", (1, 8, 7, 7), (16, 8, 1, 1), strides=(2, 2))
    yield _conv("3x3", (1, 3, 8, 9), (4, 3, 3, 3))
    yield _conv("3x3_pad_bias", (2, 4, 6, 7), (17, 4, 3, 3), bias=17, pads=(1, 1, 1, 1))
    yield _conv("3x3_stride", (1, 5, 9, 8), (6, 5, 3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
    yield _conv("7x7_stem", (1, 3, 23, 21), (8, 3, 7, 7), strides=(2, 2), pads=(3, 3, 3, 3))
    yield _conv("pads_uneven", (1, 2, 5, 6), (3, 2, 3, 2), pads=(0, 1, 2, 3), bias=3)
    yield _conv("dilated", (1, 3, 11, 12), (4, 3, 3, 3), dilations=(2, 3), pads=(2, 3, 2, 3))
    yield _conv("stride_dilated", (1, 2, 13, 13), (3, 2, 3, 3), strides=(3, 2), dilations=(2, 2))
    yield _conv("grouped", (2, 6, 5, 5), (9, 2, 3, 3), groups=3, pads=(1, 1, 1, 1), bias=9)
    yield _conv("depthwise", (1, 7, 8, 9), (7, 1, 3, 3), groups=7, pads=(1, 1, 1, 1), bias=7)
    yield _conv(
        "depthwise_stride",
        (1, 16, 9, 9),
        (16, 1, 5, 5),
        groups=16,
        strides=(2, 2),
        pads=(2, 2, 2, 2),
    )
    yield _conv("depthwise_multiplier", (1, 3, 6, 6), (6, 1, 3, 3), groups=3)
    yield _conv("whole_kernel", (2, 3, 4, 5), (6, 3, 4, 5))
    yield _conv("1d", (2, 4, 19), (5, 4, 3), pads=(1, 1), bias=5)
    yield _conv("1d_dilated", (1, 3, 20), (4, 3, 5), dilations=(3,), pads=(6, 6))
    yield _conv("1d_stride", (1, 1, 50), (8, 1, 10), strides=(5,))
    yield _conv("3d", (1, 2, 5, 6, 4), (3, 2, 3, 3, 2), pads=(1, 1, 0, 1, 1, 0))
    yield _conv("symbolic_batch", (N, 3, 6, 6), (5, 3, 3, 3), pads=(1, 1, 1, 1), sizes={"n": 3})
    yield _conv(
        "symbolic_size",
        (1, 3, S, S),
        (5, 3, 3, 3),
        strides=(2, 2),
        pads=(1, 1, 1, 1),
        sizes={"s": 9},
    )
    yield _conv("few_channels", (2, 4, 9, 40), (3, 4, 3, 3), bias=3, pads=(1, 2, 0, 1))
    yield _conv("few_dilated", (1, 3, 11, 45), (5, 3, 3, 3), dilations=(2, 3), strides=(2, 1))
    yield _conv("few_wide", (1, 2, 3, 200), (1, 2, 3, 5), pads=(1, 2, 1, 2))
    yield _conv("few_long", (2, 3, N), (4, 3, 5), pads=(2, 2), bias=4, sizes={"n": 77})
    yield _conv("variable_weight", (1, 3, 6, 6), (4, 3, 3, 3), constant=False)
    yield _conv("nhwc", (2, 6, 7, 5), (3, 3, 5, 9), layout="NHWC", pads=(1, 1, 1, 1), bias=9)
    yield _conv("nhwc_stride", (1, 9, 9, 3), (3, 3, 3, 16), layout="NHWC", strides=(2, 2))
    yield _conv(
        "nhwc_depthwise", (1, 6, 6, 8), (3, 3, 1, 8), layout="NHWC", groups=8, pads=(1, 1, 1, 1)
    )
    yield _conv("f64", (1, 3, 6, 6), (4, 3, 3, 3), dtype=F64, tolerance=DOUBLE)
    yield _conv("i32", (1, 3, 6, 6), (4, 3, 3, 3), dtype=I32, tolerance=EXACT)


def _transposed_convs() -> Iterator[Case]:
    none = {"op": "conv_transpose", "output_padding": (0, 0)}
    yield _conv("3x3", (1, 3, 4, 5), (3, 4, 3, 3), **none)
    yield _conv("2x2_stride", (2, 4, 5, 3), (4, 6, 2, 2), strides=(2, 2), bias=6, **none)
    yield _conv("pads", (1, 3, 5, 5), (3, 2, 3, 3), strides=(2, 2), pads=(1, 0, 1, 1), **none)
    yield _conv(
        "output_padding",
        (1, 2, 4, 4),
        (2, 3, 3, 3),
        strides=(2, 2),
        pads=(1, 1, 1, 1),
        op="conv_transpose",
        output_padding=(1, 1),
    )
    yield _conv("grouped", (1, 4, 4, 4), (4, 3, 3, 3), groups=2, **none)
    yield _conv("dilated", (1, 2, 4, 4), (2, 3, 3, 3), dilations=(2, 2), **none)
    yield _conv("1d", (1, 3, 7), (3, 2, 4), strides=(3,), op="conv_transpose", output_padding=(0,))
    yield _conv("nhwc", (1, 4, 4, 3), (2, 2, 3, 5), strides=(2, 2), layout="NHWC", **none)
    yield _conv(
        "symbolic", (N, 2, S, 3), (2, 2, 2, 2), strides=(2, 2), sizes={"n": 2, "s": 4}, **none
    )


def _least() -> Iterator[Case]:
    """Poolings of the least integers: what borders hold is no more."""
    same = window(2, kernel=(2, 2), strides=(2, 2), pads=(1, 1, 1, 1))
    for dtype, least in ((I32, -(1 << 31)), (U8, 0)):
        shape, values = (1, 2, 5, 5), {"dtype": dtype, "low": least, "high": least + 1}
        yield unary("max_pool", *shape, label="least", tolerance=EXACT, **values, **same)


def _pools() -> Iterator[Case]:
    for op in ("max_pool", "avg_pool"):
        tolerance = CLOSE if op == "avg_pool" else EXACT

        def pool(
            label: str, *shape: Dim, _op: str = op, _tol: Tolerance = tolerance, **more: Any
        ) -> Case:
            sizes = more.pop("sizes", {})
            attrs = window(len(shape) - 2, **more)
            return unary(_op, *shape, tolerance=_tol, sizes=sizes, label=label, **attrs)

        yield pool("2x2", 1, 3, 6, 8, kernel=(2, 2), strides=(2, 2))
        yield pool("3x3_pad", 2, 5, 7, 9, kernel=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1))
        yield pool("ceil", 1, 2, 7, 8, kernel=(3, 3), strides=(2, 2), ceil_mode=True)
        yield pool(
            "ceil_pad", 1, 2, 6, 6, kernel=(2, 2), strides=(3, 3), pads=(1, 1, 1, 1), ceil_mode=True
        )
        yield pool("dilated", 1, 2, 9, 9, kernel=(3, 3), dilations=(2, 2))
        yield pool("uneven", 1, 2, 5, 6, kernel=(2, 3), pads=(0, 1, 1, 2))
        yield pool(
            "nhwc", 1, 6, 6, 5, kernel=(3, 3), strides=(2, 2), pads=(0, 0, 1, 1), layout="NHWC"
        )
        yield pool("1d", 2, 3, 17, kernel=(4,), strides=(3,))
        yield pool("3d", 1, 2, 4, 5, 6, kernel=(2, 2, 2), strides=(2, 2, 2))
        yield pool("global", 2, 17, 5, 7, kernel=(5, 7))
        yield pool(
            "symbolic",
            N,
            3,
            S,
            S,
            kernel=(3, 3),
            strides=(2, 2),
            pads=(1, 1, 1, 1),
            sizes={"n": 2, "s": 8},
        )
    same = window(2, kernel=(3, 3), pads=(1, 1, 1, 1), count_include_pad=True)
    yield unary("avg_pool", 1, 2, 5, 5, label="include_pad", **same)
    yield unary(
        "avg_pool",
        1,
        2,
        6,
        6,
        label="include_pad_ceil",
        **{**same, "strides": (2, 2), "ceil_mode": True},
    )
    yield unary(
        "max_pool",
        1,
        2,
        5,
        5,
        dtype=I32,
        low=-9,
        high=9,
        tolerance=EXACT,
        label="i",
        **window(2, kernel=(2, 2)),
    )


def _attention(
    name: str,
    q: tuple[Dim, ...],
    k: tuple[Dim, ...],
    v: tuple[Dim, ...],
    mask: tuple[Dim, ...] | None = None,
    sizes: dict[str, int] | None = None,
) -> Case:
    def build(c: CaseBuilder) -> None:
        operands = [c.input(*shape) for shape in (q, k, v, *([mask] if mask else []))]
        c.output(c.op("attention", *operands, scale=0.25))

    return Case(f"attention_{name}", build, SUM, sizes or {})


def _attentions() -> Iterator[Case]:
    yield _attention("plain", (2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 8))
    yield _attention("cross", (2, 5, 8), (2, 7, 8), (2, 7, 6))
    yield _attention("mask", (2, 2, 4, 8), (2, 2, 6, 8), (2, 2, 6, 8), mask=(2, 1, 1, 6))
    yield _attention("one_query", (1, 2, 1, 16), (1, 2, 9, 16), (1, 2, 9, 16), mask=(1, 9))
    yield _attention("shared", (2, 4, 3, 8), (2, 1, 5, 8), (2, 1, 5, 8))
    yield _attention(
        "symbolic",
        (N, 2, S, 8),
        (N, 2, S, 8),
        (N, 2, S, 8),
        mask=(N, 1, 1, S),
        sizes={"n": 2, "s": 7},
    )


CASES: list[Case] = [
    *_matmuls(),
    *_convs(),
    *_transposed_convs(),
    *_pools(),
    *_least(),
    *_attentions(),
]
