"""The larger and the smaller of two expressions."""

from __future__ import annotations

import math
from functools import lru_cache

from .bounds import is_nonnegative
from .terms import MEMO, Call, Dim, Sym, as_dim, in_order, is_position, make, terms_of

_LARGE = 1 << 48  # differences from such numbers might not fit 64 bits at run time


def dmax(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions; of sizes, b + max(a - b, 0) where neither is sure to be."""
    difference = a - b
    if isinstance(difference, int):
        return a if difference >= 0 else b
    if is_position(difference):
        return _call("max", a, b)
    if is_nonnegative(difference):
        return a
    if is_nonnegative(difference * -1):
        return b
    return _call("max", a, b) if _is_large(a, b) else b + _positive_part(difference)


def dmin(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions; of sizes, a - max(a - b, 0) where neither is sure to be."""
    difference = a - b
    if isinstance(difference, int):
        return a if difference <= 0 else b
    if is_position(difference):
        return _call("min", a, b)
    if is_nonnegative(difference):
        return b
    if is_nonnegative(difference * -1):
        return a
    return _call("min", a, b) if _is_large(a, b) else a - _positive_part(difference)


def _call(fn: str, a: Dim, b: Dim) -> Dim:
    return as_dim(Call(fn, in_order(a, b)))


def _is_large(a: Dim, b: Dim) -> bool:
    return any(abs(coef) >= _LARGE for dim in (a, b) for _, coef in terms_of(dim))


@lru_cache(MEMO)
def _positive_part(dim: Sym) -> Dim:
    """max(dim, 0), its first coefficient being positive and the coefficients without factor."""
    if dim.terms[0][1] < 0:
        opposite = dim * -1
        assert isinstance(opposite, Sym)
        return dim + _positive_part(opposite)
    common = math.gcd(*(coef for _, coef in dim.terms))
    reduced = make({mono: coef // common for mono, coef in dim.terms})
    return _flattened(reduced) * common


def _flattened(dim: Dim) -> Dim:
    """max(dim, 0), with max(c*max(x, 0) + r, 0) = max(c*x + r, 0) for c > 0 >= r."""
    for mono, coef in terms_of(dim):
        call = mono[0] if len(mono) == 1 else None
        if not isinstance(call, Call) or call.fn != "max" or 0 not in call.args or coef < 0:
            continue
        rest = dim - as_dim(call) * coef
        if is_nonnegative(rest * -1):
            return dmax((call.args[0] + call.args[1]) * coef + rest, 0)
    return as_dim(Call("max", (dim, 0)))
