"""Divisions in index expressions that the extents of axes decide or make smaller."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping

from ..ir.dims import (
    FUNCTIONS,
    Atom,
    Dim,
    Monomial,
    Sym,
    Symbol,
    as_dim,
    divide_terms,
    floordiv,
    is_nonnegative,
    is_position,
    map_atoms,
    mod,
    nearest_quotient,
    product,
    substitute,
    symbol,
    symbols_of,
    terms_of,
    total,
)
from .footprint import value_range


def fold_divisions(dim: Dim, extents: Mapping[str, Dim]) -> Dim:
    """An equal expression while every symbol of `extents` runs from 0 to its extent - 1.

    floordiv and mod whose operand stays within one multiple of the divisor are resolved; what a
    common factor of operand and divisor leaves alone is taken out of the division. Sizes have
    their form already.
    """
    if not is_position(dim):
        return dim
    return map_atoms(dim, lambda atom: _folded(atom, extents))


def _folded(atom: Atom, extents: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Symbol) or not is_position(as_dim(atom)):
        return as_dim(atom)
    top, bottom = (fold_divisions(arg, extents) for arg in atom.args)
    plain = FUNCTIONS[atom.fn](top, bottom)
    if atom.fn not in ("floordiv", "mod") or not isinstance(top, Sym):
        return plain
    if isinstance(bottom, Sym):
        shorter = _by_symbols(atom.fn, top, bottom, extents)
        shorter = _near_multiple(atom.fn, top, bottom, extents) if shorter is None else shorter
        return plain if shorter is None else shorter
    if bottom < 2:
        return plain
    static = {name: size for name, size in extents.items() if isinstance(size, int)}
    if symbols_of(top) <= static.keys():
        low, high = value_range(top, static)
        multiple = low // bottom
        if multiple == high // bottom:
            return multiple if atom.fn == "floordiv" else top - multiple * bottom
    shorter = _without_rest(atom.fn, top, bottom, extents)
    shorter = _near_multiple(atom.fn, top, bottom, extents) if shorter is None else shorter
    return plain if shorter is None else shorter


def _without_rest(fn: str, top: Sym, bottom: int, extents: Mapping[str, Dim]) -> Dim | None:
    """(g*q + r) divided by g*n, where 0 <= r < g, by way of q divided by n; None: no such g."""
    factors = {math.gcd(factor, bottom) for _, factor in top.terms}
    for g in sorted(factors - {1, bottom}, reverse=True):
        quotient, rest = divide_terms(top, g)
        if not isinstance(rest, int) and _is_below(rest, g, extents):
            if fn == "floordiv":
                return floordiv(quotient, bottom // g)
            return mod(quotient, bottom // g) * g + rest
    return None


def _near_multiple(fn: str, top: Sym, bottom: Dim, extents: Mapping[str, Dim]) -> Dim | None:
    """bottom*q + r divided by bottom, where 0 <= r < bottom and steps of some axes are a little
    more or less than a multiple of bottom; None: no such q is found.

    Rows of n elements that are read as rows of n + 1 are: i*n + j is (n + 1)*i + (j - i).
    """
    factors = _by_axes(top).items()
    nearest = total(_times(axes, nearest_quotient(factor, bottom)) for axes, factor in factors)
    for quotient in (nearest, nearest - 1):
        rest = top - quotient * bottom
        if _is_below(rest, bottom, extents):
            return quotient if fn == "floordiv" else rest
    return None


def _is_below(rest: Dim, limit: Dim, extents: Mapping[str, Dim]) -> bool:
    """Whether 0 <= rest < limit for certain, at every point of axes that are not empty."""
    largest = _largest(rest, extents)
    if largest is None:
        return False
    more = {name: symbol(name) + 1 for name in _positive(extents)}
    if not is_nonnegative(rest):
        opposite = _largest(rest * -1, extents)
        if opposite is None or not is_nonnegative(substitute(opposite * -1, more)):
            return False
    return is_nonnegative(substitute(limit - 1 - largest, more))


def _largest(dim: Dim, extents: Mapping[str, Dim]) -> Dim | None:
    """A bound without axes that the expression never exceeds; None: none is known."""
    bounds: list[Dim] = []
    for axes, factor in _by_axes(dim).items():
        reached: Dim = 1
        for atom in axes:
            bound = _largest_of(atom, extents) if is_nonnegative(as_dim(atom)) else None
            if bound is None:
                return None
            reached = reached * bound
        if is_nonnegative(factor):
            bounds.append(factor * reached)
        elif not axes:
            bounds.append(factor)
        elif not is_nonnegative(factor * -1):
            return None
    return total(bounds)


def _largest_of(atom: Atom, extents: Mapping[str, Dim]) -> Dim | None:
    if isinstance(atom, Symbol):
        if not atom.name.startswith("$"):
            return symbol(atom.name)
        return extents[atom.name] - 1 if atom.name in extents else None
    top, bottom = (_largest(arg, extents) for arg in atom.args)
    divides = atom.fn in ("floordiv", "mod")
    if divides and (bottom != atom.args[1] or not is_nonnegative(bottom)):
        return None  # the divisor moves, or turns the order around
    if atom.fn == "mod":
        return atom.args[1] - 1
    return None if top is None or bottom is None else FUNCTIONS[atom.fn](top, bottom)


def _positive(extents: Mapping[str, Dim]) -> set[str]:
    """Symbols that are no 0 where no axis is empty: factors of an extent."""
    found: set[str] = set()
    for extent in extents.values():
        if isinstance(extent, Sym):
            factors = [set(monomial) for monomial, _ in extent.terms]
            shared = set.intersection(*factors)
            found |= {atom.name for atom in shared if isinstance(atom, Symbol)}
    return found


def _by_symbols(fn: str, top: Sym, bottom: Sym, extents: Mapping[str, Dim]) -> Dim | None:
    """As `_without_rest`, where the divisor is a product of sizes that only a run knows."""
    if _is_below(top, bottom, extents):
        return 0 if fn == "floordiv" else top
    single = len(bottom.terms) == 1
    for g in _common_factors(top, bottom) if single else _sums_in(bottom, extents):
        quotient, rest = _divide(top, g)
        if not _is_below(rest, g, extents):
            continue
        shorter = FUNCTIONS[fn](quotient, floordiv(bottom, g))
        if not single:  # each sum goes by itself, so what is left may have another
            shorter = fold_divisions(shorter, extents)
        return shorter if fn == "floordiv" else shorter * g + rest
    return None


def _sums_in(bottom: Sym, extents: Mapping[str, Dim]) -> Iterator[Sym]:
    """The extents of several terms that divide `bottom`, each once, and then `bottom` itself."""
    for g in dict.fromkeys((*extents.values(), bottom)):
        if isinstance(g, Sym) and len(g.terms) > 1 and floordiv(bottom, g) * g == bottom:
            yield g


def _common_factors(top: Sym, bottom: Sym) -> Iterator[Sym]:
    """What each term of `top` has in common with the one term of `bottom`; each factor once."""
    (divisor, factor) = bottom.terms[0]
    seen: set[tuple[Monomial, int]] = set()
    for monomial, coefficient in top.terms:
        shared = Counter(monomial) & Counter(divisor)
        atoms = tuple(sorted(shared.elements(), key=lambda atom: atom.key))
        found = atoms, math.gcd(coefficient, factor)
        if atoms and found not in seen:
            seen.add(found)
            yield Sym((found,))


def _divide(dim: Dim, by: Sym) -> tuple[Dim, Dim]:
    """(q, r) with dim = by*q + r: q is made of what `by` divides.

    That is single terms where `by` is one, else what stands beside each product of axes.
    """
    if len(by.terms) == 1:
        parts: list[Dim] = [Sym((term,)) if term[0] else term[1] for term in terms_of(dim)]
    else:
        parts = [_times(axes, factor) for axes, factor in _by_axes(dim).items()]
    whole = [part for part in parts if floordiv(part, by) * by == part]
    return total(floordiv(part, by) for part in whole), dim - total(whole)


def _by_axes(dim: Dim) -> dict[Monomial, Dim]:
    """What stands beside each product of axes in a sum, and what stands alone."""
    parts: dict[Monomial, Dim] = {}
    for monomial, coefficient in terms_of(dim):
        axes = tuple(atom for atom in monomial if is_position(as_dim(atom)))
        sizes = tuple(atom for atom in monomial if not is_position(as_dim(atom)))
        parts[axes] = parts.get(axes, 0) + product(map(as_dim, sizes)) * coefficient
    return parts


def _times(axes: Monomial, factor: Dim) -> Dim:
    return product(map(as_dim, axes)) * factor
