"""Proofs that an expression is not negative, all symbols being >= 0."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from zlib import crc32

from .terms import MEMO, Call, Dim, Monomial, Sym, Symbol, make

MAX_STEPS = 24  # bounds that one proof may try
MAX_TERMS = 12  # of the expressions that it looks into
_RANGES = (1, 2, 3, 8, 50, 4000)  # symbols are below that at each of the points that are tried
Sample = int | None  # None: not defined


@lru_cache(MEMO)
def is_nonnegative(dim: Dim) -> bool:
    """Whether the expression is certainly >= 0, all symbols being >= 0; False: not known.

    Where the coefficients alone do not say so, quotients are replaced by their linear bounds
    and maxima and minima by their alternatives. Most of what does not hold fails at some points
    first.
    """
    if isinstance(dim, int):
        return dim >= 0
    return all(value is None or value >= 0 for value in _samples(dim)) and _Proof().holds(dim)


@lru_cache(MEMO)
def _samples(dim: Dim) -> tuple[Sample, ...]:
    """The values of an expression at some points, the same in every process."""
    if isinstance(dim, int):
        return (dim,) * len(_RANGES)
    sums: list[Sample] = [0] * len(_RANGES)
    for mono, coef in dim.terms:
        factors = [_atom_samples(atom) for atom in mono]
        for point, before in enumerate(sums):
            term: Sample = coef
            for factor in factors:
                value = factor[point]
                term = None if term is None or value is None else term * value
            sums[point] = None if term is None or before is None else before + term
    return tuple(sums)


@lru_cache(MEMO)
def _atom_samples(atom: Symbol | Call) -> tuple[Sample, ...]:
    if isinstance(atom, Symbol):
        number = crc32(atom.name.encode())
        return tuple(number // (point + 1) % limit for point, limit in enumerate(_RANGES))
    return tuple(
        None if a is None or b is None else _sample(atom.fn, a, b)
        for a, b in zip(*map(_samples, atom.args), strict=True)
    )


def _sample(fn: str, a: int, b: int) -> Sample:
    if fn in ("max", "min"):
        return max(a, b) if fn == "max" else min(a, b)
    if fn == "broadcast":
        return b if a == 1 else a if b == 1 else max(a, b)
    if b <= 0:
        return None
    return a // b if fn == "floordiv" else a % b


@lru_cache(MEMO)
def _call_is_nonnegative(call: Call) -> bool:
    a, b = call.args
    if call.fn == "max":
        return is_nonnegative(a) or is_nonnegative(b)
    if call.fn == "mod":
        return is_nonnegative(b)
    return is_nonnegative(a) and is_nonnegative(b)


def _product_is_nonnegative(mono: Monomial) -> bool:
    return all(isinstance(atom, Symbol) or _call_is_nonnegative(atom) for atom in mono)


class _Proof:
    """One attempt; `steps`: how many more bounds it may try."""

    def __init__(self) -> None:
        self.steps = MAX_STEPS

    def holds(self, dim: Dim) -> bool:
        """Whether `dim` is found to be >= 0."""
        if isinstance(dim, int):
            return dim >= 0
        low = [mono for mono, coef in dim.terms if coef < 0]
        if all(map(_product_is_nonnegative, (mono for mono, _ in dim.terms))):
            if not low:
                return True
            if len(low) == len(dim.terms):
                return False
        if len(dim.terms) > MAX_TERMS:
            return False
        calls = dict.fromkeys(a for mono, _ in dim.terms for a in mono if isinstance(a, Call))
        return any(self._holds_without(dim, call) for call in calls)

    def _holds_without(self, dim: Sym, call: Call) -> bool:
        """Whether that follows from what is known of one call, `dim` being affine in it."""
        self.steps -= 1
        if self.steps < 0:
            return False
        inside = {mono: coef for mono, coef in dim.terms if call in mono}
        cofactors = {_less(mono, call): coef for mono, coef in inside.items()}
        if any(call in mono for mono in cofactors):
            return False
        factor = make(cofactors)
        rest = make({mono: coef for mono, coef in dim.terms if mono not in inside})
        if not all(map(_product_is_nonnegative, cofactors)):
            sign = 0
        else:
            signs = {coef > 0 for coef in cofactors.values()}
            sign = 0 if len(signs) > 1 else 1 if signs == {True} else -1
        if call.fn in ("max", "min", "broadcast"):  # it is one of the two
            options = (self.holds(rest + factor * arg) for arg in call.args)
            either = sign == {"max": 1, "min": -1}.get(call.fn)
            return any(options) if either else all(options)
        return bool(sign) and any(map(self.holds, _bounds(call, factor, rest, sign)))


def _less(mono: Monomial, call: Call) -> Monomial:
    place = mono.index(call)
    return mono[:place] + mono[place + 1 :]


def _bounds(call: Call, factor: Dim, rest: Dim, sign: int) -> Iterator[Dim]:
    """Expressions one of which being >= 0 makes rest + factor * call so; factor has the sign."""
    a, b = call.args
    if call.fn == "mod":
        if is_nonnegative(b):
            yield rest if sign > 0 else rest + factor * (b - 1)
        return
    if isinstance(b, int) and b > 0:
        # a multiple of b that is more than -b is not negative
        yield rest * b + factor * (a - b + 1 if sign > 0 else a) + b - 1
    elif factor == b:
        yield rest + a - b + 1
    elif factor == b * -1:
        yield rest - a
    if is_nonnegative(a) and is_nonnegative(b):  # then the quotient is from 0 to a
        yield rest if sign > 0 else rest + factor * a
