"""Integers divided in vectors, by way of floats: quotients and remainders are exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, compile_graph, needs_native, run_all
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph

OPS = ("div", "mod", "fmod")
TYPES = [DType.I8, DType.U8, DType.I16, DType.U16, DType.I32, DType.U32, DType.I64, DType.U64]
pytestmark = needs_native


def divisions(dtype: DType) -> Graph:
    c = CaseBuilder("divisions")
    a, b = (c.input(N, dtype=dtype, name=name) for name in "ab")
    c.output(*(c.op(op, a, b) for op in OPS))
    return c.graph()


def operands(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of all sizes, and dividends next to multiples of their divisors, where a quotient
    that is rounded is the next integer."""
    rng = np.random.default_rng(0)
    limits, bits = np.iinfo(dtype.numpy), dtype.bits
    edges = [limits.min, limits.min + 1, limits.max - 1, limits.max, 0, 1, 2, 3, 7]
    edges += [-1, -2, -3] if dtype.is_signed else []
    some = [int(rng.integers(0, 1 << 63, dtype=np.uint64)) % (limits.max + 1) >> int(shift)
            for shift in rng.integers(0, bits, 3000)]  # fmt: skip
    divisors = np.array(edges * len(edges) + some, dtype.numpy)
    plain = np.array([e for e in edges for _ in edges] + some[::-1], dtype.numpy)
    with np.errstate(all="ignore"):
        whole = plain // np.where(divisors == 0, 1, divisors) * divisors
        near = [whole - np.array(1, dtype.numpy), whole, whole + np.array(1, dtype.numpy)]
    signs = rng.choice([-1, 1], 4 * len(plain)).astype(dtype.numpy) if dtype.is_signed else 1
    return np.concatenate([plain, *near]) * signs, np.tile(divisors, 4)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("setting", [Setting("native", 2), Setting("x86-64-v3", 2)], ids=str)
def test_quotients_and_remainders(dtype: DType, setting: Setting, tmp_path: Path) -> None:
    if setting.missing():
        pytest.skip(setting.missing())
    a, b = operands(dtype)
    feeds = {"a": a, "b": b}
    wanted = run_graph(divisions(dtype), feeds)
    found = run_all({"all": Job(divisions(dtype), feeds)}, setting, tmp_path)["all"]
    if isinstance(found, Exception):
        raise found
    for place, op in enumerate(OPS):
        np.testing.assert_array_equal(found[f"y{place}"], wanted[f"y{place}"], err_msg=op)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_by_constants(dtype: DType, tmp_path: Path) -> None:
    """Powers of two and others, the ends of the type, and those by which plain division traps."""
    limits = np.iinfo(dtype.numpy)
    divisors = [0, 7, 16, limits.max]
    divisors += [-1, -16, limits.min] if dtype.is_signed else []
    c = CaseBuilder("constants")
    a = c.input(N, dtype=dtype, name="a")
    c.output(*(c.op(op, a, c.scalar(by, dtype)) for by in divisors for op in OPS))
    graph, feeds = c.graph(), {"a": operands(dtype)[0]}
    wanted = run_graph(graph, feeds)
    found = run_all({"all": Job(graph, feeds)}, Setting("native", 2), tmp_path)["all"]
    if isinstance(found, Exception):
        raise found
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def code(dtype: DType, by: int | None, name: str, folder: Path) -> str:
    """LLVM's text of x / by, or of x / y where that is None."""
    c = CaseBuilder("code")
    b = c.input(N, dtype=dtype, name="b") if by is None else c.scalar(by, dtype)
    c.output(c.op("div", c.input(N, dtype=dtype, name="a"), b))
    setting, texts = Setting(name, 2), frozenset({"llvm"})
    return compile_graph(c.graph(), setting, folder, texts=texts).code.texts["llvm"]


@pytest.mark.parametrize(
    ("dtype", "by", "name", "floats"),
    [
        (DType.I32, 10, "x86-64-v4", False),
        (DType.U8, 255, "x86-64-v4", False),
        (DType.I64, -16, "x86-64-v4", False),
        (DType.U64, 1 << 63, "x86-64-v4", False),
        (DType.I64, 10, "x86-64-v4", True),
        (DType.I64, 10, "x86-64-v3", False),
        (DType.I32, None, "x86-64-v3", True),
        (DType.I64, None, "x86-64-v4", True),
        (DType.I64, None, "x86-64-v3", False),
        (DType.U64, None, "aarch64", False),
    ],
)
def test_where_floats_pay(
    dtype: DType, by: int | None, name: str, floats: bool, tmp_path: Path
) -> None:
    assert ("fdiv" in code(dtype, by, name, tmp_path)) == floats


def test_large_numbers_beside_small_ones(tmp_path: Path) -> None:
    """A vector with one number beyond 2^53 is divided lane by lane."""
    rng = np.random.default_rng(1)
    a = rng.integers(-(10**6), 10**6, 256)
    a[::37] = rng.integers(1 << 60, 1 << 62, len(a[::37]))
    feeds = {"a": a, "b": rng.integers(1, 1000, 256)}
    found = run_all({"all": Job(divisions(DType.I64), feeds)}, Setting("native", 2), tmp_path)
    assert not isinstance(found["all"], Exception)
    quotients = [
        int(x) // int(y) if x >= 0 else -(-int(x) // int(y))
        for x, y in zip(*feeds.values(), strict=True)
    ]
    np.testing.assert_array_equal(found["all"]["y0"], quotients)
