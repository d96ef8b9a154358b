"""Places of strings in a long list, by a perfect hash that is made when compiling.

The hash of a string is the sum of its bytes times constants, modulo 2^32; its high bits choose a
bucket, whose odd multiplier makes the hash a slot that no other word of the list has (compress,
hash and displace: Belazzougui, Botelho, Dietzfelbinger, "Hash, displace, and compress", 2009). The
word of the slot is then compared with the string.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.errors import InternalError
from .....compiler.ir import DType, Value, constant
from .....compiler.ir.dims import dmin
from ...reading.tensors import padded
from ...site import Site
from ...text_moves import widened

Array = np.ndarray[Any, Any]
BITS = 32  # of a hash
_KEYS_PER_BUCKET = 2
_TRIALS = 1 << 12  # multipliers tried for one bucket
_SEEDS = 64


@dataclass(frozen=True)
class WordHash:
    """factors: u32 [width], of the bytes. multipliers: u32, of the buckets, a power of two of them;
    words: i32, the number of the word in each slot, a power of two of them, 0 in empty ones."""

    factors: Array
    multipliers: Array
    words: Array

    def slots(self, rows: Array) -> Array:
        """The slots of strings, u8 [n, width]."""
        hashes = _hashes(rows, self.factors)
        multiplier = self.multipliers[hashes >> np.uint32(BITS - _log2(self.multipliers))]
        return np.asarray((hashes * multiplier) >> np.uint32(BITS - _log2(self.words)))


def _log2(table: Array) -> int:
    return len(table).bit_length() - 1


def _hashes(rows: Array, factors: Array) -> Array:
    return np.asarray((rows.astype(np.uint32) * factors).sum(axis=1, dtype=np.uint32))


def word_hash(rows: Array) -> WordHash:
    """A perfect hash of different strings, u8 [n, width] with n > 0; the same in every process."""
    for seed in range(_SEEDS):
        random = np.random.default_rng(seed)
        factors = random.integers(1 << BITS, size=rows.shape[1], dtype=np.uint32) | np.uint32(1)
        hashes = _hashes(rows, factors)
        if len(np.unique(hashes)) == len(hashes):
            found = _displaced(hashes, random)
            if found is not None:
                return WordHash(factors, *found)
    raise InternalError(f"no perfect hash of {len(rows)} words was found")


def _displaced(hashes: Array, random: np.random.Generator) -> tuple[Array, Array] | None:
    """Multipliers and the words of the slots; the fullest buckets choose first."""
    count = len(hashes)
    bucket_bits = max(1, (count // _KEYS_PER_BUCKET).bit_length())
    slot_bits = (2 * count).bit_length()
    shift = np.uint32(BITS - slot_bits)
    buckets = hashes >> np.uint32(BITS - bucket_bits)
    trials = random.integers(1 << BITS, size=_TRIALS, dtype=np.uint32) | np.uint32(1)
    multipliers = np.ones(1 << bucket_bits, np.uint32)
    words, taken = np.zeros(1 << slot_bits, np.int32), np.zeros(1 << slot_bits, np.bool_)
    order = np.argsort(buckets, kind="stable")
    ends = np.searchsorted(buckets[order], np.arange((1 << bucket_bits) + 1))
    sizes = np.diff(ends)
    for bucket in np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]:
        keys = order[ends[bucket] : ends[bucket + 1]]
        slots = (hashes[keys] * trials[:, None]) >> shift
        fits = ~taken[slots].any(axis=1)
        if len(keys) > 1:
            ordered = np.sort(slots, axis=1)
            fits &= (ordered[:, 1:] != ordered[:, :-1]).all(axis=1)
        if not fits.any():
            return None
        first = int(np.argmax(fits))
        multipliers[bucket] = trials[first]
        words[slots[first]], taken[slots[first]] = keys, True
    return multipliers, words


def place_of_words(s: Site, data: Value, words: Sequence[str]) -> tuple[Value, Value]:
    """The place (i64) among different words that each string u8 [..., width] has, and whether it
    has one: of another the place is that of any word."""
    rows = padded([word.encode() for word in words])
    width = rows.shape[1]
    table = word_hash(rows)
    short = s.slice(data, data.type.rank - 1, 0, dmin(data.shape[-1], width + 1))
    short = s.reshape(widened(s.emitter, short, width + 1), (*data.shape[:-1], width + 1))
    axis = data.type.rank - 1
    factors = constant(np.append(table.factors, np.uint32(0)))
    products = s.op_("mul", s.cast(short, DType.U32), factors)
    hashes = s.reduce("sum", products, [axis], keepdims=False)
    multiplier = _entry(s, table.multipliers, hashes)
    number = _entry(s, table.words, s.op_("mul", hashes, multiplier))
    known = s.emit("gather", [constant(np.pad(rows, ((0, 0), (0, 1)))), number], axis=0)
    same = s.cast(s.op_("eq", known, short), DType.U8)
    hit = s.cast(s.reduce("min", same, [axis], keepdims=False), DType.BOOL)
    return s.cast(number, DType.I64), hit


def _entry(s: Site, table: Array, hashes: Value) -> Value:
    """The entries of a table of 2^n that the n high bits of hashes choose."""
    place = s.op_("shr", hashes, BITS - _log2(table))
    place = s.op_("min", s.cast(place, DType.I32), len(table) - 1)
    return s.emit("gather", [constant(table), s.op_("max", place, 0)], axis=0)
