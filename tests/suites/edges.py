"""Cases at the edges: every pair of element types, wrapping, NaNs, empty and unit axes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tensmith.compiler.ir import DType
from tensmith.compiler.ir.dims import Dim

from .case import (
    BF16,
    BOOL,
    EXACT,
    F16,
    F32,
    F64,
    I8,
    I32,
    I64,
    U8,
    Case,
    CaseBuilder,
    N,
    S,
    Tolerance,
)

Build = Callable[[CaseBuilder], None]
WINDOW = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
# element type -> tolerance of one rounding
FLOATS = {F64: 1e-12, F16: 4e-3, BF16: 2e-2}
INTEGERS = (I8, U8, DType.I16, DType.U16, I32, DType.U32, I64, DType.U64)
TYPES = (F32, *FLOATS, *INTEGERS, BOOL)
LEFT = np.array([1, -1, 5, -7, 3, 100, -100, 127, -128])
RIGHT = np.array([0, 1, 2, -1, 31, 33, 64, 127, 3])
NOT_NUMBERS = np.array([1, np.nan, -np.inf, np.inf, 0, -0.0, np.nan, 2, 3], np.float32)


def _case(name: str, build: Build, tolerance: float = 1e-4, **more: Any) -> Case:
    return Case(f"edge_{name}", build, Tolerance(tolerance, tolerance), **more)


def _one(
    name: str,
    op: str,
    *shapes: tuple[Dim, ...],
    tolerance: float = 1e-4,
    dtype: DType = F32,
    low: float = -2,
    high: float = 2,
    sizes: dict[str, int] | None = None,
    given: dict[str, Any] | None = None,
    **attrs: Any,
) -> Case:
    """One operator on inputs of the given shapes."""

    def build(c: CaseBuilder) -> None:
        c.output(c.op(op, *(c.input(*s, dtype=dtype, low=low, high=high) for s in shapes), **attrs))

    return _case(name, build, tolerance, sizes=sizes or {"n": 3}, given=given or {})


def _casts() -> Iterator[Case]:
    for source in TYPES:
        for to in TYPES:
            signed = source.is_signed and to.is_signed
            low, high = (-100 if signed else 0), 100

            def build(c: CaseBuilder, source: DType = source, to: DType = to, low: int = low,
                      high: int = high) -> None:  # fmt: skip
                c.output(c.op("cast", c.input(19, dtype=source, low=low, high=high), dtype=to))

            yield _case(f"cast_{source}_{to}", build, 0)


def _integers() -> Iterator[Case]:
    for dtype in INTEGERS:
        a, b = LEFT.astype(dtype.numpy), RIGHT.astype(dtype.numpy)

        def build(c: CaseBuilder, dtype: DType = dtype) -> None:
            x, y = c.input(9, dtype=dtype), c.input(9, dtype=dtype)
            names = ("shl", "shr", "pow", "div", "mod", "fmod", "max", "min", "lt", "ge", "eq")
            c.output(*(c.op(name, x, y) for name in (*names, "add", "sub", "mul")))
            c.output(*(c.op(name, x) for name in ("neg", "abs", "sign", "bitnot")))

        shifts = np.where((b >= 0) & (b < 100), b, 3).astype(dtype.numpy)
        yield _case(f"arithmetic_{dtype}", build, 0, given={"x0": a, "x1": shifts})
        small = {"dtype": dtype, "low": 0, "high": 5, "tolerance": 0}
        for kind in ("sum", "prod", "max", "min", "mean"):
            name = f"reduce_{kind}"
            yield _one(f"{name}_{dtype}", name, (5, 37), axes=(1,), keepdims=False, **small)
            yield _one(f"{name}_rows_{dtype}", name, (5, 37), axes=(0,), keepdims=True, **small)
        yield _one(f"cumsum_{dtype}", "cumsum", (5, 7), axis=1, **small)
        yield _one(f"matmul_{dtype}", "matmul", (5, 7), (7, 19), **small)


def _floats() -> Iterator[Case]:
    for dtype, unit in FLOATS.items():
        near = {"dtype": dtype, "low": 0.9, "high": 1.1, "tolerance": 4 * unit}
        for kind in ("sum", "prod", "max", "min", "mean"):
            name = f"reduce_{kind}"
            yield _one(f"{name}_{dtype}", name, (5, 300), axes=(1,), keepdims=False, **near)
            yield _one(f"{name}_rows_{dtype}", name, (300, 5), axes=(0,), keepdims=False, **near)
        wide = {"dtype": dtype, "tolerance": 4 * unit}
        yield _one(f"cumsum_{dtype}", "cumsum", (5, 70), axis=1, **wide)
        yield _one(f"matmul_{dtype}", "matmul", (5, 70), (70, 33), **wide)
        yield _one(f"matmul_batch_{dtype}", "matmul", (2, 1, 5, 7), (3, 7, 4), **wide)
        yield _one(f"softmax_{dtype}", "softmax", (5, 70), axis=1, **wide)
        yield _one(f"softmax_first_{dtype}", "softmax", (5, 70), axis=0, **wide)
        yield _one(f"argmax_{dtype}", "argmax", (5, 9), axis=1, dtype=dtype, keepdims=False)
        for op in ("max_pool", "avg_pool"):
            yield _one(f"{op}_{dtype}", op, (2, 3, 9, 9), kernel=(3, 2), **WINDOW, **wide)

        def build(c: CaseBuilder, dtype: DType = dtype) -> None:
            x = c.input(5, 70, dtype=dtype)
            scale, bias = c.weight(70, dtype=dtype), c.weight(70, dtype=dtype)
            c.output(c.op("layer_norm", x, scale, bias, axis=1, epsilon=1e-5))
            image, filters = c.input(2, 3, 9, 8, dtype=dtype), c.weight(4, 3, 3, 3, dtype=dtype)
            c.output(c.op("conv", image, filters, c.weight(4, dtype=dtype), groups=1, **WINDOW))

        yield _case(f"norm_and_conv_{dtype}", build, 8 * unit)

        def functions(c: CaseBuilder, dtype: DType = dtype) -> None:
            x = c.input(2, 19, dtype=dtype, low=0.1, high=3)
            names = ("exp", "log", "sin", "tanh", "erf", "sigmoid", "sqrt", "asinh", "floor", "neg")
            c.output(*(c.op(name, x) for name in names))
            y = c.input(19, dtype=dtype, low=0.3, high=3)
            c.output(*(c.op(name, x, y) for name in ("pow", "fmod", "div", "max", "sub")))

        yield _case(f"functions_{dtype}", functions, 2 * unit)


def _moves() -> Iterator[Case]:
    for dtype in TYPES:

        def build(c: CaseBuilder, dtype: DType = dtype) -> None:
            x = c.input(5, 4, dtype=dtype, low=0, high=9)
            i = c.input(3, 2, dtype=I32, low=-5, high=5)
            c.output(c.op("gather", x, i, axis=0))
            c.output(c.op("gather_elements", x, c.op("cast", i, dtype=I64), axis=0))
            c.output(c.op("transpose", x, perm=(1, 0)), c.op("concat", x, x, axis=1))
            c.output(c.op("slice", x, starts=(4, 3), stops=(-1, -1), steps=(-2, -1)))
            c.output(c.op("broadcast_to", x, shape=(2, 5, 4)), c.op("reshape", x, shape=(2, 10)))
            c.output(c.op("pad", x, pads=(1, 0, 2, 3)))
            first = c.op("slice", x, starts=(0, 0), stops=(1, 4), steps=(1, 1))
            c.output(c.op("where", c.op("eq", x, first), x, first))

        yield _case(f"moves_{dtype}", build, 0)
    for dtype in (F32, F64, F16, BF16, I8, DType.U64):

        def scatter(c: CaseBuilder, dtype: DType = dtype) -> None:
            x, u = c.input(5, 4, dtype=dtype), c.input(6, 4, dtype=dtype)
            i = c.input(6, 4, dtype=I64, low=0, high=5)
            for kind in ("add", "mul", "max", "min"):
                c.output(c.op("scatter_elements", x, i, u, axis=0, reduction=kind))

        yield _case(f"scatter_{dtype}", scatter, 3 * FLOATS.get(dtype, 1e-6))
    for mode in ("reflect", "edge", "wrap", "constant"):
        yield _one(f"pad_{mode}_far", "pad", (3, 4), pads=(1, 3, 2, 3), mode=mode)
        yield _one(f"pad_{mode}_symbolic", "pad", (N, 6), pads=(2, 2, 1, 3), mode=mode)


def _positions() -> Iterator[Case]:
    for op in ("argmax", "argmin"):
        for last in (False, True):
            label = f"{op}_{'last' if last else 'first'}"
            ties = {"select_last": last, "dtype": I32, "low": -3, "high": 4}
            yield _one(f"{label}_unit", op, (4, 1), axis=1, keepdims=True, select_last=last)
            yield _one(f"{label}_single", op, (1,), axis=0, keepdims=False, select_last=last)
            yield _one(f"{label}_symbolic", op, (N, 7), axis=0, keepdims=False, **ties)

            def build(c: CaseBuilder, op: str = op, last: bool = last) -> None:
                x = c.op("transpose", c.input(3, 4, 2, 5, dtype=I32, low=-3, high=4),
                         perm=(0, 2, 1, 3))  # fmt: skip
                flat = c.op("reshape", x, shape=(6, 20))
                c.output(c.op(op, flat, axis=1, keepdims=False, select_last=last))
                c.output(c.op(op, flat, axis=0, keepdims=True, select_last=last))

            yield _case(f"{label}_of_split_axis", build, 0)


def _not_numbers() -> Iterator[Case]:
    pair = {"x0": NOT_NUMBERS, "x1": NOT_NUMBERS[::-1].copy()}
    for op in ("max", "min", "lt", "le", "eq", "ne", "gt", "ge", "add", "div"):
        yield _one(f"{op}_nan", op, (9,), (9,), given=pair)
    rows = {"x0": np.stack([NOT_NUMBERS, np.ones(9, np.float32)])}
    for kind in ("max", "min", "sum", "mean", "prod"):
        for axis in (0, 1):
            name = f"reduce_{kind}"
            yield _one(f"{name}_{axis}_nan", name, (2, 9), axes=(axis,), keepdims=False, given=rows)
    signs = {
        "x0": np.array([5, -5, 5, -5, 0.0, -0.0, 1e-30, -1e-30, 6], np.float32),
        "x1": np.array([3, 3, -3, -3, 3, -3, -1e-30, 3, np.inf], np.float32),
    }
    for op in ("mod", "fmod"):
        yield _one(f"{op}_signs", op, (9,), (9,), given=signs)

    def constants(c: CaseBuilder) -> None:
        x, nan = c.input(9), c.scalar(float("nan"))
        c.output(c.op("max", x, nan), c.op("min", nan, x), c.op("max", nan, x))

    yield _case("nan_constants", constants)


def _shapes() -> Iterator[Case]:
    for m, k, n in [(3, 0, 4), (0, 5, 4), (30, 50, 1), (1, 50, 33), (1, 1, 1), (17, 3, 129)]:
        yield _one(f"matmul_{m}x{k}x{n}", "matmul", (m, k), (k, n))
    symbolic = {"sizes": {"n": 37}}
    yield _one("matmul_n_k_n", "matmul", (N, 50), (50, N), **symbolic)
    yield _one("matmul_7_n_19", "matmul", (7, N), (N, 19), **symbolic)
    yield _one("matmul_batch_n", "matmul", (N, 3, 7), (N, 7, 19), sizes={"n": 5})
    yield _one("mean_of_nothing", "reduce_mean", (3, 0), axes=(1,), keepdims=False)
    for shape in [(1,), (1, 1), (), (1000,), (3, 1000), (17, 1, 65), (0, 3)]:

        def build(c: CaseBuilder, shape: tuple[int, ...] = shape) -> None:
            raised = c.op("exp", c.input(*shape))
            axes = tuple(range(len(shape)))
            c.output(raised, c.op("reduce_sum", raised, axes=axes, keepdims=False))
            if shape:
                c.output(c.op("softmax", raised, axis=len(shape) - 1))

        yield _case(f"rank_{'x'.join(map(str, shape)) or 'scalar'}", build)

    def empty(c: CaseBuilder) -> None:
        none, five, one = c.input(3, 0), c.input(3, 5), c.input(3, 1)
        c.output(c.op("add", c.op("exp", c.op("concat", none, five, axis=1)), one))
        wide = c.op("broadcast_to", one, shape=(3, 9))
        c.output(c.op("concat", wide, none, five, axis=1))
        total = c.op("reduce_sum", none, axes=(1,), keepdims=True)
        joined = c.op("concat", total, one, axis=1)
        c.output(joined, c.op("mul", joined, joined))

    yield _case("empty_operands", empty)

    def rows(c: CaseBuilder) -> None:
        x = c.op("softmax", c.input(N, S), axis=1)
        flat = c.op("reshape", c.op("transpose", x, perm=(1, 0)), shape=(N * S,))
        c.output(x, flat, c.op("reduce_max", x, axes=(0, 1), keepdims=False))

    yield _case("symbolic_rows", rows, sizes={"n": 5, "s": 33})


def _windows() -> Iterator[Case]:
    for rank in (1, 2, 3):

        def build(c: CaseBuilder, rank: int = rank) -> None:
            x = c.input(2, 4, *(7,) * rank)
            each = {"strides": (2,) * rank, "pads": (1,) * (2 * rank)}
            plain = {**each, "dilations": (1,) * rank}
            filters, kernel = c.weight(6, 2, *(3,) * rank), (3,) * rank
            c.output(c.op("conv", x, filters, c.weight(6), groups=2, **plain))
            back = c.weight(4, 3, *kernel)
            more = {"groups": 2, "output_padding": (1,) * rank}
            c.output(c.op("conv_transpose", x, back, c.weight(6), **more, **plain))
            wide = {**each, "dilations": (2,) * rank, "kernel": kernel, "ceil_mode": True}
            c.output(c.op("max_pool", x, **wide))
            pool = {**plain, "kernel": kernel, "ceil_mode": True}
            c.output(*(c.op("avg_pool", x, count_include_pad=pad, **pool) for pad in (True, False)))

        yield _case(f"windows_{rank}d", build)

    def depthwise(c: CaseBuilder) -> None:
        x = c.input(2, 6, 9, 9)
        window = {"strides": (1, 1), "pads": (2, 2, 2, 2), "dilations": (2, 2), "groups": 6}
        c.output(*(c.op("conv", x, c.weight(6 * k, 1, 3, 3), **window) for k in (1, 2)))

    yield _case("conv_depthwise", depthwise)

    def symbolic(c: CaseBuilder) -> None:
        x = c.input(N, 3, S, S)
        c.output(c.op("conv", x, c.weight(8, 3, 3, 3), c.weight(8), groups=1, **WINDOW))
        c.output(c.op("max_pool", x, kernel=(3, 3), **WINDOW))

    yield _case("conv_symbolic", symbolic, sizes={"n": 2, "s": 11})

    def given_filters(c: CaseBuilder) -> None:
        x = c.op("reshape", c.input(4, 5), shape=(1, 1, 4, 5))
        w = c.op("reshape", c.input(4, 5), shape=(1, 1, 4, 5))
        window = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
        c.output(c.op("conv", x, w, **window))

    yield _case("conv_of_given_filters", given_filters)
    lopsided = {"strides": (1, 1), "pads": (3, 0, 2, 4), "dilations": (1, 1), "groups": 1}
    whole = {"dtype": I32, "low": -5, "high": 5, "tolerance": EXACT.atol}
    yield _one("conv_i32", "conv", (1, 2, 5, 5), (3, 2, 2, 2), **whole, **lopsided)


EDGE_CASES: list[Case] = [
    *_casts(),
    *_integers(),
    *_floats(),
    *_moves(),
    *_positions(),
    *_not_numbers(),
    *_shapes(),
    *_windows(),
]
