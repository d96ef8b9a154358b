"""Dimensions: integers or canonical symbolic integer expressions.

A `Sym` is a polynomial with integer coefficients over atoms; an atom is a named symbol or an
opaque call (`floordiv`, `mod`, `max`, `min`, `broadcast`). Equal forms are one object, so that
comparing, hashing and remembering them costs nothing, however large they are. Operators give an
`int` whenever the result is constant. The same algebra serves shapes and the index expressions of
kernels.

Every symbol stands for an integer >= 0. Expressions of sizes alone are brought to one form: a
remainder is written by its quotient, a minimum by a maximum with 0, a quotient of a quotient is
one. Positions, which use the axes of a kernel (names that begin with "$"), stay as they are
written: what their divisions give depends on extents (`compiler/kernel/index_ranges.py`).
"""

from __future__ import annotations

from .bounds import is_nonnegative
from .broadcast import are_one_together, dbroadcast, is_never_one
from .division import ceildiv, divide_terms, exact_quotient, floordiv, mod, nearest_quotient
from .extrema import dmax, dmin
from .terms import (
    LEGIBLE,
    Atom,
    Call,
    Dim,
    Monomial,
    Sym,
    Symbol,
    as_dim,
    calls_of,
    coefficient,
    has_calls,
    in_order,
    is_position,
    legible,
    order_key,
    product,
    size_of,
    symbol,
    symbols_of,
    terms_of,
    total,
)
from .walks import FUNCTIONS, all_calls, estimate, evaluate, map_atoms, substitute

__all__ = [
    "FUNCTIONS", "LEGIBLE", "Atom", "Call", "Dim", "Monomial", "Sym", "Symbol", "all_calls",
    "are_one_together", "as_dim", "calls_of", "ceildiv", "coefficient", "dbroadcast",
    "divide_terms", "dmax", "dmin", "estimate", "evaluate", "exact_quotient", "floordiv",
    "has_calls", "in_order", "is_never_one", "is_nonnegative", "is_position", "legible",
    "map_atoms", "mod", "nearest_quotient", "order_key", "product", "size_of", "substitute",
    "symbol", "symbols_of", "terms_of", "total",
]  # fmt: skip
