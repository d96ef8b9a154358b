"""Sets of bytes, exact, as sorted ranges: what an access touches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Addresses = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ByteRanges:
    """Disjoint ranges of addresses, ascending: `starts`, and `ends`, which are not in them."""

    starts: Addresses
    ends: Addresses

    @property
    def low(self) -> int:
        return int(self.starts[0]) if len(self.starts) else 0

    @property
    def high(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def size(self) -> int:
        """How many bytes these are."""
        return int((self.ends - self.starts).sum())

    def common(self, other: ByteRanges) -> int | None:
        """The lowest address in both, or None."""
        if not len(self.starts) or not len(other.starts):
            return None
        if self.high <= other.low or other.high <= self.low:
            return None
        following = np.searchsorted(other.ends, self.starts, side="right")
        inside = following < len(other.ends)
        begins = other.starts[np.minimum(following, len(other.ends) - 1)]
        hits = np.flatnonzero(inside & (begins < self.ends))
        if not len(hits):
            return None
        return int(max(self.starts[hits[0]], begins[hits[0]]))


def union(parts: Iterable[ByteRanges]) -> ByteRanges:
    """All bytes of the parts."""
    kept = [part for part in parts if len(part.starts)]
    if len(kept) == 1:
        return kept[0]
    if not kept:
        return NO_BYTES
    return _disjoint(
        np.concatenate([part.starts for part in kept]), np.concatenate([part.ends for part in kept])
    )


def run(start: int, length: int) -> ByteRanges:
    """`length` bytes from an address on."""
    return strided(start, (), length)


def extent(start: int, axes: Sequence[tuple[int, int]], length: int) -> tuple[int, int]:
    """The lowest address of `strided`, and the one behind the highest."""
    reaches = [(count - 1) * stride for count, stride in axes]
    low = start + sum(reach for reach in reaches if reach < 0)
    return low, start + sum(reach for reach in reaches if reach > 0) + length


def strided(start: int, axes: Sequence[tuple[int, int]], length: int) -> ByteRanges:
    """Runs of `length` bytes at start + i * stride + ... for the axes (count, stride)."""
    if length <= 0 or any(count <= 0 for count, _ in axes):
        return NO_BYTES
    start += sum((count - 1) * stride for count, stride in axes if stride < 0)
    outer = []
    for stride, count in sorted((abs(stride), count) for count, stride in axes if count > 1):
        if stride <= length:
            length += (count - 1) * stride
        else:
            outer.append((count, stride))
    if not outer:
        return ByteRanges(np.array([start], np.int64), np.array([start + length], np.int64))
    starts = np.full(1, start, np.int64)
    for count, stride in outer:
        starts = (starts[None, :] + (np.arange(count, dtype=np.int64) * stride)[:, None]).ravel()
    return _disjoint(starts, starts + length)


def _disjoint(starts: Addresses, ends: Addresses) -> ByteRanges:
    if (starts[1:] > ends[:-1]).all():
        return ByteRanges(starts, ends)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    begins = np.flatnonzero(starts[1:] > ends[:-1]) + 1
    first, last = np.append(0, begins), np.append(begins - 1, len(ends) - 1)
    return ByteRanges(starts[first], ends[last])


NO_BYTES = ByteRanges(np.zeros(0, np.int64), np.zeros(0, np.int64))
