"""Places of strings in a long list of words.

The hashes of a string are sums of its bytes times constants, modulo 2^32; the word they lead to is
compared with the string byte by byte. All words are in one table, a zero behind each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.dims import dmin
from ...site import Site
from ..standard.sampling import number
from .perfect_hash import PerfectHash, perfect_hash

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class WordHash:
    """factors: u32 [2, width], of the bytes; text: u8, all words, a zero behind each; ends: i32
    [words + 1], the place behind the zero of each word, 0 before them all."""

    factors: Array
    text: Array
    ends: Array
    found: PerfectHash


def word_hash(words: Sequence[bytes]) -> WordHash:
    """That of n > 0 different words without zeros; the same in every process."""
    lengths = np.array([len(word) for word in words], np.int64)
    ends = np.append(0, np.cumsum(lengths + 1))
    text = np.frombuffer(b"\0".join(words) + b"\0", np.uint8)
    places = np.arange(len(text)) - np.repeat(ends[:-1], lengths + 1)
    places = np.minimum(places, lengths.max() - 1)  # of the zeros, which count nothing

    def hashes(factors: Array) -> Array:
        sums = np.cumsum(text.astype(np.uint32) * factors[:, places], axis=1, dtype=np.uint32)
        return np.diff(sums[:, ends[1:] - 1], axis=1, prepend=np.uint32(0))

    factors, found = perfect_hash((int(lengths.max()),), hashes)
    return WordHash(factors, text, ends.astype(np.int32), found)


def place_of_words(s: Site, data: Value, words: Sequence[str]) -> tuple[Value, Value]:
    """The place (i64) among different words that each string u8 [..., width] has, and whether it
    has one: of another the place is that of any word."""
    table = word_hash([word.encode() for word in words])
    axis = data.type.rank - 1
    width = table.factors.shape[1] + 1
    used = dmin(data.shape[-1], width)
    short = s.slice(data, axis, 0, used)
    first, second = (_hashes(s, short, np.append(line, np.uint32(0))) for line in table.factors)
    found = table.found.find(s, first, second)
    start, end = (
        s.emit("gather", [constant(ends), found], axis=0)
        for ends in (table.ends[:-1], table.ends[1:] - 1)
    )
    place = s.op_("add", s.reshape(start, (*start.shape, 1)), s.iota((used,), 0, DType.I32))
    place = s.op_("min", place, s.reshape(end, (*end.shape, 1)))
    known = s.emit("gather", [constant(table.text), place], axis=0)
    same = s.cast(s.op_("eq", known, short), DType.U8)
    hit = s.cast(s.reduce("min", same, [axis], keepdims=False), DType.BOOL)
    whole = s.op_("le", s.op_("sub", end, start), number(s, data.shape[-1], DType.I32))
    return s.cast(found, DType.I64), s.op_("and", hit, whole)


def _hashes(s: Site, data: Value, factors: Array) -> Value:
    """The sums of bytes [..., width] times factors, of at least as many."""
    axis = data.type.rank - 1
    used = s.slice(constant(factors), 0, 0, data.shape[-1])
    return s.reduce("sum", s.op_("mul", s.cast(data, DType.U32), used), [axis], keepdims=False)
