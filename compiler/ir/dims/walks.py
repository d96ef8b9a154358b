"""Functions that go through an expression: substitution, evaluation, estimates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache

from ...errors import InternalError
from .broadcast import dbroadcast
from .division import floordiv, mod
from .extrema import dmax, dmin
from .terms import MEMO, Atom, Call, Dim, Symbol, legible, symbol, total

FUNCTIONS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv,
    "mod": mod,
    "max": dmax,
    "min": dmin,
    "broadcast": dbroadcast,
}


def map_atoms(dim: Dim, change: Callable[[Atom], Dim]) -> Dim:
    """The expression with every atom replaced by what `change` makes of it."""
    if isinstance(dim, int):
        return dim
    terms = []
    for mono, coef in dim.terms:
        term: Dim = coef
        for atom in mono:
            term = term * change(atom)
        terms.append(term)
    return total(terms)


def all_calls(dims: Iterable[Dim]) -> list[Call]:
    """Every call in the expressions, those inside others too, each once."""
    found: dict[Call, None] = {}

    def note(dim: Dim) -> None:
        for monomial, _ in () if isinstance(dim, int) else dim.terms:
            for atom in monomial:
                if isinstance(atom, Call) and atom not in found:
                    found[atom] = None
                    for arg in atom.args:
                        note(arg)

    for dim in dims:
        note(dim)
    return list(found)


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The expression with symbols replaced by dims; names not in `values` stay."""
    done: dict[Atom, Dim] = {}

    def change(atom: Atom) -> Dim:
        if atom not in done:
            done[atom] = changed(atom)
        return done[atom]

    def changed(atom: Atom) -> Dim:
        if isinstance(atom, Symbol):
            return values.get(atom.name, symbol(atom.name))
        a, b = (replaced(arg) for arg in atom.args)
        return FUNCTIONS[atom.fn](a, b)

    def replaced(part: Dim) -> Dim:
        if isinstance(part, int) or part.symbols.isdisjoint(values):
            return part
        return map_atoms(part, change)

    return replaced(dim)


_NUMBERS: dict[str, Callable[[int, int], int]] = {
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "max": max,
    "min": min,
    "broadcast": lambda a, b: b if a == 1 else a if b == 1 else max(a, b),
}


class _Evaluation:
    """Values of expressions, each call computed once."""

    def __init__(self, value: Callable[[str], int], call: Callable[[str, int, int], int]) -> None:
        self.value = value
        self.call = call
        self.done: dict[Call, int] = {}

    def of(self, dim: Dim) -> int:
        """The value of an expression."""
        if isinstance(dim, int):
            return dim
        result = 0
        for mono, coef in dim.terms:
            for atom in mono:
                coef *= self.value(atom.name) if isinstance(atom, Symbol) else self.at(atom)
            result += coef
        return result

    def at(self, call: Call) -> int:
        """The value of a call."""
        if call not in self.done:
            a, b = map(self.of, call.args)
            self.done[call] = self.call(call.fn, a, b)
        return self.done[call]


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The number that the expression has for the given symbols.

    Raises InternalError when a symbol has no value, and for a division by zero.
    """
    if isinstance(dim, int):
        return dim
    missing = sorted(dim.symbols - values.keys())
    if missing:
        raise InternalError(f"no value for the symbolic dimension(s) {missing} in '{legible(dim)}'")
    return _Evaluation(values.__getitem__, _computed).of(dim)


def _computed(fn: str, a: int, b: int) -> int:
    if b == 0 and fn in ("floordiv", "mod"):
        raise InternalError("division of a dimension by zero")
    return _NUMBERS[fn](a, b)


@lru_cache(MEMO)
def estimate(dim: Dim, typical: int) -> int:
    """About how large a size is while every symbol has a typical value; at least 1.

    It only ever decides between ways to compute: no formula is right for a size that was made up
    (a signal may be shorter than the windows that are cut from it), so that none is trusted.
    """
    if isinstance(dim, int):
        return max(1, dim)
    return max(1, _Evaluation(lambda _: typical, _guessed).of(dim))


def _guessed(fn: str, a: int, b: int) -> int:
    if fn in ("floordiv", "mod"):
        return a // b if b > 0 else max(a, 1)
    return _NUMBERS[fn](a, b)
