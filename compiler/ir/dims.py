"""Dimensions: integers or canonical symbolic integer expressions.

A `Sym` is a polynomial with integer coefficients over atoms; an atom is a named symbol or an
opaque call (`floordiv`, `mod`, `max`, `min`, `broadcast`). Two expressions are equal when their
canonical forms are. Operators give an `int` whenever the result is constant. The same algebra
serves shapes and the index expressions of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..errors import InternalError


@dataclass(frozen=True, order=True)
class Symbol:
    """A named integer unknown."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Call:
    """An opaque function of two expressions, one of `FUNCTIONS`."""

    fn: str
    args: tuple[Dim, Dim]

    def __str__(self) -> str:
        return f"{self.fn}({self.args[0]}, {self.args[1]})"


Atom = Symbol | Call
Monomial = tuple[Atom, ...]  # sorted by text; () is the constant term


class Sym:
    """An immutable polynomial: monomial -> non-zero coefficient, never a constant."""

    __slots__ = ("__dict__", "terms")

    def __init__(self, terms: tuple[tuple[Monomial, int], ...]) -> None:
        self.terms = terms

    @cached_property
    def _hash(self) -> int:
        return hash(self.terms)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sym) and (self is other or self.terms == other.terms)

    def __add__(self, other: Dim) -> Dim:
        out = dict(self.terms)
        for mono, coef in _terms(other):
            out[mono] = out.get(mono, 0) + coef
        return _make(out)

    def __mul__(self, other: Dim) -> Dim:
        out: dict[Monomial, int] = {}
        for mono_a, a in self.terms:
            for mono_b, b in _terms(other):
                mono = tuple(sorted(mono_a + mono_b, key=str))
                out[mono] = out.get(mono, 0) + a * b
        return _make(out)

    def __neg__(self) -> Dim:
        return self * -1

    def __sub__(self, other: Dim) -> Dim:
        return self + (other * -1)

    def __rsub__(self, other: Dim) -> Dim:
        return (self * -1) + other

    __radd__ = __add__
    __rmul__ = __mul__

    def __str__(self) -> str:
        text = ""
        for mono, coef in self.terms:
            factors = [str(atom) for atom in mono]
            if abs(coef) != 1 or not factors:
                factors.insert(0, str(abs(coef)))
            sign = ("-" if coef < 0 else "") if not text else (" - " if coef < 0 else " + ")
            text += sign + "*".join(factors)
        return text

    def __repr__(self) -> str:
        return f"Sym({self})"


Dim = int | Sym


