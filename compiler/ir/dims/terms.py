"""Polynomials over atoms: how they are made, ordered and printed, and their sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakValueDictionary

MEMO = 1 << 16  # results that each function remembers
K = TypeVar("K")
V = TypeVar("V")
LEGIBLE = 100  # terms and factors of an expression that is shown to people
AXIS = "$"  # the names of a kernel's axes begin with it


class Symbol:
    """A named integer unknown, >= 0. Equal names, one object."""

    __slots__ = ("__weakref__", "key", "name", "symbols")

    key: tuple[Any, ...]
    name: str
    size = 1
    symbols: frozenset[str]

    def __new__(cls, name: str) -> Symbol:
        return _shared(_symbols, name, partial(cls._make, name))

    @classmethod
    def _make(cls, name: str) -> Symbol:
        self = object.__new__(cls)
        self.name, self.key, self.symbols = name, (name,), frozenset({name})
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Symbol, (self.name,)

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Symbol({self.name})"


class Call:
    """An opaque function of two expressions, one of `FUNCTIONS`."""

    __slots__ = ("__weakref__", "args", "fn", "key", "size", "symbols")

    args: tuple[Dim, Dim]
    fn: str
    key: tuple[Any, ...]
    size: int
    symbols: frozenset[str]

    def __new__(cls, fn: str, args: tuple[Dim, Dim]) -> Call:
        return _shared(_calls, (fn, args), partial(cls._make, fn, args))

    @classmethod
    def _make(cls, fn: str, args: tuple[Dim, Dim]) -> Call:
        self = object.__new__(cls)
        self.fn, self.args = fn, args
        self.size = 1 + sum(map(size_of, args))
        self.key = (fn, self.size, *map(order_key, args))
        self.symbols = symbols_of(args[0]) | symbols_of(args[1])
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Call, (self.fn, self.args)

    def __str__(self) -> str:
        return f"{self.fn}({self.args[0]}, {self.args[1]})"

    __repr__ = __str__


Atom = Symbol | Call
Monomial = tuple[Atom, ...]  # in the order of keys; () is the constant term
Terms = tuple[tuple[Monomial, int], ...]


class Sym:
    """An immutable polynomial: monomial -> non-zero coefficient, never a constant.

    terms: products of more atoms first, then in the order of names, smaller calls before larger.
    """

    __slots__ = ("__weakref__", "key", "size", "symbols", "terms")

    key: tuple[Any, ...]
    size: int
    symbols: frozenset[str]
    terms: Terms

    def __new__(cls, terms: Terms) -> Sym:
        return _shared(_syms, terms, partial(cls._make, terms))

    @classmethod
    def _make(cls, terms: Terms) -> Sym:
        self = object.__new__(cls)
        self.terms = terms
        self.key = tuple((*_order(mono), coef) for mono, coef in terms)
        self.symbols = frozenset().union(*(atom.symbols for mono, _ in terms for atom in mono))
        self.size = sum(1 + sum(atom.size for atom in mono) for mono, _ in terms)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Sym, (self.terms,)

    def __add__(self, other: Dim) -> Dim:
        return _add(self, other)

    def __mul__(self, other: Dim) -> Dim:
        return _multiply(self, other)

    def __neg__(self) -> Dim:
        return _multiply(self, -1)

    def __sub__(self, other: Dim) -> Dim:
        return _add(self, other * -1)

    def __rsub__(self, other: Dim) -> Dim:
        return _add(_multiply(self, -1), other)

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

_symbols: WeakValueDictionary[str, Symbol] = WeakValueDictionary()
_calls: WeakValueDictionary[tuple[str, tuple[Dim, Dim]], Call] = WeakValueDictionary()
_syms: WeakValueDictionary[Terms, Sym] = WeakValueDictionary()
_making = Lock()


def _shared(known: WeakValueDictionary[K, V], key: K, create: Callable[[], V]) -> V:
    """The one object for a key, created when there is none."""
    found = known.get(key)
    if found is None:
        created = create()
        with _making:
            found = known.setdefault(key, created)
    return found


def order_key(dim: Dim) -> tuple[Any, ...]:
    """What orders dims, numbers last: the same in every process."""
    return dim.key if isinstance(dim, Sym) else ((0, (), dim),)


@lru_cache(MEMO)
def _order(mono: Monomial) -> tuple[int, tuple[Any, ...]]:
    return -len(mono), tuple(atom.key for atom in mono)


def size_of(dim: Dim) -> int:
    """Terms and factors of an expression, those of calls inside it included."""
    return dim.size if isinstance(dim, Sym) else 1


def legible(dim: Dim) -> str:
    """An expression for people; of a long one what it is computed from."""
    if size_of(dim) <= LEGIBLE:
        return str(dim)
    names = sorted(symbols_of(dim))
    return f"a size computed from {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def in_order(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Two dims in the order of their keys."""
    return (a, b) if order_key(a) <= order_key(b) else (b, a)


