"""Places of keys in a long list, by a perfect hash that is made when compiling.

A key has two hashes of 32 bits: the high bits of one choose a bucket, whose odd multiplier makes
the other a slot that no other key of the list has (Belazzougui, Botelho, Dietzfelbinger, "Hash,
displace, and compress", 2009). What is in the slot is then compared with the key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.errors import InternalError
from .....compiler.ir import DType, Value, constant
from ...site import Site

Array = np.ndarray[Any, Any]
BITS = 32  # of a hash
_KEYS_PER_BUCKET = 2
_TRIALS = 1 << 12  # multipliers tried for the buckets of one size
_SEEDS = 64


@dataclass(frozen=True)
class PerfectHash:
    """multipliers: u32, of the buckets, a power of two of them; numbers: i32, the number of the key
    in each slot, a power of two of them, 0 in empty ones."""

    multipliers: Array
    numbers: Array

    def numbers_of(self, first: Array, second: Array) -> Array:
        """The numbers, i32 [n], at which keys of some hashes, u32 [n], are if they are keys."""
        multiplier = self.multipliers[first >> np.uint32(BITS - _log2(self.multipliers))]
        slots = (second * multiplier) >> np.uint32(BITS - _log2(self.numbers))
        return np.asarray(self.numbers[slots])

    def find(self, s: Site, first: Value, second: Value) -> Value:
        """The same in a graph."""
        multiplier = _entry(s, self.multipliers, first)
        return _entry(s, self.numbers, s.op_("mul", second, multiplier))


def _log2(table: Array) -> int:
    return len(table).bit_length() - 1


def _entry(s: Site, table: Array, hashes: Value) -> Value:
    """The entries of a table of 2^n that the n high bits of hashes choose."""
    place = s.op_("shr", hashes, BITS - _log2(table))
    place = s.op_("min", s.cast(place, DType.I32), len(table) - 1)
    return s.emit("gather", [constant(table), s.op_("max", place, 0)], axis=0)


def odd_factors(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Odd numbers, u32 of a shape."""
    return random.integers(1 << BITS, size=shape, dtype=np.uint32) | np.uint32(1)


def perfect_hash(
    factors_shape: tuple[int, ...], hashes: Callable[[Array], Array]
) -> tuple[Array, PerfectHash]:
    """Factors u32 [2, ...] of a shape by which `hashes` makes hashes u32 [2, n] of n > 0 different
    keys, and a perfect hash of these; the same in every process."""
    count = 0
    for seed in range(_SEEDS):
        random = np.random.default_rng(seed)
        factors = odd_factors(random, (2, *factors_shape))
        first, second = hashes(factors)
        count = len(first)
        found = _displaced(first, second, random)
        if found is not None:
            return factors, found
    raise InternalError(f"no perfect hash of {count} keys was found")


def _displaced(first: Array, second: Array, random: np.random.Generator) -> PerfectHash | None:
    """Multipliers and the keys of the slots; the fullest buckets choose first, those of one size
    at once. None where two keys of a bucket never part."""
    count = len(first)
    bucket_bits = max(1, (count // _KEYS_PER_BUCKET).bit_length())
    slot_bits = (2 * count).bit_length()
    buckets = first >> np.uint32(BITS - bucket_bits)
    multipliers = np.ones(1 << bucket_bits, np.uint32)
    numbers, taken = np.zeros(1 << slot_bits, np.int32), np.zeros(1 << slot_bits, np.bool_)
    order = np.argsort(buckets, kind="stable")
    ends = np.searchsorted(buckets[order], np.arange((1 << bucket_bits) + 1))
    sizes = np.diff(ends)
    for size in range(int(sizes.max()), 0, -1):
        left = np.flatnonzero(sizes == size)
        for _ in range(_TRIALS):
            if not len(left):
                break
            multiplier = odd_factors(random, ())
            keys = order[ends[left][:, None] + np.arange(size)]
            slots = (second[keys] * multiplier) >> np.uint32(BITS - slot_bits)
            fits = _fitting(slots, taken)
            multipliers[left[fits]] = multiplier
            numbers[slots[fits]], taken[slots[fits]] = keys[fits], True
            left = left[~fits]
        if len(left):
            return None
    return PerfectHash(multipliers, numbers)


def _fitting(slots: Array, taken: Array) -> Array:
    """Which rows of slots [buckets, size] are free, differ, and are in no row chosen before."""
    ordered = np.sort(slots, axis=1)
    fits = ~taken[slots].any(axis=1) & (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
    rows = np.flatnonzero(fits)
    _, place, which = np.unique(slots[rows].reshape(-1), return_index=True, return_inverse=True)
    owner = place[which].reshape(len(rows), slots.shape[1]) // slots.shape[1]
    fits[rows] = (owner == np.arange(len(rows))[:, None]).all(axis=1)
    return np.asarray(fits)