def _terms(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    if isinstance(dim, Sym):
        return dim.terms
    return (((), int(dim)),) if dim else ()


def _order(mono: Monomial) -> tuple[int, str]:
    return (-len(mono), "*".join(map(str, mono)))


def _make(terms: Mapping[Monomial, int]) -> Dim:
    kept = {mono: coef for mono, coef in terms.items() if coef}
    if not kept:
        return 0
    if len(kept) == 1 and () in kept:
        return kept[()]
    return Sym(tuple(sorted(kept.items(), key=lambda item: _order(item[0]))))


def symbol(name: str) -> Sym:
    """The expression that is the one unknown `name`."""
    return Sym((((Symbol(name),), 1),))


def _call(fn: str, a: Dim, b: Dim) -> Dim:
    return Sym((((Call(fn, (a, b)),), 1),))


def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b, rounding down. Terms that b divides are taken out of the call.

    Raises InternalError for a constant divisor of zero.
    """
    if isinstance(b, int):
        if b == 0:
            raise InternalError("division of a dimension by zero")
        if isinstance(a, int):
            return a // b
        if b == 1:
            return a
        whole, rest = divide_terms(a, b)
        if isinstance(rest, int):
            return whole + rest // b
        return whole + _call("floordiv", rest, b)
    if a == b:
        return 1
    if a == 0:
        return 0
    quotient = _exact_quotient(a, b)
    return quotient if quotient is not None else _call("floordiv", a, b)


def divide_terms(a: Dim, b: int) -> tuple[Dim, Dim]:
    """(q, r) with a = b*q + r: q is made of the terms whose coefficient b divides."""
    whole = _make({m: c // b for m, c in _terms(a) if c % b == 0})
    return whole, _make({m: c for m, c in _terms(a) if c % b})


def _exact_quotient(a: Dim, b: Sym) -> Dim | None:
    """a / b where b is one monomial that divides every term of a, else None."""
    if len(b.terms) != 1 or isinstance(a, int):
        return None
    divisor, coef_b = b.terms[0]
    out: dict[Monomial, int] = {}
    for mono, coef in a.terms:
        left = list(mono)
        for atom in divisor:
            if atom not in left:
                return None
            left.remove(atom)
        if coef % coef_b:
            return None
        out[tuple(left)] = coef // coef_b
    return _make(out)


def mod(a: Dim, b: Dim) -> Dim:
    """a mod b with the sign of b, as in Python."""
    if isinstance(b, int):
        if isinstance(a, int):
            return a % b
        if b == 1:
            return 0
        rest = _make({m: c % b for m, c in a.terms})
        return rest % b if isinstance(rest, int) else _call("mod", rest, b)
    if a in (b, 0) or (_exact_quotient(a, b) is not None):
        return 0
    return _call("mod", a, b)


def ceildiv(a: Dim, b: Dim) -> Dim:
    """a / b, rounding up."""
    return floordiv(a + b - 1, b)


def dmax(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions."""
    difference = a - b
    if isinstance(difference, int):
        return a if difference >= 0 else b
    return _call("max", *sorted((a, b), key=str))


def dmin(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions."""
    difference = a - b
    if isinstance(difference, int):
        return a if difference <= 0 else b
    return _call("min", *sorted((a, b), key=str))


def dbroadcast(a: Dim, b: Dim) -> Dim:
    """The size of an axis that two sizes broadcast to: they are equal, or one of them is 1.

    A size that cannot be 1 is the result; where neither can be, both are it and one is taken, as
    of two that are 1 together. The larger stands for sizes that do not broadcast.
    """
    if isinstance(a, int) and isinstance(b, int):
        return b if a == 1 else a if b == 1 else max(a, b)
    parts: dict[Dim, Dim] = {}
    for part in (*_broadcast_parts(a), *_broadcast_parts(b)):
        same = _unlimited(part)
        parts[same] = part if parts.get(same, part) == part else same
    parts.pop(1, None)
    ordered = sorted(parts.values(), key=lambda dim: (not isinstance(dim, int), str(dim)))
    fixed = next((dim for dim in ordered if is_never_one(dim)), None)
    if fixed is not None:
        return fixed
    result = ordered.pop()
    while ordered:
        result = _call("broadcast", ordered.pop(), result)
    return result


def _broadcast_parts(dim: Dim) -> tuple[Dim, ...]:
    """The sizes of which a dim is the broadcast."""
    call = _only_call(dim)
    if call is None or call.fn != "broadcast":
        return (dim,)
    return (call.args[0], *_broadcast_parts(call.args[1]))


def _only_call(dim: Dim) -> Call | None:
    """The call that a dim is, else None."""
    if isinstance(dim, Sym) and len(dim.terms) == 1:
        mono, coef = dim.terms[0]
        if coef == 1 and len(mono) == 1 and isinstance(mono[0], Call):
            return mono[0]
    return None


def is_never_one(dim: Dim) -> bool:
    """Whether the expression is certainly not 1, all symbols being >= 0."""
    if isinstance(dim, int):
        return dim != 1
    constant = sum(coef for mono, coef in dim.terms if not mono)
    factor = math.gcd(*(coef for mono, coef in dim.terms if mono))
    return (1 - constant) % factor != 0 or (constant > 1 and is_nonnegative(dim - constant))


def are_one_together(a: Dim, b: Dim) -> bool:
    """Whether one expression is 1 just when the other is, as far as their form tells."""
    return _unlimited(a) == _unlimited(b)


def _unlimited(dim: Dim) -> Dim:
    """The x of min(x, limit) where the limit is never 1 nor less: it is 1 just when that is."""
    call = _only_call(dim)
    if call is None or call.fn != "min":
        return dim
    numbers = [arg for arg in call.args if isinstance(arg, int)]
    return (
        next(arg for arg in call.args if arg not in numbers) if min(numbers, default=0) > 1 else dim
    )


FUNCTIONS: dict[str, Callable[[Dim, Dim], Dim]] = {
    "floordiv": floordiv,
    "mod": mod,
    "max": dmax,
    "min": dmin,
    "broadcast": dbroadcast,
}


def symbols_of(dim: Dim) -> frozenset[str]:
    """Names of all symbols that the expression depends on."""
    if isinstance(dim, int):
        return frozenset()
    names: set[str] = set()
    for mono, _ in dim.terms:
        for atom in mono:
            if isinstance(atom, Symbol):
                names.add(atom.name)
            else:
                names |= symbols_of(atom.args[0]) | symbols_of(atom.args[1])
    return frozenset(names)


def substitute(dim: Dim, values: Mapping[str, Dim]) -> Dim:
    """The expression with symbols replaced by dims; names not in `values` stay."""

    def change(atom: Atom) -> Dim:
        if isinstance(atom, Symbol):
            return values.get(atom.name, symbol(atom.name))
        args = [substitute(arg, values) for arg in atom.args]
        return FUNCTIONS[atom.fn](args[0], args[1])

    return map_atoms(dim, change)


def map_atoms(dim: Dim, change: Callable[[Atom], Dim]) -> Dim:
    """The expression with every atom replaced by what `change` makes of it."""
    if isinstance(dim, int):
        return dim
    total: Dim = 0
    for mono, coef in dim.terms:
        term: Dim = coef
        for atom in mono:
            term = term * change(atom)
        total = total + term
    return total


def evaluate(dim: Dim, values: Mapping[str, int]) -> int:
    """The number that the expression has for the given symbols.

    Raises InternalError when a symbol has no value.
    """
    result = substitute(dim, values)
    if not isinstance(result, int):
        missing = sorted(symbols_of(result))
        raise InternalError(f"no value for the symbolic dimension(s) {missing} in '{dim}'")
    return result


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims; 1 for none."""
    return math.prod(dims, start=1)


def coefficient(dim: Dim, name: str) -> Dim | None:
    """The factor of symbol `name` if the expression is affine in it, else None.

    Example: coefficient(4*i*n + j, "i") == 4*n.
    """
    out: dict[Monomial, int] = {}
    for mono, coef in _terms(dim):
        uses = [a for a in mono if isinstance(a, Symbol) and a.name == name]
        others = tuple(a for a in mono if not (isinstance(a, Symbol) and a.name == name))
        if any(name in symbols_of(_make({(atom,): 1})) for atom in others) or len(uses) > 1:
            return None
        if uses:
            out[others] = out.get(others, 0) + coef
    return _make(out)


def is_nonnegative(dim: Dim) -> bool:
    """Whether the expression is certainly >= 0, all symbols being >= 0."""
    if isinstance(dim, int):
        return dim >= 0
    return all(coef >= 0 and all(_atom_nonnegative(a) for a in mono) for mono, coef in dim.terms)


def _atom_nonnegative(atom: Atom) -> bool:
    if isinstance(atom, Symbol):
        return True
    a, b = atom.args
    if atom.fn == "max":
        return is_nonnegative(a) or is_nonnegative(b)
    return is_nonnegative(a) and is_nonnegative(b)