def terms_of(dim: Dim) -> Terms:
    """The terms of an expression; those of 0 are none."""
    if isinstance(dim, Sym):
        return dim.terms
    return (((), int(dim)),) if dim else ()


def make(terms: Mapping[Monomial, int]) -> Dim:
    """The dim with the given terms, of which coefficients may be 0."""
    kept = [item for item in terms.items() if item[1]]
    if not kept:
        return 0
    if len(kept) == 1:
        if not kept[0][0]:
            return kept[0][1]
        return Sym((kept[0],))
    return Sym(tuple(sorted(kept, key=lambda item: _order(item[0]))))


@lru_cache(MEMO)
def _add(a: Dim, b: Dim) -> Dim:
    out = dict(terms_of(a))
    for mono, coef in terms_of(b):
        out[mono] = out.get(mono, 0) + coef
    return make(out)


@lru_cache(MEMO)
def _multiply(a: Dim, b: Dim) -> Dim:
    out: dict[Monomial, int] = {}
    for mono_a, coef_a in terms_of(a):
        for mono_b, coef_b in terms_of(b):
            mono = mono_a + mono_b
            if mono_a and mono_b:
                mono = tuple(sorted(mono, key=lambda atom: atom.key))
            out[mono] = out.get(mono, 0) + coef_a * coef_b
    return make(out)


def total(dims: Iterable[Dim]) -> Dim:
    """The sum of dims."""
    out: dict[Monomial, int] = {}
    for dim in dims:
        for mono, coef in terms_of(dim):
            out[mono] = out.get(mono, 0) + coef
    return make(out)


def product(dims: Iterable[Dim]) -> Dim:
    """The product of dims; 1 for none."""
    return math.prod(dims, start=1)


def as_dim(atom: Atom) -> Sym:
    """The expression that is the one atom."""
    return Sym((((atom,), 1),))


def calls_of(call: Call) -> list[Call]:
    """The calls that a call's arguments are made of, not those inside them."""
    found = (atom for arg in call.args for mono, _ in terms_of(arg) for atom in mono)
    return [atom for atom in found if isinstance(atom, Call)]


def as_call(dim: Dim) -> Call | None:
    """The one call that a dim is, else None."""
    if isinstance(dim, Sym) and len(dim.terms) == 1:
        mono, coef = dim.terms[0]
        if coef == 1 and len(mono) == 1 and isinstance(mono[0], Call):
            return mono[0]
    return None


def symbol(name: str) -> Sym:
    """The expression that is the one unknown `name`."""
    return as_dim(Symbol(name))


def symbols_of(dim: Dim) -> frozenset[str]:
    """Names of all symbols that the expression depends on."""
    return dim.symbols if isinstance(dim, Sym) else frozenset()


@lru_cache(MEMO)
def has_calls(dim: Dim) -> bool:
    """Whether the expression has a call in it: it is no polynomial in its symbols."""
    return any(isinstance(atom, Call) for mono, _ in terms_of(dim) for atom in mono)


@lru_cache(MEMO)
def is_position(dim: Dim) -> bool:
    """Whether the expression uses an axis of a kernel."""
    return any(name.startswith(AXIS) for name in symbols_of(dim))


@lru_cache(MEMO)
def coefficient(dim: Dim, name: str) -> Dim | None:
    """The factor of symbol `name` if the expression is affine in it, else None.

    Example: coefficient(4*i*n + j, "i") == 4*n.
    """
    if name not in symbols_of(dim):
        return 0
    out: dict[Monomial, int] = {}
    for mono, coef in terms_of(dim):
        others = tuple(a for a in mono if not (isinstance(a, Symbol) and a.name == name))
        if any(name in atom.symbols for atom in others) or len(mono) - len(others) > 1:
            return None
        if len(others) < len(mono):
            out[others] = out.get(others, 0) + coef
    return make(out)
