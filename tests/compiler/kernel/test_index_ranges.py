"""Divisions that extents decide: equal at every point, and gone where they can be."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from tensmith.compiler.ir.dims import Dim, evaluate, floordiv, mod, symbol
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
