"""Divisions that extents decide: equal at every point, and gone where they can be."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensmith.compiler.ir.dims import Dim, dmax, evaluate, floordiv, mod, symbol
from tensmith.compiler.kernel.index_ranges import fold_divisions

EXTENTS = {"$a": 4, "$b": 3, "$c": 6}
CONSTANTS = st.sampled_from([2, 3, 4, 6, 8, 12, 32])
FACTORS = st.sampled_from([1, 2, 3, 4, 6, 8, -1])


def sums(parts: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    terms = st.lists(st.builds(lambda a, k: a * k, parts, FACTORS), min_size=1, max_size=3)
    return st.builds(lambda found, rest: sum(found, rest), terms, st.sampled_from([0, 1, 5]))


AXES = st.sampled_from([symbol(name) for name in EXTENTS])
DIMS = st.recursive(
    AXES,
    lambda inner: st.one_of(
        sums(inner),
        st.builds(floordiv, inner, CONSTANTS),
        st.builds(mod, inner, CONSTANTS),
    ),
    max_leaves=8,
)


def test_sizes_stay_as_they_are() -> None:
    size: Dim = symbol("h")
    for _ in range(40):
        size = dmax(floordiv(size * 3 + 1, 5) + floordiv(size, 7), floordiv(size, 2)) + mod(size, 3)
    index = symbol("$a") * size + mod(symbol("$b"), 3)
    assert fold_divisions(index, EXTENTS) == symbol("$a") * size + symbol("$b")


@given(DIMS)
def test_equal_everywhere(dim: Dim) -> None:
    folded = fold_divisions(dim, EXTENTS)
    for point in product(*(range(extent) for extent in EXTENTS.values())):
        values = dict(zip(EXTENTS, point, strict=True))
        assert evaluate(folded, values) == evaluate(dim, values)


def test_divisions_that_go() -> None:
    a, b, c = (symbol(name) for name in EXTENTS)
    assert fold_divisions(floordiv(b + 3 * a, 12), EXTENTS) == 0
    assert fold_divisions(mod(b + 3 * a, 12), EXTENTS) == b + 3 * a
    assert fold_divisions(floordiv(c + 6, 6), EXTENTS) == 1
    # floordiv(b, 2) is 0 or 1: what 2 divides alone reaches the multiples of 4
    assert fold_divisions(floordiv(2 * c + floordiv(b, 2), 4), EXTENTS) == floordiv(c, 2)
    # the axis of unknown extent stays in the division
    n = symbol("$n")
    assert fold_divisions(floordiv(n + a, 8), EXTENTS) == floordiv(n + a, 8)
    assert fold_divisions(mod(4 * n + a, 8), EXTENTS) == 4 * mod(n, 2) + a


SIZES = {"m": symbol("m"), "n": symbol("n")}
SYMBOLIC = {"$a": SIZES["n"], "$b": 2 * SIZES["m"], "$c": 6}
DIVISORS = st.sampled_from(
    [6, *SIZES.values(), SIZES["n"] * 6, SIZES["n"] * SIZES["m"], SIZES["n"] * SIZES["m"] * 12]
)
STRIDES = st.sampled_from([1, 2, 6, *SIZES.values(), SIZES["n"] * 6, SIZES["n"] * SIZES["m"] * 2])


def strided(parts: st.SearchStrategy[Dim]) -> st.SearchStrategy[Dim]:
    terms = st.lists(st.builds(lambda a, k: a * k, parts, STRIDES), min_size=1, max_size=3)
    return st.builds(lambda found, rest: sum(found, rest), terms, st.sampled_from([0, 1, 5]))


POSITIONS = st.recursive(
    AXES,
    lambda inner: st.one_of(
        strided(inner),
        st.builds(floordiv, inner, DIVISORS),
        st.builds(mod, inner, DIVISORS),
    ),
    max_leaves=8,
)


@given(POSITIONS, st.integers(1, 3), st.integers(1, 3))
def test_equal_for_sizes_that_a_run_knows(dim: Dim, m: int, n: int) -> None:
    folded = fold_divisions(dim, SYMBOLIC)
    sizes = {"m": m, "n": n}
    for point in product(*(range(evaluate(extent, sizes)) for extent in SYMBOLIC.values())):
        values = dict(zip(SYMBOLIC, point, strict=True)) | sizes
        assert evaluate(folded, values) == evaluate(dim, values)


def test_divisions_by_sizes_that_go() -> None:
    a, b, c = (symbol(name) for name in SYMBOLIC)
    m, n = symbol("m"), symbol("n")
    assert fold_divisions(floordiv(b * n + a, n), SYMBOLIC) == b
    assert fold_divisions(mod(b * n + a, n), SYMBOLIC) == a
    # 6*a + c stays below 6*n, whatever n is
    assert fold_divisions(floordiv(6 * n * b + 6 * a + c, 24 * n), SYMBOLIC) == floordiv(b, 4)
    assert fold_divisions(floordiv(b * m + a, m), SYMBOLIC) != b


STEPS = dmax(floordiv(symbol("m"), 2), 1) + symbol("n") - 1  # as a convolution leaves them
STEPPED = {"$a": STEPS, "$b": 4 * STEPS, "$c": 6}
STEP_FACTORS = st.sampled_from([1, 2, 6, STEPS, 4 * STEPS, 6 * STEPS, STEPS * STEPS])
STEPPED_POSITIONS = st.recursive(
    AXES,
    lambda inner: st.one_of(
        st.builds(lambda a, k, b: a * k + b, inner, STEP_FACTORS, inner),
        st.builds(floordiv, inner, STEP_FACTORS),
        st.builds(mod, inner, STEP_FACTORS),
    ),
    max_leaves=8,
)


@given(STEPPED_POSITIONS, st.integers(1, 5), st.integers(1, 2))
def test_equal_for_sizes_of_several_terms(dim: Dim, m: int, n: int) -> None:
    folded = fold_divisions(dim, STEPPED)
    sizes = {"m": m, "n": n}
    for point in product(*(range(evaluate(extent, sizes)) for extent in STEPPED.values())):
        values = dict(zip(STEPPED, point, strict=True)) | sizes
        assert evaluate(folded, values) == evaluate(dim, values)


def test_divisions_by_sizes_of_several_terms_that_go() -> None:
    a, b, c = (symbol(name) for name in STEPPED)
    flat = b * STEPS + a
    assert fold_divisions(floordiv(flat, STEPS), STEPPED) == b
    assert fold_divisions(mod(flat, STEPS), STEPPED) == a
    assert fold_divisions(floordiv(flat, STEPS * STEPS), STEPPED) == floordiv(b, STEPS)
    assert fold_divisions(mod(floordiv(flat, STEPS), 4 * STEPS), STEPPED) == b
    grid = (c * STEPS + a) * 4 * STEPS + b
    assert fold_divisions(mod(floordiv(grid, 4 * STEPS), STEPS), STEPPED) == a
    assert fold_divisions(floordiv(grid, 4 * STEPS * STEPS), STEPPED) == c


LENGTH = symbol("n") + 1  # of no row is it 0
NEAR = {"$a": LENGTH, "$b": LENGTH, "$c": 6}
NEAR_DIVISORS = st.sampled_from([5, 7, LENGTH, 2 * LENGTH, LENGTH + 6, 2 * LENGTH + 5])
NEAR_STEPS = st.sampled_from([-1, 0, 1, 2])


@st.composite
def read_by_other_rows(draw: st.DrawFn) -> tuple[Dim, Dim]:
    """A position along rows that are a little longer or shorter than the divisor, and that."""
    by = draw(NEAR_DIVISORS)
    steps = [draw(NEAR_STEPS) * by + draw(NEAR_STEPS) for _ in NEAR]
    first = draw(st.sampled_from([0, 1, 5, LENGTH, LENGTH * 3 + 2]))
    return sum((symbol(a) * s for a, s in zip(NEAR, steps, strict=True)), first), by


@given(read_by_other_rows(), st.integers(0, 4))
def test_equal_for_rows_that_are_near_the_divisor(position: tuple[Dim, Dim], n: int) -> None:
    top, by = position
    for dim in (floordiv(top, by), mod(top, by), mod(floordiv(top, by), LENGTH)):
        folded = fold_divisions(dim, NEAR)
        for point in product(*(range(evaluate(extent, {"n": n})) for extent in NEAR.values())):
            values = dict(zip(NEAR, point, strict=True)) | {"n": n}
            assert evaluate(folded, values) == evaluate(dim, values)


@pytest.mark.parametrize(
    "length", [199, symbol("t"), floordiv(symbol("s"), 10) - 1, dmax(symbol("t") * symbol("u"), 1)]
)
def test_scores_by_distance_need_no_division(length: Dim) -> None:
    """Row i of [t, 2t] read from element t + i*(2t - 1) on is row i from element t - i on."""
    i, j = symbol("$i"), symbol("$j")
    extents = {"$i": length, "$j": length}
    flat = length + i * (2 * length - 1) + j
    assert fold_divisions(floordiv(flat, 2 * length), extents) == i
    assert fold_divisions(mod(flat, 2 * length), extents) == length - i + j
    # an element earlier the last row still begins with its own element 0; earlier yet, it does not
    assert fold_divisions(floordiv(flat - 1, 2 * length), extents) == i
    assert fold_divisions(floordiv(flat - 2, 2 * length), extents) != i


def test_places_that_fall_from_row_to_row() -> None:
    a, c, n = symbol("$a"), symbol("$c"), symbol("n")
    extents = {"$a": n, "$c": 6}
    flat = a * (n + 11) + n + 4 - c
    assert fold_divisions(floordiv(flat, n + 12), extents) == a
    assert fold_divisions(mod(flat, n + 12), extents) == n + 4 - a - c
    # the last element read would be one before the row
    earlier = floordiv(flat - 1, n + 12)
    assert fold_divisions(earlier, extents) == earlier
