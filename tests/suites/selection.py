"""Cases of sorting, selection, determinants and narrow element types."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from tensmith.compiler.ir import Dim, DType, constant
from tensmith.compiler.ir.ops.forest import EXACT as EXACTLY
from tensmith.compiler.ir.ops.forest import NAN_PASSES, TESTS, node_type

from .case import BF16, BOOL, EXACT, F16, F64, I8, I32, I64, SUM, U8, Case, CaseBuilder, N, unary

_FLOATS = (DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2, DType.F8E5M2FNUZ)
_NARROW = (*_FLOATS, DType.F8E8M0FNU, DType.F4E2M1FN, DType.I4, DType.U4, DType.I2, DType.U2)


def _numbers() -> np.ndarray:
    """What a conversion to an 8-bit float may get wrong: halves between its numbers, and limits."""
    codes = np.arange(256, dtype=np.uint8)
    found = [np.array([0, -0.0, np.inf, -np.inf, np.nan, 1e9, -1e9, 464, 480, 61440], np.float32)]
    for dtype in _FLOATS:
        numbers = codes.view(dtype.numpy).astype(np.float32)
        numbers = np.sort(numbers[np.isfinite(numbers)])
        middles = (numbers[1:] + numbers[:-1]) / 2
        found += [numbers, middles, np.nextafter(middles, np.float32(np.inf))]
    return np.concatenate(found)


def _several(name: str, op: str, inputs: dict[str, object], dtype: DType, **attrs: object) -> Case:
    """A case of an operator with several results on one given input."""
    array = np.array(inputs["x0"])

    def build(c: CaseBuilder) -> None:
        c.output(*c.node(op, [c.input(*array.shape, dtype=dtype)], attrs).outputs)

    return Case(name, build, EXACT, given=inputs)


def _sorting() -> Iterator[Case]:
    for dtype in (F64, F16, BF16, I64, I32, I8, U8, DType.U64):
        yield unary("argsort", 4, 37, count=9, dtype=dtype, low=0, high=20, label="some")
    yield unary("argsort", 3, 200, count=200, descending=True, label="all")
    for dtype in (
        DType.F32,
        F16,
        I64,
        I32,
        U8,
    ):  # a few, selected, and all, of keys that fit 32 bits
        for count in (3, 60, 260):
            name = f"argsort_{count}_of_260_{dtype}"
            yield Case(
                name, partial(_ordered, dtype, count), EXACT, given={"x0": _ordered_values(dtype)}
            )
    apart = np.resize(np.array([2**40, -(2**62), 7, 7, -1, 2**62]), 70)
    yield _several("argsort_apart", "argsort", {"x0": apart}, I64, count=50, descending=True)
    rising = {"x0": np.arange(400) / 8}  # each comes before all that were kept
    for dtype in (DType.F32, F64):
        yield _several(
            f"argsort_rising_{dtype}", "argsort", rising, dtype, count=5, descending=True
        )
    yield unary("argsort", N, 50, count=5, sizes={"n": 3}, descending=True, label="rows")
    for length in (67, N):
        yield Case(f"nonzero_{length}", lambda c, n=length: _nonzero(c, n), EXACT, {"n": 9})
    values = [[0.5, -0.0], [0.0, 3.0], [0.5, 0.0], [-1.0, 2.0], [0.0, 3.0]]
    for kept in (True, False):
        yield _several(f"unique_rows_{kept}", "unique", {"x0": values}, DType.F32, sorted=kept)
        ones = [[3], [1], [3], [2], [1], [3]]
        yield _several(f"unique_numbers_{kept}", "unique", {"x0": ones}, I64, sorted=kept)
    for center in (False, True):
        yield Case(f"nms_{center}", lambda c, center=center: _nms(c, center), EXACT)
    yield Case("nms_crowded", _crowded, EXACT)
    yield unary("det", 5, 4, 4, tolerance=SUM)
    yield unary("det", 3, 3, dtype=F64, tolerance=SUM)
    for shape, dtype in (((5, 4, 4), DType.F32), ((1, 1), F64), ((0, 3, 3), DType.F32)):
        yield Case(f"inverse_{len(shape)}_{shape[0]}", partial(_inverse, shape, dtype), SUM)


def _ordered_values(dtype: DType) -> np.ndarray:
    """Many equal elements, and what is special of a type."""
    values = np.random.default_rng(4).integers(-9, 9, (2, 260)) * 1000.0
    if dtype.is_float:
        values[:, ::13] = np.resize([np.nan, -0.0, 0.0, np.inf, -np.inf, 1e-5], 20)
    return (
        values.astype(np.int64).astype(dtype.numpy)
        if dtype.is_integer
        else values.astype(dtype.numpy)
    )


def _ordered(dtype: DType, count: int, c: CaseBuilder) -> None:
    x = c.input(2, 260, dtype=dtype)
    c.output(*(c.op("argsort", x, count=count, descending=d) for d in (False, True)))


def _inverse(shape: tuple[int, ...], dtype: DType, c: CaseBuilder) -> None:
    """Of matrices far from singular, whose largest elements are off the diagonal."""
    size = shape[-1]
    shift = constant((np.roll(np.eye(size), 1, 0) * 9).astype(dtype.numpy))
    c.output(c.op("inverse", c.op("add", c.input(*shape, dtype=dtype), shift)))


def _nonzero(c: CaseBuilder, length: Dim) -> None:
    c.output(*c.node("nonzero", [c.input(length, dtype=BOOL)], {}).outputs)


def _nms(c: CaseBuilder, center: bool) -> None:
    boxes, scores = c.input(2, 20, 4, low=0, high=9), c.input(2, 3, 20, low=0, high=1)
    bounds = [c.scalar(6, I64), c.scalar(0.3), c.scalar(0.2)]
    c.output(*c.node("nms", [boxes, scores, *bounds], {"center": center}).outputs)


def _crowded(c: CaseBuilder) -> None:
    """Most of the best boxes overlap better ones: more are looked at than were sorted at first."""
    boxes, scores = c.input(1, 200, 4, low=0, high=3), c.input(1, 2, 200, low=0, high=1)
    bounds = [c.scalar(7, I64), c.scalar(0.01), c.scalar(0.05)]
    c.output(*c.node("nms", [boxes, scores, *bounds], {"center": False}).outputs)


def _forests() -> Iterator[Case]:
    for dtype in (DType.F32, F64):
        for reduction in ("sum", "min", "max"):
            for tests in TESTS:
                name = f"forest_{reduction}_{dtype}_{tests}"
                made = partial(_forest, dtype=dtype, reduction=reduction, tests=tests)
                yield Case(name, made, SUM)
    holes = np.random.default_rng(5).standard_normal((70, 6))
    holes[np.random.default_rng(6).random(holes.shape) < 0.3] = np.nan
    for tests in ("any", "missing"):
        made = partial(_forest, rows=70, tests=tests)
        yield Case(f"forest_of_holes_{tests}", made, SUM, given={"x0": holes})
    for rows, sizes in ((1, {}), (7, {}), (N, {"n": 150})):
        for columns, apart in ((1, False), (3, False), (3, True)):
            name = f"forest_{rows}_{columns}{'_apart' if apart else ''}"
            yield Case(name, partial(_forest, rows=rows, columns=columns, apart=apart), SUM, sizes)


def _forest(
    c: CaseBuilder,
    rows: Dim = 13,
    columns: int = 2,
    apart: bool = False,
    dtype: DType = DType.F32,
    reduction: str = "sum",
    tests: str = "plain",
) -> None:
    """Eleven trees of one to forty leaves; apart: each leaf speaks for one column."""
    kinds = {"plain": [0], "missing": [0, NAN_PASSES]}
    kinds["any"] = [*kinds["missing"], EXACTLY, EXACTLY | NAN_PASSES]
    roots, table, leaves = [], [], 0
    for tree in range(11):
        roots.append(len(table))
        unfinished = [len(table)]
        table.append((np.nan, 0, 0, 0))
        for _ in range(min(40, 4 * tree)):
            at = unfinished.pop(int(c.rng.integers(len(unfinished))))
            flags = int(c.rng.choice(kinds[tests]))
            split = float(c.rng.integers(-4, 5)) / 4
            table[at] = (split, int(c.rng.integers(6)) | flags, len(table), 0)
            unfinished += [len(table), len(table) + 1]
            table += [(np.nan, 0, 0, 0)] * 2
        for at in unfinished:
            table[at] = (np.nan, 0, at, leaves)
            leaves += 1
    nodes = np.zeros(len(table), node_type(dtype))
    for at, node in enumerate(table):
        nodes[at] = node
    words = nodes.view(np.int32).reshape(len(table), -1)
    tables = [c.weight(leaves, 1 if apart else columns, dtype=dtype)]
    if apart:
        tables.append(constant(c.rng.integers(0, columns, leaves).astype(np.int32)))
    fixed = constant(words), constant(np.array(roots, np.int32))
    attrs = {"columns": columns, "features": 6, "reduction": reduction, "tests": tests}
    c.output(c.op("forest", c.input(rows, 6, dtype=dtype), *fixed, *tables, **attrs))


def _cumulative() -> Iterator[Case]:
    for reverse in (False, True):
        for exclusive in (False, True):
            label = f"{'back' if reverse else 'on'}_{'before' if exclusive else 'with'}"
            attrs = {"axis": 1, "reverse": reverse, "exclusive": exclusive, "label": label}
            yield unary("cumprod", 3, 7, tolerance=SUM, **attrs)
            yield unary("cumprod", 3, 7, dtype=I32, low=-3, high=4, tolerance=EXACT, **attrs)


def _conversions() -> Iterator[Case]:
    numbers, codes = _numbers(), np.arange(256)

    def read(dtype: DType) -> Case:
        bits = 4 if dtype is DType.F4E2M1FN else 8 if dtype.value[0] == "f" else int(dtype.value[1])
        given = codes[: 1 << bits]

        def build(c: CaseBuilder) -> None:
            x = c.op("bitcast", c.input(len(given), dtype=U8), dtype=dtype)
            c.output(c.op("cast", x, dtype=DType.F32))

        return Case(f"cast_from_{dtype}", build, EXACT, given={"x0": given})

    def write(dtype: DType) -> Case:
        def build(c: CaseBuilder) -> None:
            x = c.op("cast", c.input(len(numbers)), dtype=dtype)
            c.output(c.op("cast", x, dtype=DType.F32))

        return Case(f"cast_to_{dtype}", build, EXACT, given={"x0": numbers})

    def whole(dtype: DType) -> Case:
        def build(c: CaseBuilder) -> None:
            x = c.op("cast", c.input(32, dtype=I32), dtype=dtype)
            c.output(c.op("cast", x, dtype=I32))

        return Case(f"cast_to_{dtype}", build, EXACT, given={"x0": np.arange(-16, 16)})

    for dtype in _NARROW:
        yield read(dtype)
        if dtype in _FLOATS:
            yield write(dtype)
        elif dtype.value[0] in "iu":
            yield whole(dtype)


def _bits() -> Iterator[Case]:
    def build(c: CaseBuilder) -> None:
        c.output(c.op("bitcast", c.input(40), dtype=DType.U32))

    yield Case("bitcast_f32_u32", build, EXACT)


def _doubles() -> np.ndarray:
    """Floats of every size, ones halfway between decimals, and those beside powers of ten."""
    rng = np.random.default_rng(4)
    found = rng.integers(0, 1 << 64, 400, dtype=np.uint64).view(np.float64)
    tens = 10.0 ** np.arange(-30, 31)
    halves = np.array([0.5, 1.5, 2.5, 123456785.0, 0.000123456785, 1e16 + 2, 9.9999999e7])
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324, np.finfo(np.float64).max])
    numbers = [found, rng.standard_normal(100) * 1e3, np.arange(-20, 20) / 8]
    return np.concatenate([*numbers, tens, np.nextafter(tens, 0), halves, special])


def _texts() -> list[str]:
    """Numbers as text, and what lies halfway between two floats, or beside that."""
    written = [f"{number:.17g}" for number in _doubles() if np.isfinite(number)]
    half = "9007199254740993"  # between two f64
    return [
        *written, half, half + ".000000001", half[:-1] + "2.9", "1.7976931348623158e308", "0x1.8p3",
        "-0X.8", "0x1.00000000000008p0", "0x1.000000000000080000001p0", "0x1.00000000000018p0",
        "0x0p9", "0x123456789abcdef01p-4", "0x1p-1074", "0x.8p-1074", "0x.80001p-1074", "0x3p-1076",
        "inf", "-Infinity", "nan", " +1e-400", "0." + "0" * 400 + "1e401", "1" * 400 + "e-390",
        "2.4703282292062327208e-324", "2.4703282292062328e-324", "1e", "7.e+", "0x", "00012.5",
    ]  # fmt: skip


def _numbers_of_text(name: str, texts: list[str], dtype: DType) -> Case:
    data = np.array([text.encode() for text in texts], "S")
    rows = data.view(np.uint8).reshape(len(texts), data.dtype.itemsize)

    def build(c: CaseBuilder) -> None:
        x = c.input(*rows.shape, dtype=U8)
        c.output(c.op("read_numbers", x, dtype=dtype, what="no number"))

    return Case(f"read_numbers_{name}", build, EXACT, given={"x0": rows})


def _text() -> Iterator[Case]:
    floats = _doubles()
    for dtype, digits in ((F64, 17), (F64, 1), (DType.F32, 8), (F16, 8), (BF16, 8)):

        def build(c: CaseBuilder, dtype: DType = dtype, digits: int = digits) -> None:
            c.output(c.op("write_floats", c.input(len(floats), dtype=dtype), digits=digits))

        yield Case(f"write_floats_{dtype}_{digits}", build, EXACT, given={"x0": floats})
    yield _numbers_of_text("f64", _texts(), F64)
    whole = ["0", "-1", "+7x", " 9223372036854775807", "-9223372036854775808", "0" * 30 + "12"]
    yield _numbers_of_text("i64", whole, I64)
    yield _numbers_of_text("u64", [*whole, "18446744073709551615"], DType.U64)


CASES = [*_sorting(), *_forests(), *_cumulative(), *_conversions(), *_bits(), *_text()]
