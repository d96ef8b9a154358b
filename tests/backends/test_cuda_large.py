"""Numbers and counts beyond 32 bits, which tensors small enough for kernels lead to."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_runs import GpuGraph, needs_triton
from suites.case import I64, CaseBuilder, N, S

from tensmith.backends.cuda.addressing import COUNTED, LIMIT
from tensmith.compiler.errors import RunError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.plan.plan import Require


@needs_triton
def test_sizes_that_are_elements_have_64_bits() -> None:
    """Products of sizes, and means of as many elements."""
    c = CaseBuilder("sizes")
    x = c.input(N)
    c.output(c.op("dims", values=(3 * N * N, N, N * N * N - 1)))
    c.output(c.op("reduce_max", x, axes=(0,), keepdims=True))
    count = 60_000
    found = GpuGraph(c.graph()).run({"x0": np.ones(count, np.float32)})
    assert found["y0"].tolist() == [3 * count**2, count, count**3 - 1]


@needs_triton
def test_elements_of_sizes_and_places_have_64_bits() -> None:
    """Of as many numbers as pairs, some of the last ones and one of every row."""
    c = CaseBuilder("numbers of pairs")
    x = c.input(N)
    numbers = c.op("iota", shape=(N * N,))
    c.output(c.op("slice", numbers, starts=(N * N - 5,), stops=(N * N,), steps=(1,)))
    every = c.op("reshape", numbers, shape=(N, N))
    column = c.op("slice", every, starts=(0, 3), stops=(N, 4), steps=(1, 1))
    c.output(c.op("add", c.op("reshape", column, shape=(N,)), c.op("cast", x, dtype=I64)))
    count = 60_000
    found = GpuGraph(c.graph()).run({"x0": np.zeros(count, np.float32)})
    assert found["y0"].tolist() == [count**2 - n for n in (5, 4, 3, 2, 1)]
    np.testing.assert_array_equal(found["y1"], np.arange(count) * count + 3)


@needs_triton
def test_bounds_of_what_lies_in_no_tensor_have_64_bits() -> None:
    """Of every row of as many numbers as pairs one, behind a margin."""
    c = CaseBuilder("numbers of pairs behind a margin")
    c.input(N)
    numbers = c.op("pad", c.op("iota", shape=(N * N,)), c.scalar(-7, I64), pads=(N, 0))
    rows = c.op("reshape", numbers, shape=(N + 1, N))
    column = c.op("slice", rows, starts=(0, 3), stops=(N + 1, 4), steps=(1, 1))
    c.output(c.op("add", c.op("reshape", column, shape=(N + 1,)), c.scalar(0, I64)))
    count = 60_000
    found = GpuGraph(c.graph()).run({"x0": np.zeros(count, np.float32)})["y0"]
    np.testing.assert_array_equal(found[1:], np.arange(count) * count + 3)
    assert found[0] == -7


def pairs(rows: Dim, columns: Dim) -> Graph:
    """The sum of what every two elements are apart, which lies in no tensor."""
    c = CaseBuilder("pairs")
    apart = c.op("abs", c.op("sub", c.input(rows, 1), c.input(1, columns)))
    c.output(c.op("reduce_sum", apart, axes=(0, 1), keepdims=False))
    return c.graph()


def test_reductions_of_more_elements_than_32_bits_count() -> None:
    few, many = (GpuGraph(pairs(n, n)).functions for n in (1 << 10, 1 << 16))
    assert not any("int64" in function.source for function in few)
    assert all("int64" in function.source for function in many)


@needs_triton
def test_as_many_as_a_run_has_are_counted_before() -> None:
    planned = GpuGraph(pairs(N, S))
    limits = [s for s in planned.plan.steps if isinstance(s, Require) and s.text == COUNTED]
    assert [(limit.left, limit.right) for limit in limits] == [(N * S, LIMIT)]
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((50, 1)).astype("f4"), rng.standard_normal((1, 30)).astype("f4")
    want = np.abs(a.astype("f8") - b).sum()
    np.testing.assert_allclose(planned.run({"x0": a, "x1": b})["y0"], want, rtol=1e-5)
    with pytest.raises(RunError, match="more elements are reduced to one"):
        planned.run({"x0": np.zeros((1 << 16, 1), "f4"), "x1": np.zeros((1, 1 << 16), "f4")})


def test_what_repeats_elements_is_counted() -> None:
    """A picture of which rows and columns are made 256 times as many, which lies in no tensor."""
    c = CaseBuilder("repeated")
    x = c.input(N, S)
    for axis, size in enumerate((N, S)):
        each = c.op("div", c.op("iota", shape=(256 * size,)), c.scalar(256, I64))
        x = c.op("gather", x, each, axis=axis)
    c.output(c.op("reduce_sum", x, axes=(0, 1), keepdims=False))
    limits = [s for s in GpuGraph(c.graph()).plan.steps if isinstance(s, Require)]
    assert (65536 * N * S, COUNTED) in {(limit.left, limit.text) for limit in limits}


def rows_of(places: str) -> Graph:
    """The sum of rows of a matrix at other places than theirs."""
    c = CaseBuilder(places)
    x = c.input(N, S)
    if places == "turned around":
        x = c.op("slice", x, starts=(N - 1, 0), stops=(-1, S), steps=(-1, 1))
    elif places == "every other":
        x = c.op("slice", x, starts=(0, 0), stops=(N, S), steps=(2, 1))
    elif places == "transposed":
        x = c.op("transpose", c.op("exp", x), perm=(1, 0))
    elif places == "picked":
        x = c.op("gather", x, c.input(S, dtype=I64, low=0, high=1), axis=0)
    elif places == "with margins":
        x = c.op("pad", x, c.scalar(1), pads=(N * N, 0, 0, 0))
    c.output(c.op("reduce_sum", x, axes=(0, 1), keepdims=False))
    return c.graph()


@pytest.mark.parametrize(
    ("places", "counted"),
    [
        ("turned around", False),
        ("every other", False),
        ("transposed", False),
        ("picked", True),
        ("with margins", True),
    ],
)
def test_which_places_are_another_each(places: str, counted: bool) -> None:
    texts = [s.text for s in GpuGraph(rows_of(places)).plan.steps if isinstance(s, Require)]
    assert (COUNTED in texts) is counted


def test_what_lies_in_a_tensor_is_not_counted_again() -> None:
    c = CaseBuilder("rows")
    c.output(c.op("reduce_sum", c.input(N, S), axes=(0, 1), keepdims=False))
    c.output(c.op("matmul", c.input(N, S), c.input(S, 40)))
    texts = [s.text for s in GpuGraph(c.graph()).plan.steps if isinstance(s, Require)]
    assert texts
    assert COUNTED not in texts


@pytest.mark.parametrize("op", ["argmax", "argmin"])
def test_no_place_of_a_long_row_stands_for_none(op: str) -> None:
    c = CaseBuilder(op)
    c.output(c.op(op, c.input(LIMIT + 100), axis=0))
    sources = [function.source for function in GpuGraph(c.graph()).functions]
    assert any(str((1 << 63) - 1) in source for source in sources)
    assert not any(str(LIMIT) in source for source in sources)
