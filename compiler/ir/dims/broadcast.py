"""The size that two sizes broadcast to, any of which may turn out to be 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from zlib import crc32

from .bounds import is_nonnegative
from .terms import MEMO, Atom, Call, Dim, Symbol, as_call, as_dim, in_order, order_key, terms_of

_BITS = 32  # of the numbers that stand for sizes


@lru_cache(MEMO)
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
    ordered = sorted(parts.values(), key=lambda dim: (not isinstance(dim, int), order_key(dim)))
    fixed = next((dim for dim in ordered if is_never_one(dim)), None)
    if fixed is not None:
        return fixed
    return _joined(ordered, 0)


def _joined(sizes: Sequence[Dim], place: int) -> Dim:
    """The broadcast of different sizes, which begin with the same `place` bits.

    Bit by bit they go to either side, so that sets of sizes that differ in one have all but a few
    calls in common, and those that meet in a chain are not told again at each of its links.
    """
    if len(sizes) == 1:
        return sizes[0]
    if place == _BITS:
        first, *others = sizes
        return _call(first, _joined(others, place))
    sides: tuple[list[Dim], list[Dim]] = ([], [])
    for size in sizes:
        sides[_number(size) >> place & 1].append(size)
    if not (sides[0] and sides[1]):
        return _joined(sizes, place + 1)
    return _call(*(_joined(side, place + 1) for side in sides))


def _call(a: Dim, b: Dim) -> Dim:
    return as_dim(Call("broadcast", in_order(a, b)))


@lru_cache(MEMO)
def _number(of: Dim | Atom) -> int:
    """What stands for an expression, the same in every process."""
    if isinstance(of, Symbol):
        text = of.name
    elif isinstance(of, Call):
        text = f"{of.fn} {[*map(_number, of.args)]}"
    else:
        text = str([(coef, *map(_number, mono)) for mono, coef in terms_of(of)])
    return crc32(text.encode())


@lru_cache(MEMO)
def _broadcast_parts(dim: Dim) -> tuple[Dim, ...]:
    """The sizes of which a dim is the broadcast."""
    call = as_call(dim)
    if call is None or call.fn != "broadcast":
        return (dim,)
    return tuple(part for arg in call.args for part in _broadcast_parts(arg))


def is_never_one(dim: Dim) -> bool:
    """Whether the expression is certainly not 1, all symbols being >= 0."""
    if isinstance(dim, int):
        return dim != 1
    constant = sum(coef for mono, coef in dim.terms if not mono)
    factor = math.gcd(*(coef for mono, coef in dim.terms if mono))
    return (1 - constant) % factor != 0 or is_nonnegative(dim - 2)


def are_one_together(a: Dim, b: Dim) -> bool:
    """Whether one expression is 1 just when the other is, as far as their form tells."""
    return _unlimited(a) == _unlimited(b)


def _unlimited(dim: Dim) -> Dim:
    """The x of max(x, 0), and of min(x, limit) = x - max(x - limit, 0) where the limit is more
    than 1: they are 1 just when that is."""
    for mono, coef in terms_of(dim):
        call = mono[0] if len(mono) == 1 else None
        if not isinstance(call, Call) or call.fn != "max" or 0 not in call.args:
            continue
        if dim == as_dim(call):
            return call.args[0] + call.args[1]
        if coef < 0:
            x = dim - as_dim(call) * coef
            limit = x + (call.args[0] + call.args[1]) * coef
            if isinstance(limit, int) and limit > 1:
                return x
    return dim
