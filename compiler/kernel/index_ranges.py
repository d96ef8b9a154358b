"""Divisions in index expressions that the extents of axes decide or make smaller."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..ir.dims import (
    FUNCTIONS,
    Atom,
    Dim,
    Sym,
    Symbol,
    divide_terms,
    floordiv,
    map_atoms,
    mod,
    symbol,
    symbols_of,
)
from .footprint import value_range


def fold_divisions(dim: Dim, extents: Mapping[str, int]) -> Dim:
    """An equal expression while every symbol of `extents` runs from 0 to its extent - 1.

    floordiv and mod by a constant whose operand stays within one multiple of it are resolved;
    what a common factor of operand and divisor leaves alone is taken out of the division.
    """
    return map_atoms(dim, lambda atom: _folded(atom, extents))


def _folded(atom: Atom, extents: Mapping[str, int]) -> Dim:
    if isinstance(atom, Symbol):
        return symbol(atom.name)
    top, bottom = (fold_divisions(arg, extents) for arg in atom.args)
    plain = FUNCTIONS[atom.fn](top, bottom)
    if atom.fn not in ("floordiv", "mod") or not isinstance(bottom, int) or bottom < 2:
        return plain
    if not isinstance(top, Sym):
        return plain
    if _known(top, extents):
        low, high = value_range(top, extents)
        multiple = low // bottom
        if multiple == high // bottom:
            return multiple if atom.fn == "floordiv" else top - multiple * bottom
    shorter = _without_rest(atom.fn, top, bottom, extents)
    return plain if shorter is None else shorter


def _known(dim: Dim, extents: Mapping[str, int]) -> bool:
    return symbols_of(dim) <= extents.keys()


def _without_rest(fn: str, top: Sym, bottom: int, extents: Mapping[str, int]) -> Dim | None:
    """(g*q + r) divided by g*n, where 0 <= r < g, by way of q divided by n; None: no such g."""
    factors = {math.gcd(factor, bottom) for _, factor in top.terms}
    for g in sorted(factors - {1, bottom}, reverse=True):
        quotient, rest = divide_terms(top, g)
        if isinstance(rest, int) or not _known(rest, extents):
            continue
        low, high = value_range(rest, extents)
        if low >= 0 and high < g:
            if fn == "floordiv":
                return floordiv(quotient, bottom // g)
            return mod(quotient, bottom // g) * g + rest
    return None
