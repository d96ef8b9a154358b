"""Blocks of queries, and the keys that each may see under a mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.dims import Dim, ceildiv, dmax, dmin, estimate, is_nonnegative
from ...compiler.ir.graph import Value
from ...compiler.ir.ops.registry import Array
from .hidden_scores import LEAST_GAIN, MASKED
from .key_regions import Diagonal, KeyBand, KeyBands, KeyTables
from .mask_regions import MaskReader, chosen
from .work import TYPICAL

_GONE = float("-inf")  # added to a score, this hides it in rows that see nothing else, too
_LINE = 16  # keys are cut at multiples of this
_MOST_BLOCKS = 16
_ANY_LENGTH = 4  # blocks of queries whose number only a run knows


@dataclass(frozen=True)
class QueryBlock:
    """Queries from `first` on up to `last`, which see keys from `low` on up to `high`."""

    first: Dim
    last: Dim
    low: Dim
    high: Dim

    @property
    def scores(self) -> float:
        """How many scores it has, as far as it is known."""
        rows, keys = self.last - self.first, self.high - self.low
        return float(estimate(rows, TYPICAL) * estimate(keys, TYPICAL))


@dataclass(frozen=True)
class QueryBlocks:
    """How queries are divided. share: of the scores that is left. may_hide_rows: whether the run
    may hide all that a row sees, its scores being equal then."""

    blocks: tuple[QueryBlock, ...]
    share: float
    may_hide_rows: bool


def query_blocks(mask: Value, queries: Dim, keys: Dim, least_rows: int) -> QueryBlocks | None:
    """The blocks that leave the fewest scores; None where hardly any are left out.

    Masks of -inf hide a key from a row whatever else it sees. Below `MASKED` they do so where the
    row sees something, or where all that is hidden is hidden by one number.
    """
    if not mask.type.elements or not queries or not keys:
        return None
    for limit in (_GONE, MASKED):
        if isinstance(queries, int) and isinstance(keys, int):
            found, rows_hidden = _of_table(mask, queries, keys, least_rows, limit)
        else:
            found, rows_hidden = _of_band(mask, queries, keys, limit)
        if not found or (limit == MASKED and rows_hidden and not _one_number(mask)):
            continue
        scores = estimate(queries, TYPICAL) * estimate(keys, TYPICAL)
        share = sum(block.scores for block in found) / scores
        if share <= 1 - LEAST_GAIN:
            return QueryBlocks(tuple(found), share, limit == MASKED and rows_hidden)
    return None


def _one_number(mask: Value) -> bool:
    """Whether all that a mask hides is hidden by the same number."""
    numbers = chosen(mask)
    return numbers is not None and len([n for n in numbers if not n > MASKED]) == 1


def _of_table(
    mask: Value, queries: int, keys: int, least_rows: int, limit: float
) -> tuple[list[QueryBlock], bool]:
    """Blocks of what a mask may leave seen, and whether a run may hide rows that it does."""
    tables = KeyTables(queries, keys)
    seen = np.broadcast_to(MaskReader(tables, limit).seen(mask), (queries, keys))
    hidden = np.broadcast_to(MaskReader(tables, limit).seen(mask, wanted=False), (queries, keys))
    sees = seen.any(axis=1, keepdims=True)
    surely = (~hidden).any(axis=1, keepdims=True)
    seen = seen | ~sees
    counts = [1]
    while counts[-1] < _MOST_BLOCKS and queries // (2 * counts[-1]) >= least_rows:
        counts.append(2 * counts[-1])
    divided = [_divided(seen, count) for count in counts]
    best = min(divided, key=lambda blocks: sum(block.scores for block in blocks))
    return best, bool((sees & ~surely).any())


def _divided(seen: Array, count: int) -> list[QueryBlock]:
    """So many blocks of queries, with the keys that any of their rows sees."""
    queries, keys = seen.shape
    rows = -(-queries // count)
    found = []
    for first in range(0, queries, rows):
        last = min(first + rows, queries)
        places = np.flatnonzero(seen[first:last].any(axis=0))
        low = int(places[0]) // _LINE * _LINE
        high = min(keys, -(-(int(places[-1]) + 1) // _LINE) * _LINE)
        found.append(QueryBlock(first, last, low, high))
    return found


def _of_band(mask: Value, queries: Dim, keys: Dim, limit: float) -> tuple[list[QueryBlock], bool]:
    """The same for sizes that only a run knows: blocks of a band of keys along the diagonal."""
    band = MaskReader(KeyBands(), limit).seen(mask)
    if band.empty or band.high is None or not is_nonnegative(band.high):
        return [], False
    low = band.low
    ends_inside = is_nonnegative(keys - queries - band.high)
    if low is not None and not ends_inside:
        low = None
    surely = ends_inside and not MaskReader(Diagonal(band.high), limit).seen(mask, wanted=False)
    return _banded(KeyBand(low, band.high), queries, keys), not surely


def _banded(band: KeyBand, queries: Dim, keys: Dim) -> list[QueryBlock]:
    assert band.high is not None
    rows = _LINE * ceildiv(queries, _LINE * _ANY_LENGTH)
    found = []
    for number in range(_ANY_LENGTH):
        first = dmin(queries, number * rows)
        last = queries if number == _ANY_LENGTH - 1 else dmin(queries, (number + 1) * rows)
        high = dmin(keys, last + band.high)
        low: Dim = 0 if band.low is None else dmin(high, dmax(0, first + band.low))
        found.append(QueryBlock(first, last, low, high))
    return found
