"""The size that two sizes broadcast to, any of which may turn out to be 1."""

from __future__ import annotations

import math

from .bounds import is_nonnegative
from .terms import Call, Dim, as_call, as_dim, order_key, terms_of


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
    result = ordered.pop()
    while ordered:
        result = as_dim(Call("broadcast", (ordered.pop(), result)))
    return result


def _broadcast_parts(dim: Dim) -> tuple[Dim, ...]:
    """The sizes of which a dim is the broadcast."""
    call = as_call(dim)
    if call is None or call.fn != "broadcast":
        return (dim,)
    return (call.args[0], *_broadcast_parts(call.args[1]))


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
