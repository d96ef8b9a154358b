"""What type inference takes for granted of symbolic dims, so that a run can check it.

Two dims that may be different, such as `n` and `m`, are taken to be equal where an operator needs
them to be. Whoever wants to know infers the types again inside `recorded()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .dims import Dim, in_order, is_nonnegative

EQUAL, AT_MOST, ONE_OR_EQUAL, OTHER = "==", "<=", "1 or ==", "!="
RELATIONS = (EQUAL, AT_MOST, ONE_OR_EQUAL, OTHER)


@dataclass(frozen=True)
class Assumption:
    """`left relation right`; ONE_OR_EQUAL: left is 1, or else right."""

    relation: str
    left: Dim
    right: Dim

    def __str__(self) -> str:
        if self.relation == ONE_OR_EQUAL:
            return f"{self.left} to be 1 or {self.right}"
        return f"{self.left} {self.relation} {self.right}"


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
