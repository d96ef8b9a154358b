"""Sets of scores (row, key) that a mask may leave seen: what is computed with when masks are read.

Each domain has all scores, none, those of a table of constants, and those that a comparison of
positions holds for; sets are united by `|` and cut by `&`. All but the exact ones are supersets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

from ...compiler.ir.dims import Dim, dmax, dmin, is_nonnegative
from ...compiler.ir.ops.registry import Array

COMPARED = {"ge": "le", "gt": "lt", "le": "ge", "lt": "gt", "eq": "eq", "ne": "ne"}
NEGATED = {"ge": "lt", "lt": "ge", "gt": "le", "le": "gt", "eq": "ne", "ne": "eq"}


@dataclass(frozen=True)
class At:
    """Where the element of a value for (row, key) is: at row + `row_shift` along `row_axis`, at
    key + `key_shift` along `key_axis`; an axis that is None has the one element for all."""

    row_axis: int | None
    key_axis: int | None
    row_shift: Dim = 0
    key_shift: Dim = 0


@dataclass(frozen=True)
class Position:
    """row * `row` + key * `key` + `offset`."""

    row: int
    key: int
    offset: Dim

    def plus(self, other: Position, sign: int = 1) -> Position:
        """The sum, or the difference, of two."""
        return Position(
            self.row + sign * other.row,
            self.key + sign * other.key,
            self.offset + sign * other.offset,
        )


class ScoreSet(Protocol):
    """A set of scores."""

    def __and__(self, other: Any, /) -> Any: ...

    def __or__(self, other: Any, /) -> Any: ...


S = TypeVar("S", bound=ScoreSet)
T = TypeVar("T", covariant=True)


class ScoreDomain(Protocol[T]):
    """How sets are made. table: of bool[rows or 1, keys or 1]. compared: where a position stands
    so to 0."""

    def all(self) -> T: ...

    def none(self) -> T: ...

    def table(self, holds: Array, at: At) -> T: ...

    def compared(self, op: str, position: Position) -> T: ...


@dataclass(frozen=True)
class KeyTables:
    """Sets as bool[queries, keys], where both are known."""

    queries: int
    keys: int

    def all(self) -> Array:
        """Every score."""
        return np.ones((1, 1), bool)

    def none(self) -> Array:
        """No score."""
        return np.zeros((1, 1), bool)

    def table(self, holds: Array, at: At) -> Array:
        """The scores that a table says, as far as it is clear which they are."""
        for axis, (shift, size) in enumerate(
            ((at.row_shift, self.queries), (at.key_shift, self.keys))
        ):
            if holds.shape[axis] == 1:
                continue
            if not isinstance(shift, int) or shift < 0 or shift + size > holds.shape[axis]:
                return self.all()
            holds = holds.take(range(shift, shift + size), axis)
        return holds

    def compared(self, op: str, position: Position) -> Array:
        """The scores whose position stands so to 0."""
        if not isinstance(position.offset, int):
            return self.all()
        rows = np.arange(self.queries)[:, None] * position.row
        found = rows + np.arange(self.keys)[None] * position.key + position.offset
        return np.asarray(_COMPARE[op](found, 0))


_COMPARE: dict[str, Callable[[Array, int], Array]] = {
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "eq": np.equal,
    "ne": np.not_equal,
}


@dataclass(frozen=True)
class KeyBand:
    """Scores with low <= key - row <= high and first <= key <= last; None: no bound. `empty`: none
    at all."""

    low: Dim | None = None
    high: Dim | None = None
    first: Dim | None = None
    last: Dim | None = None
    empty: bool = False

    def __and__(self, other: KeyBand) -> KeyBand:
        if self.empty or other.empty:
            return KeyBand(empty=True)
        return KeyBand(
            _either(self.low, other.low, dmax),
            _either(self.high, other.high, dmin),
            _either(self.first, other.first, dmax),
            _either(self.last, other.last, dmin),
        )

    def __or__(self, other: KeyBand) -> KeyBand:
        if self.empty or other.empty:
            return other if self.empty else self
        return KeyBand(
            _both(self.low, other.low, dmin),
            _both(self.high, other.high, dmax),
            _both(self.first, other.first, dmin),
            _both(self.last, other.last, dmax),
        )


def _either(a: Dim | None, b: Dim | None, join: Callable[[Dim, Dim], Dim]) -> Dim | None:
    if a is None or b is None:
        return b if a is None else a
    return join(a, b)


def _both(a: Dim | None, b: Dim | None, join: Callable[[Dim, Dim], Dim]) -> Dim | None:
    return None if a is None or b is None else join(a, b)


class KeyBands:
    """Sets as bands, whatever the sizes are."""

    def all(self) -> KeyBand:
        """Every score."""
        return KeyBand()

    def none(self) -> KeyBand:
        """No score."""
        return KeyBand(empty=True)

    def table(self, holds: Array, at: At) -> KeyBand:
        """The narrowest band around what a table says."""
        rows, keys = np.nonzero(holds)
        if not len(keys):
            return self.none()
        band = KeyBand()
        if holds.shape[1] > 1:
            first, last = int(keys.min()), int(keys.max())
            band &= KeyBand(first=first - at.key_shift, last=last - at.key_shift)
        if min(holds.shape) > 1:
            shift = at.row_shift - at.key_shift
            low, high = int((keys - rows).min()), int((keys - rows).max())
            band &= KeyBand(low + shift, high + shift)
        return band

    def compared(self, op: str, position: Position) -> KeyBand:
        """The band whose positions stand so to 0."""
        if position.key not in (1, -1) or position.row not in (0, -position.key):
            return self.all()
        if position.key < 0:
            position = Position(-position.row, 1, -1 * position.offset)
            op = COMPARED[op]
        end = -1 * position.offset
        high = {"le": end, "lt": end - 1, "eq": end}.get(op)
        low = {"ge": end, "gt": end + 1, "eq": end}.get(op)
        return KeyBand(low, high) if position.row else KeyBand(first=low, last=high)


@dataclass(frozen=True)
class Diagonal:
    """Whether any of the scores (row, row + `shift`) is in the set; True too where that is not
    known."""

    shift: Dim

    def all(self) -> bool:
        """Every score."""
        return True

    def none(self) -> bool:
        """No score."""
        return False

    def table(self, holds: Array, at: At) -> bool:
        """Whether a table says so anywhere."""
        if min(holds.shape) > 1 and (at.key_shift - at.row_shift + self.shift) == (
            shift := _whole(at.key_shift - at.row_shift + self.shift)
        ):
            return bool(np.diagonal(holds, shift).any())
        return bool(holds.any())

    def compared(self, op: str, position: Position) -> bool:
        """Whether a position on the diagonal may stand so to 0."""
        if position.row != -position.key:
            return True
        found = position.offset + position.key * self.shift
        never = {
            "ge": (-1 * found - 1,), "gt": (-1 * found,), "le": (found - 1,), "lt": (found,),
            "eq": (-1 * found - 1, found - 1), "ne": (),
        }[op]  # fmt: skip
        return not (found == 0 if op == "ne" else any(map(is_nonnegative, never)))


def _whole(dim: Dim) -> int:
    return dim if isinstance(dim, int) else 0
