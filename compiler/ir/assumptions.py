"""What type inference takes for granted of symbolic dims, so that a run can check it.

Two dims that may be different, such as `n` and `m`, are taken to be equal where an operator needs
them to be. Whoever wants to know infers the types again inside `recorded()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .dims import Dim, Symbol, in_order, is_nonnegative, legible

EQUAL, AT_MOST, ONE_OR_EQUAL, OTHER, FITS = "==", "<=", "1 or ==", "!=", "fits"
RELATIONS = (EQUAL, AT_MOST, ONE_OR_EQUAL, OTHER, FITS)
MOST = 1 << 46  # elements of a tensor: far from where their number, or that of their bytes, wraps
_PLAIN = 1 << 12  # so many times a size that is at most MOST does not wrap


@dataclass(frozen=True)
class Assumption:
    """`left relation right`.

    ONE_OR_EQUAL: left is 1, or else right. FITS: left, which may be larger than any integer of
    the machine, is at most right.
    """

    relation: str
    left: Dim
    right: Dim

    def __str__(self) -> str:
        if self.relation == ONE_OR_EQUAL:
            return f"{legible(self.left)} to be 1 or {legible(self.right)}"
        if self.relation == FITS:
            return f"{legible(self.left)} to be a number of elements"
        return f"{legible(self.left)} {self.relation} {legible(self.right)}"


_record: ContextVar[dict[Assumption, None] | None] = ContextVar("assumptions", default=None)


@contextmanager
def recorded() -> Iterator[dict[Assumption, None]]:
    """Collect the assumptions made inside, in order and each once."""
    found: dict[Assumption, None] = {}
    token = _record.set(found)
    try:
        yield found
    finally:
        _record.reset(token)


def assume_equal(a: Dim, b: Dim) -> None:
    """Note that two dims are taken to be equal, unless they are by their form."""
    record = _record.get()
    if record is None or a == b or (isinstance(a, int) and isinstance(b, int)):
        return
    record[Assumption(EQUAL, *in_order(a, b))] = None


def assume_at_most(a: Dim, b: Dim) -> None:
    """Note that a is taken to be at most b, unless that follows from their form."""
    record = _record.get()
    if record is None or is_nonnegative(b - a) or (isinstance(a, int) and isinstance(b, int)):
        return
    record[Assumption(AT_MOST, a, b)] = None


def assume_one_or_equal(a: Dim, b: Dim) -> None:
    """Note that a is taken to be 1 or b, unless it is by its form."""
    record = _record.get()
    if record is None or a in (1, b) or (isinstance(a, int) and isinstance(b, int)):
        return
    record[Assumption(ONE_OR_EQUAL, a, b)] = None


def may_wrap(size: Dim) -> bool:
    """Whether the number may be too large for an i64 where no symbol in it is more than MOST."""
    terms = () if isinstance(size, int) else size.terms
    plain = all(len(mono) < 2 and all(isinstance(a, Symbol) for a in mono) for mono, _ in terms)
    return not plain or sum(abs(factor) for _, factor in terms) > _PLAIN
