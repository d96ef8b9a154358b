"""Cases of movement, indexing and shape operators."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tensmith.compiler.ir.dims import Dim, dbroadcast, symbol

from .case import BOOL, EXACT, F32, F64, I8, I32, I64, Case, CaseBuilder, N, S, Tolerance, unary
from .case import CLOSE as _CLOSE


def _views() -> Iterator[Case]:
    yield unary("reshape", 4, 6, shape=(2, 12), tolerance=EXACT)
    yield unary("reshape", 1, shape=(), tolerance=EXACT)
    yield unary("reshape", N, 4, 3, shape=(N, 12), tolerance=EXACT, sizes={"n": 3})
    yield unary("reshape", N, S, 6, shape=(N * S, 2, 3), tolerance=EXACT, sizes={"n": 2, "s": 5})
    yield unary("transpose", 5, 7, perm=(1, 0), tolerance=EXACT)
    yield unary("transpose", 33, 65, perm=(1, 0), tolerance=EXACT)
    yield unary("transpose", 2, 3, 4, 5, perm=(0, 2, 1, 3), tolerance=EXACT, label="heads")
    yield unary("transpose", 2, 3, 4, 5, perm=(0, 2, 3, 1), tolerance=EXACT, label="nhwc")
    yield unary("transpose", N, S, 3, perm=(2, 0, 1), tolerance=EXACT, sizes={"n": 2, "s": 3})
    yield unary("transpose", 6, perm=(0,), dtype=BOOL, tolerance=EXACT)
    yield unary("broadcast_to", 1, 5, shape=(4, 5), tolerance=EXACT)
    yield unary("broadcast_to", shape=(2, 3), tolerance=EXACT)

    def broadcast(c: CaseBuilder) -> None:
        x, like = c.input(3, 1, dtype=I64), c.input(N)
        wide = c.op("broadcast_to", x, shape=(N, 3, 7))
        c.output(wide, c.op("broadcast_to", like, shape=(2, N)))

    yield Case("broadcast_to_symbolic", broadcast, EXACT, {"n": 2})


def _expansions() -> Iterator[Case]:
    def expand(c: CaseBuilder) -> None:
        x, like = c.input(N, 3, S), c.input(symbol("a"), 3, symbol("b"))
        shape = (dbroadcast(N, symbol("a")), 3, dbroadcast(S, symbol("b")))
        wide = c.op("expand", c.op("neg", x), shape=shape)
        other = c.op("expand", like, shape=shape)
        c.output(c.op("add", wide, other), c.op("abs", wide), c.op("neg", x))

    names = ("n", "s", "a", "b")
    for sizes in ((2, 9, 2, 9), (1, 9, 2, 9), (2, 1, 1, 40), (1, 1, 3, 5), (0, 1, 1, 4)):
        label = "x".join(map(str, sizes))
        yield Case(f"expand_{label}", expand, EXACT, dict(zip(names, sizes, strict=True)))


def _slice(
    name: str, shape: tuple[Dim, ...], starts: Any, stops: Any, steps: Any, **more: Any
) -> Case:
    return unary(
        "slice",
        *shape,
        starts=starts,
        stops=stops,
        steps=steps,
        label=name,
        tolerance=EXACT,
        **more,
    )


def _slices() -> Iterator[Case]:
    yield _slice("rows", (7, 5), (2, 0), (6, 5), (1, 1))
    yield _slice("columns", (7, 19), (0, 3), (7, 16), (1, 1))
    yield _slice("step", (3, 19), (0, 1), (3, 19), (2, 3))
    yield _slice("reverse", (4, 9), (0, 8), (4, -1), (1, -1))
    yield _slice("reverse_step", (13,), (11,), (2,), (-3,))
    yield _slice("empty", (4, 5), (2, 0), (2, 5), (1, 1))
    yield _slice("one", (4, 5), (3, 4), (4, 5), (1, 1))
    yield _slice("last", (N, 5), (N - 1, 0), (N, 5), (1, 1), sizes={"n": 6})
    yield _slice("symbolic", (N, S), (1, 0), (N, S), (2, 1), sizes={"n": 6, "s": 3})
    yield _slice("bytes", (2, 33), (0, 1), (2, 32), (1, 1), dtype=I8, low=-9, high=9)


def _concat(name: str, axis: int, *shapes: tuple[Dim, ...], **more: Any) -> Case:
    dtype = more.pop("dtype", F32)

    def build(c: CaseBuilder) -> None:
        c.output(c.op("concat", *(c.input(*s, dtype=dtype) for s in shapes), axis=axis))

    return Case(f"concat_{name}", build, EXACT, **more)


def _concats() -> Iterator[Case]:
    yield _concat("rows", 0, (2, 5), (3, 5), (1, 5))
    yield _concat("columns", 1, (4, 3), (4, 8))
    yield _concat("middle", 1, (2, 1, 3), (2, 4, 3), dtype=I64)
    yield _concat("single", 0, (4,))
    yield _concat("with_empty", 0, (0, 3), (2, 3))
    yield _concat("symbolic", 1, (2, N), (2, S), (2, N), sizes={"n": 3, "s": 4})


def _pad(
    name: str,
    shape: tuple[Dim, ...],
    pads: tuple[Dim, ...],
    mode: str = "constant",
    value: float | None = None,
    **more: Any,
) -> Case:
    def build(c: CaseBuilder) -> None:
        values = [] if value is None else [c.scalar(value)]
        c.output(c.op("pad", c.input(*shape), *values, pads=pads, mode=mode))

    return Case(f"pad_{name}", build, EXACT, **more)


def _pads() -> Iterator[Case]:
    yield _pad("zero", (3, 5), (1, 0, 2, 3))
    yield _pad("value", (3, 5), (0, 2, 1, 0), value=-1.5)
    yield _pad("spatial", (1, 2, 4, 5), (0, 0, 1, 1, 0, 0, 1, 2))
    yield _pad("reflect", (4, 6), (3, 0, 2, 5), "reflect")
    yield _pad("edge", (4, 6), (2, 1, 0, 7), "edge")
    yield _pad("wrap", (3, 4), (2, 4, 1, 3), "wrap")
    yield _pad("symbolic", (N, S), (0, 1, S, 0), sizes={"n": 2, "s": 3})
    yield _pad("none", (3,), (0, 0))
    yield _pad("crop", (3, 5), (-1, 2, 1, -3), value=2.5)
    yield _pad("crop_all", (3, 5), (0, -7, 0, 4))
    yield _pad("symbolic_crop", (N, S), (0, N - S, 2 - N, 1), sizes={"n": 4, "s": 6})


def _indexed(
    op: str,
    name: str,
    x: tuple[Dim, ...],
    indices: tuple[Dim, ...],
    *,
    low: int,
    high: int,
    dtype: Any = F32,
    index: Any = I64,
    sizes: dict[str, int] | None = None,
    **attrs: Any,
) -> Case:
    def build(c: CaseBuilder) -> None:
        data = c.input(*x, dtype=dtype)
        c.output(c.op(op, data, c.input(*indices, dtype=index, low=low, high=high), **attrs))

    return Case(f"{op}_{name}", build, EXACT, sizes or {})


def _of_repeated_pad(c: CaseBuilder) -> None:
    padded = c.op("pad", c.input(1, 3), pads=(0, 0, 0, 2))
    rows = c.op("broadcast_to", padded, shape=(4, 5))
    c.output(c.op("gather_elements", rows, c.input(4, 6, dtype=I64, low=-5, high=5), axis=1))


def _gathers() -> Iterator[Case]:
    yield _indexed("gather", "rows", (9, 5), (4,), low=0, high=9, axis=0)
    yield _indexed("gather", "negative", (9, 5), (2, 3), low=-9, high=9, axis=0)
    yield _indexed("gather", "columns", (3, 7), (4,), low=-7, high=7, axis=1, index=I32)
    yield _indexed("gather", "middle", (2, 6, 3), (2, 2), low=0, high=6, axis=1, dtype=F64)
    yield _indexed("gather", "scalar", (5, 4), (), low=0, high=5, axis=0)
    yield _indexed(
        "gather", "symbolic", (11, 8), (N, S), low=0, high=11, axis=0, sizes={"n": 2, "s": 3}
    )
    yield _indexed("gather_elements", "rows", (4, 5), (3, 5), low=-4, high=4, axis=0)
    yield _indexed("gather_elements", "columns", (4, 5), (4, 9), low=-5, high=5, axis=1)
    yield _indexed("gather_elements", "fewer", (4, 6, 3), (2, 6, 2), low=0, high=6, axis=1)
    yield Case("gather_elements_repeated_pad", _of_repeated_pad, EXACT)
    yield _indexed("gather_nd", "points", (5, 5), (6, 2), low=-5, high=5)
    yield _indexed("gather_nd", "rows", (5, 3, 4), (2, 3, 1), low=0, high=5)
    yield _indexed("gather_nd", "batch", (2, 5, 4), (2, 3, 1), low=0, high=5, batch_dims=1)
    yield _indexed("gather_nd", "symbolic", (N, 4), (S, 1), low=0, high=3, sizes={"n": 3, "s": 2})


def _scatter(
    op: str,
    name: str,
    x: tuple[Dim, ...],
    indices: Any,
    updates: tuple[int, ...],
    tolerance: Tolerance = EXACT,
    dtype: Any = F32,
    sizes: dict[str, int] | None = None,
    **attrs: Any,
) -> Case:
    def build(c: CaseBuilder) -> None:
        data = c.input(*x, dtype=dtype)
        where = c.input(*_shape_of(indices), dtype=I64, name="indices")
        c.output(c.op(op, data, where, c.input(*updates, dtype=dtype), **attrs))

    return Case(f"{op}_{name}", build, tolerance, sizes or {}, {"indices": indices})


def _shape_of(nested: Any) -> tuple[int, ...]:
    return (len(nested), *_shape_of(nested[0])) if isinstance(nested, list) else ()


def _scatters() -> Iterator[Case]:
    columns = [[1, 0, 4], [2, -1, 0]]
    yield _scatter("scatter_elements", "columns", (2, 5), columns, (2, 3), axis=1)
    yield _scatter("scatter_elements", "rows", (4, 3), [[0, 3, -1]], (1, 3), axis=0)
    twice = [[1, 1, 1, 0]]
    yield _scatter("scatter_elements", "last_wins", (1, 3), twice, (1, 4), axis=1)
    for how in ("add", "mul", "max", "min"):
        yield _scatter(
            "scatter_elements", how, (1, 3), twice, (1, 4), _CLOSE, axis=1, reduction=how
        )
        yield _scatter("scatter_nd", how, (4, 2), [[1], [3], [1]], (3, 2), _CLOSE, reduction=how)
    yield _scatter("scatter_nd", "rows", (5, 3), [[4], [0]], (2, 3))
    yield _scatter("scatter_nd", "points", (4, 4), [[0, 1], [3, -1], [2, 2]], (3,), dtype=I64)
    yield _scatter("scatter_nd", "blocks", (3, 2, 2), [[[0], [2]]], (1, 2, 2, 2))
    yield _scatter("scatter_nd", "symbolic", (N, 3), [[1], [0]], (2, 3), sizes={"n": 4})


def _shape_cases() -> Iterator[Case]:
    def iota(c: CaseBuilder) -> None:
        c.input(N, dtype=F32)
        c.output(
            c.op("iota", shape=(7,)),
            c.op("iota", shape=(3, N), axis=1, dtype=I32),
            c.op("iota", shape=(4, 2), axis=0, dtype=F32),
        )

    yield Case("iota", iota, EXACT, {"n": 5})

    def dims(c: CaseBuilder) -> None:
        c.input(N, S)
        c.output(c.op("dims", values=(N, S * 2 + 1, 4, (N + 1) * S)), c.op("dims", values=()))

    yield Case("dims", dims, EXACT, {"n": 5, "s": 3})

    def read_dims(c: CaseBuilder) -> None:
        x = c.input(1, 4)
        shape = c.input(2, dtype=I64, name="shape")
        c.node("read_dims", [shape], {"symbols": ("a", "b")})
        a, b = symbol("a"), symbol("b")
        wide = c.op("broadcast_to", x, shape=(a, b, 4))
        c.output(wide, c.op("iota", shape=(a + b,)), c.op("dims", values=(a * b,)))

    yield Case("read_dims", read_dims, EXACT, given={"shape": [3, 2]})

    def checks(c: CaseBuilder) -> None:
        x, i = c.input(N, 3), c.input(4, dtype=I64, low=-3, high=3)
        c.node("check_index", [i], {"sizes": (3,), "what": "the columns"})
        c.node("check_nonzero", [c.op("add", i, c.scalar(4, I64))], {"what": "the divisors"})
        attrs = {"relation": "<=", "left": 2, "right": N, "what": "the rows"}
        c.node("check_dims", [], attrs)
        c.output(c.op("gather", x, i, axis=1))

    yield Case("checks", checks, EXACT, {"n": 2})


CASES: list[Case] = [
    *_views(),
    *_expansions(),
    *_slices(),
    *_concats(),
    *_pads(),
    *_gathers(),
    *_scatters(),
    *_shape_cases(),
]
