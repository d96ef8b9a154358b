"""How much memory index expressions reach: value ranges and distinct elements.

Affine offsets are counted by their strides. What is not affine (divisions, remainders) counts as
one more axis over its value range, so that the number is an upper estimate there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

from ..ir.dims import Call, Dim, Sym, Symbol, symbols_of

Range = tuple[int, int]  # both ends included


def value_range(dim: Dim, extents: Mapping[str, int]) -> Range:
    """The least and the greatest value of an expression, each symbol running from 0 to extent - 1.

    Symbols without an extent count as 0.
    """
    if isinstance(dim, int):
        return dim, dim
    low = high = 0
    for monomial, factor in dim.terms:
        ends = (factor, factor)
        for atom in monomial:
            ends = _hull(a * b for a in ends for b in _atom_range(atom, extents))
        low, high = low + ends[0], high + ends[1]
    return low, high


def _hull(values: Iterable[int]) -> Range:
    found = list(values)
    return min(found), max(found)


def _atom_range(atom: Symbol | Call, extents: Mapping[str, int]) -> Range:
    if isinstance(atom, Symbol):
        return 0, max(0, extents.get(atom.name, 1) - 1)
    a, b = (value_range(argument, extents) for argument in atom.args)
    if atom.fn == "floordiv":
        return _hull(x // y for x in a for y in b if y)
    if atom.fn == "mod":
        inside = a[0] >= 0 and a[1] < b[0]
        return a if inside else (0, max(0, b[1] - 1))
    pick = min if atom.fn == "min" else max
    return pick(a[0], b[0]), pick(a[1], b[1])


def distinct_elements(offset: Dim, extents: Mapping[str, int]) -> int:
    """How many different offsets there are while each axis runs over its extent.

    Axes are merged from the smallest stride up: one whose stride is less than what is covered so
    far (the windows of a convolution) extends it instead of multiplying it.
    """
    if isinstance(offset, int):
        return 1
    axes = []
    for monomial, factor in offset.terms:
        if monomial:
            low, high = value_range(Sym(((monomial, 1),)), extents)
            axes.append((abs(factor), high - low + 1))
    count = span = 1
    for stride, extent in sorted(axes):
        reach = span + stride * (extent - 1)
        if stride >= span:
            count *= extent
        else:
            count = min(count * extent, math.ceil(count / span * reach))
        span = reach
    low, high = value_range(offset, extents)
    return min(count, high - low + 1)


def union_elements(offsets: Iterable[Dim], extents: Mapping[str, int]) -> int:
    """Different elements that several accesses to one buffer reach together, at most their span."""
    each = tuple(dict.fromkeys(offsets))
    names = sorted({name for offset in each for name in symbols_of(offset)} & extents.keys())
    return _union(each, tuple((name, extents[name]) for name in names))


@lru_cache(maxsize=1 << 14)  # neighbouring schedules differ in few of their loops
def _union(offsets: tuple[Dim, ...], known: tuple[tuple[str, int], ...]) -> int:
    extents = dict(known)
    total, low, high = 0, math.inf, -math.inf
    for offset in offsets:
        total += distinct_elements(offset, extents)
        first, last = value_range(offset, extents)
        low, high = min(low, first), max(high, last)
    return int(min(total, high - low + 1)) if total else 0
