"""Cases of pointwise operators: every operator, element types, broadcasting, odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensmith.compiler.ir.dims import Dim

from .case import (
    BF16,
    BOOL,
    BRAIN,
    CLOSE,
    DOUBLE,
    EXACT,
    F16,
    F32,
    F64,
    HALF,
    I8,
    I16,
    I32,
    I64,
    U8,
    Case,
    CaseBuilder,
    N,
    S,
    Tolerance,
    unary,
)

# operator -> range of its inputs
_FUNCTIONS: dict[str, tuple[float, float]] = {
    "sqrt": (0, 9),
    "exp": (-20, 20),
    "log": (0.01, 50),
    "sin": (-10, 10),
    "cos": (-10, 10),
    "tan": (-1.4, 1.4),
    "asin": (-1, 1),
    "acos": (-0.95, 0.95),
    "atan": (-20, 20),
    "sinh": (-5, 5),
    "cosh": (-5, 5),
    "tanh": (-12, 12),
    "asinh": (-10, 10),
    "acosh": (1.1, 20),
    "atanh": (-0.95, 0.95),
    "erf": (-5, 5),
    "sigmoid": (-30, 30),
}
_SPECIAL = [0.0, -0.0, 1.5, 2.5, -0.5, -2.5, 3.0, float("inf"), float("-inf"), float("nan"), 1e-40]


def _unary_cases() -> Iterator[Case]:
    for op in ("neg", "abs", "sign", "ceil", "floor", "round"):
        yield unary(op, 37, tolerance=EXACT, low=-5, high=5)
        yield _special(op, EXACT)
    for op, (low, high) in _FUNCTIONS.items():
        yield unary(op, 5, 19, low=low, high=high)
    for op in ("exp", "tanh", "sigmoid", "erf"):
        yield unary(op, 37, low=-4, high=4, dtype=F64, tolerance=DOUBLE)
        yield unary(op, 37, low=-4, high=4, dtype=F16, tolerance=HALF)
        yield _special(op, CLOSE)
    yield unary("neg", 9, dtype=I32, low=-9, high=9, tolerance=EXACT)
    yield unary("abs", 9, dtype=I8, low=-128, high=127, tolerance=EXACT)
    yield unary("sign", 9, dtype=I64, low=-2, high=3, tolerance=EXACT)
    yield unary("not", 33, dtype=BOOL, tolerance=EXACT)
    yield unary("bitnot", 33, dtype=U8, low=0, high=255, tolerance=EXACT)
    yield _special("isnan", EXACT)
    yield _special("isinf", EXACT)
    yield unary("tanh", tolerance=CLOSE)
    yield unary("exp", N, 7, sizes={"n": 3})
    yield unary("neg", 0, 4, tolerance=EXACT)


def _special(op: str, tolerance: Tolerance) -> Case:
    def build(c: CaseBuilder) -> None:
        c.output(c.op(op, c.input(len(_SPECIAL))))

    return Case(f"{op}_special", build, tolerance, given={"x0": _SPECIAL})


def _binary(
    op: str,
    a: tuple[Dim, ...],
    b: tuple[Dim, ...],
    tolerance: Tolerance = EXACT,
    **more: Any,
) -> Case:
    sizes = more.pop("sizes", {})
    first = more.pop("first", {})
    label = "_".join("x".join(map(str, shape)) or "scalar" for shape in (a, b))

    def build(c: CaseBuilder) -> None:
        c.output(c.op(op, c.input(*a, **{**more, **first}), c.input(*b, **more)))

    suffix = f"_{more['dtype']}" if "dtype" in more else ""
    return Case(f"{op}_{label}{suffix}", build, tolerance, sizes)


def _binary_cases() -> Iterator[Case]:
    same = ((5, 19), (5, 19))
    for op in ("add", "sub", "mul", "div", "max", "min", "eq", "ne", "lt", "le", "gt", "ge"):
        yield _binary(op, *same, tolerance=CLOSE if op == "div" else EXACT)
        yield _binary(op, (4, 7), (7,), dtype=I32, low=-3, high=4)
    for op in ("mod", "fmod"):
        yield _binary(op, *same, tolerance=CLOSE, low=0.5, high=2, first={"low": -9, "high": 9})
        yield _binary(op, *same, dtype=I64, low=-4, high=5)
    yield _binary("pow", *same, tolerance=CLOSE, low=0.1, high=3)
    yield _binary("pow", (9,), (), dtype=I32, low=0, high=5)
    for op in ("and", "or", "xor"):
        yield _binary(op, (3, 1, 5), (4, 1), dtype=BOOL)
    for op in ("bitand", "bitor", "bitxor"):
        yield _binary(op, (33,), (33,), dtype=U8, low=0, high=255)
    for op in ("shl", "shr"):
        yield _binary(op, (33,), (33,), dtype=U8, low=0, high=9)
        yield _binary(op, (33,), (1,), dtype=I32, low=1, high=6, first={"low": -99, "high": 99})
    for a, b in [
        ((3, 1, 5), (4, 1)),
        ((7,), ()),
        ((), ()),
        ((1, 1), (6, 1)),
        ((2, 3, 4, 5), (3, 1, 1)),
        ((1, 17), (13, 1)),
    ]:
        yield _binary("add", a, b)
    yield _binary("mul", (N, 3), (3,), sizes={"n": 5})
    yield _binary("add", (N, S, 4), (N, 1, 4), sizes={"n": 2, "s": 3})
    yield _binary("sub", (N, 1), (1, S), sizes={"n": 4, "s": 5})
    yield _binary("add", (9,), (9,), dtype=I8, low=-128, high=127)
    yield _binary("mul", (9,), (9,), dtype=I16, low=-3000, high=3000)
    yield _binary("add", (3, 17), (17,), tolerance=HALF, dtype=F16)
    yield _binary("mul", (3, 17), (17,), tolerance=BRAIN, dtype=BF16)
    yield _binary("add", (3, 17), (17,), dtype=F64)


def _cast(source: Any, to: Any, low: float = 0, high: float = 100) -> Case:
    def build(c: CaseBuilder) -> None:
        c.output(c.op("cast", c.input(21, dtype=source, low=low, high=high), dtype=to))

    return Case(f"cast_{source}_{to}", build, EXACT)


def _cast_cases() -> Iterator[Case]:
    for to in (F64, F16, BF16, I64, I32, I8, U8, BOOL):
        yield _cast(F32, to)
    for source in (F64, F16, BF16, I64, I8, U8, BOOL):
        yield _cast(source, F32)
    yield _cast(I64, I32, -(1 << 40), 1 << 40)
    yield _cast(I32, U8, -1000, 1000)
    yield _cast(I8, I64, -128, 127)
    yield _cast(I64, BOOL, -1, 2)
    yield _cast(F32, F32, -5, 5)


def _integer_division() -> Case:
    def build(c: CaseBuilder) -> None:
        a, b = c.input(8, dtype=I32), c.input(8, dtype=I32)
        c.output(*(c.op(op, a, b) for op in ("div", "mod", "fmod")))

    low = -(1 << 31)
    given = {"x0": [7, -7, 7, -7, low, 5, 0, 6], "x1": [2, 2, -2, -2, -1, 0, 3, 3]}
    return Case("integer_division", build, EXACT, given=given)


def _minmax_nan() -> Case:
    def build(c: CaseBuilder) -> None:
        a, b = c.input(4), c.input(4)
        c.output(c.op("max", a, b), c.op("min", a, b), c.op("eq", a, b), c.op("lt", a, b))

    nan = float("nan")
    given = {"x0": [nan, 1, nan, 2], "x1": [1, nan, nan, 3]}
    return Case("minmax_nan", build, EXACT, given=given)


def _where(
    name: str, cond: tuple[Dim, ...], a: tuple[Dim, ...], b: tuple[Dim, ...], **more: Any
) -> Case:
    dtype = more.pop("dtype", F32)

    def build(c: CaseBuilder) -> None:
        condition = c.input(*cond, dtype=BOOL)
        c.output(c.op("where", condition, c.input(*a, dtype=dtype), c.input(*b, dtype=dtype)))

    return Case(name, build, EXACT, **more)


def _fma(*shapes: tuple[Dim, ...], **more: Any) -> Case:
    """The sum of a product and what is nearly its opposite: only one rounding leaves a rest."""

    def build(c: CaseBuilder) -> None:
        a, b, small = (c.input(*shape) for shape in shapes)
        near = c.op("neg", c.op("mul", a, b))
        c.output(c.op("fma", a, b, near), c.op("fma", a, b, small))

    name = "_".join("x".join(map(str, shape)) or "scalar" for shape in shapes)
    return Case(f"fma_{name}", build, EXACT, **more)


CASES: list[Case] = [
    _fma((5, 19), (5, 19), (5, 19)),
    _fma((3, 1, 5), (4, 1), (5,)),
    _fma((N, 7), (), (1, 7), sizes={"n": 3}),
    *_unary_cases(),
    *_binary_cases(),
    *_cast_cases(),
    _integer_division(),
    _minmax_nan(),
    _where("where_same", (5, 9), (5, 9), (5, 9)),
    _where("where_broadcast", (5, 1), (9,), ()),
    _where("where_symbolic", (N, 1), (1, 7), (N, 7), sizes={"n": 3}),
    _where("where_i64", (6,), (6,), (1,), dtype=I64),
]
