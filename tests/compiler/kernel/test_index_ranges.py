"""Divisions that extents decide: equal at every point, and gone where they can be."""

from __future__ import annotations

from itertools import product

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
