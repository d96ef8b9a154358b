"""Quotients and remainders of expressions, rounded down, in one form.

With x // y for floor(x / y): the coefficients of a numerator are those nearest to 0, and the first
of them is positive (-x // b = -((x + b - 1) // b)); a common factor of numerator and divisor goes;
(x // c + r) // b = (x + c*r) // (b*c); what the divisor divides is taken out; and the remainder of
x by b is x - b*(x // b), so that a size and what it lacks to the next multiple add up to that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from ...errors import InternalError
from .terms import MEMO, Call, Dim, Monomial, Sym, as_dim, is_position, make, terms_of

_MAX_DIVISOR = 1 << 20  # of nested quotients made one: numerators grow by as much
_MAX_TERMS = 64  # of the quotient of two polynomials


@lru_cache(MEMO)
def floordiv(a: Dim, b: Dim) -> Dim:
    """a // b, rounding down. What b divides is taken out of the call.

    Raises InternalError for a constant divisor of zero.
    """
    if isinstance(b, int):
        if b == 0:
            raise InternalError("division of a dimension by zero")
        if isinstance(a, int):
            return a // b
        if b == 1:
            return a
        return _by_number(a, b)
    if isinstance(a, int):
        return 0 if a == 0 else as_dim(Call("floordiv", (a, b)))
    exact = _polynomial_quotient(a, b)
    if exact is not None:
        return exact
    if len(b.terms) > 1:
        return as_dim(Call("floordiv", (a, b)))
    whole, rest = _divide_by_monomial(a, b)
    return whole if rest == 0 else whole + as_dim(Call("floordiv", (rest, b)))


def mod(a: Dim, b: Dim) -> Dim:
    """a mod b with the sign of b, as in Python; of sizes, a - b*(a // b)."""
    if isinstance(a, int) and isinstance(b, int):
        return a % b
    if not (is_position(a) or is_position(b)):
        return a - floordiv(a, b) * b
    if isinstance(b, int):
        rest = make({m: c % b for m, c in terms_of(a)})
        return rest % b if isinstance(rest, int) else as_dim(Call("mod", (rest, b)))
    if a == 0 or (isinstance(a, Sym) and _polynomial_quotient(a, b) is not None):
        return 0
    return as_dim(Call("mod", (a, b)))


def ceildiv(a: Dim, b: Dim) -> Dim:
    """a / b, rounding up."""
    return floordiv(a + b - 1, b)


def divide_terms(a: Dim, b: int) -> tuple[Dim, Dim]:
    """(q, r) with a = b*q + r: q is made of the terms whose coefficient b divides."""
    whole = make({m: c // b for m, c in terms_of(a) if c % b == 0})
    return whole, make({m: c for m, c in terms_of(a) if c % b})


def _by_number(a: Sym, b: int) -> Dim:
    """a // b for a number other than 0 and 1."""
    if is_position(a):
        whole, rest = divide_terms(a, b)
        if isinstance(rest, int):
            return whole + rest // b
        return whole + as_dim(Call("floordiv", (rest, b)))
    if b < 0:
        return floordiv(a * -1, -b)
    whole, rest = _nearest(a, b)
    if isinstance(rest, int):
        return whole
    if rest.terms[0][1] < 0:
        more, rest = _nearest(b - 1 - rest, b)
        assert isinstance(rest, Sym)
        return whole - more - _reduced(rest, b)
    return whole + _reduced(rest, b)


def _nearest(a: Dim, b: int) -> tuple[Dim, Dim]:
    """(q, r) with a = b*q + r, coefficients of r in (-b/2, b/2] and its constant in [0, b)."""
    quotient: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    for mono, coef in terms_of(a):
        quotient[mono] = -((b - 2 * coef) // (2 * b)) if mono else coef // b
        rest[mono] = coef - b * quotient[mono]
    return make(quotient), make(rest)


def _reduced(a: Sym, b: int) -> Dim:
    """a // b with the common factor gone and an inner quotient merged."""
    common = math.gcd(b, *(coef for mono, coef in a.terms if mono))
    if common > 1:
        smaller = make({mono: coef // common for mono, coef in a.terms})
        return floordiv(smaller, b // common)
    inner = [
        (mono[0], coef)
        for mono, coef in a.terms
        if len(mono) == 1 and isinstance(mono[0], Call) and mono[0].fn == "floordiv"
    ]
    if len(inner) == 1 and abs(inner[0][1]) == 1:
        call, coef = inner[0]
        top, divisor = call.args
        if isinstance(divisor, int) and b * divisor <= _MAX_DIVISOR:
            rest = a - as_dim(call) * coef
            numerator = top if coef > 0 else divisor - 1 - top
            return floordiv(numerator + rest * divisor, b * divisor)
    return as_dim(Call("floordiv", (a, b)))


def _divide_by_monomial(a: Sym, b: Sym) -> tuple[Dim, Dim]:
    """(q, r) with a = b*q + r: q is made of the terms that the one term of b divides."""
    whole: dict[Monomial, int] = {}
    rest: dict[Monomial, int] = {}
    divisor, by = b.terms[0]
    for mono, coef in a.terms:
        left = _without(mono, divisor)
        if left is None or coef % by:
            rest[mono] = coef
        else:
            whole[left] = coef // by
    return make(whole), make(rest)


def _without(mono: Monomial, factors: Monomial) -> Monomial | None:
    """The product less some of its factors; None when they are not all in it."""
    left = list(mono)
    for atom in factors:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)


def exact_quotient(a: Dim, b: Dim) -> Dim | None:
    """The q with a = b*q whatever the symbols are, else None; None for a constant b of zero."""
    if isinstance(b, int):
        whole, rest = divide_terms(a, b) if b else (0, 1)
        return whole if rest == 0 else None
    if isinstance(a, int):
        return 0 if a == 0 else None
    return _polynomial_quotient(a, b)


def _polynomial_quotient(a: Sym, b: Sym) -> Dim | None:
    """a / b where b divides a as a polynomial, else None."""
    if a is b:
        return 1
    first, by = b.terms[0]
    quotient: dict[Monomial, int] = {}
    rest: Dim = a
    while rest != 0:
        mono, coef = terms_of(rest)[0]
        left = _without(mono, first)
        if left is None or coef % by or len(quotient) >= _MAX_TERMS or left in quotient:
            return None
        quotient[left] = coef // by
        rest = rest - make({left: coef // by}) * b
    return make(quotient)


def nearest_quotient(a: Dim, b: Dim) -> Dim:
    """A q that leaves a - b*q without terms that the first term of b divides, but for those
    whose coefficients are at most half as large; b is not 0."""
    first, by = terms_of(b)[0]
    quotient: Dim = 0
    for _ in range(_MAX_TERMS):
        step = next(_nearest_terms(a - b * quotient, first, by), None)
        if step is None:
            break
        quotient = quotient + step
    return quotient


def _nearest_terms(a: Dim, first: Monomial, by: int) -> Iterator[Dim]:
    """For each term of a that is nearer to a multiple of first*by other than 0: the factor."""
    for mono, coef in terms_of(a):
        left = _without(mono, first)
        times = -((by - 2 * coef) // (2 * by))
        if left is not None and times:
            yield make({left: times})
