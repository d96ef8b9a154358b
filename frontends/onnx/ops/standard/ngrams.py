"""Counts of n-grams: the vectoriser of words and of their numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Text
from ...site import NotSupported, Site
from ...table import lowers
from .strings import place_among

Array = np.ndarray[Any, Any]


def _numbered(s: Site) -> tuple[Value, Array]:
    """The input in numbers, and the pool: words are numbered as they occur there, others are -1."""
    entry = s.entries[0]
    if not isinstance(entry, Text):
        return s.input(0), np.array(s.ints("pool_int64s", []), np.int64)
    pool = s.texts("pool_strings")
    words = {word: number for number, word in enumerate(dict.fromkeys(pool))}
    place, hit = place_among(s, entry, list(words))
    return s.op_("where", hit, place, -1), np.array([words[word] for word in pool], np.int64)


def _pools(s: Site, pool: Array) -> list[Array]:
    """The n-grams to be counted by length: entry n - 1 is a matrix with n columns."""
    ends = [*s.ints("ngram_counts"), len(pool)]
    if ends[0] != 0 or any(a > b or (b - a) % n for n, (a, b) in enumerate(pairwise(ends), 1)):
        raise ValueError(f"ngram_counts {ends[:-1]} do not divide a pool of {len(pool)}")
    return [pool[a:b].reshape(-1, n) for n, (a, b) in enumerate(pairwise(ends), 1)]


def _counts(s: Site, x: Value, grams: Array, longest_skip: int) -> Value:
    """How often the n-grams [K, n] are in the rows of x [N, C], as f32 [N, K].

    The words of an n-gram may be apart, all by the same number of words. Every word is tried as the
    first of an n-gram; where too few follow, zeros stand behind the row, and it does not count.
    """
    batch, length = x.shape
    number, size = grams.shape
    total = s.expand(s.scalar(0.0, DType.F32), (batch, number))
    for step in range(1, 2 + (longest_skip if size > 1 else 0)):
        reach = (size - 1) * step
        if not number or (isinstance(length, int) and reach >= length):
            break
        longer = s.emit("pad", [x, s.scalar(0, x.dtype)], pads=(0, 0, 0, reach), mode="constant")
        last = s.reshape(s.emitter.virtual([length - reach]), (1, 1, 1))
        found = s.op_("lt", s.iota((1, length, 1), 1, DType.I64), last)
        for word in range(size):
            window = s.slice(longer, 1, word * step, word * step + length)
            wanted = constant(grams[:, word].astype(x.dtype.numpy).reshape(1, 1, -1))
            same = s.op_("eq", s.reshape(window, (batch, length, 1)), wanted)
            found = s.op_("and", found, same)
        hits = s.reduce("sum", s.cast(found, DType.F32), [1], keepdims=False)
        total = s.op_("add", total, hits)
    return total


@lowers("TfIdfVectorizer")
def tf_idf_vectorizer(s: Site) -> Value:
    mode = s.text("mode")
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ValueError(f"mode '{mode}' is not TF, IDF or TFIDF")
    x, pool = _numbered(s)
    if x.type.rank not in (1, 2):
        raise ValueError(f"the input {x.type} is neither a vector nor a matrix")
    rows = x if x.type.rank == 2 else s.reshape(x, (1, *x.shape))
    first, last = s.integer("min_gram_length"), s.integer("max_gram_length")
    places = np.array(s.ints("ngram_indexes"), np.int64)
    pools = _pools(s, pool)
    if len(places) != sum(map(len, pools)):
        raise ValueError(f"{len(places)} ngram_indexes for {sum(map(len, pools))} n-grams")
    if len(set(places.tolist())) < len(places) or (places < 0).any():
        raise NotSupported("ngram_indexes repeat a column or are negative", "give each its own")
    parts, columns, start = [s.expand(s.scalar(0.0, DType.F32), (rows.shape[0], 1))], [], 0
    for size, grams in enumerate(pools, 1):
        if first <= size <= last and len(grams):
            parts.append(_counts(s, rows, grams, s.integer("max_skip_count")))
            columns += places[start : start + len(grams)].tolist()
        start += len(grams)
    width = int(places.max(initial=-1)) + 1
    source = np.zeros(width, np.int64)  # part 0 is a column of zeros
    source[columns] = np.arange(1, len(columns) + 1)
    counts = s.emit("gather", [s.emit("concat", parts, axis=1), constant(source)], axis=1)
    y = _weighted(s, counts, mode, places)
    return y if x.type.rank == 2 else s.reshape(y, (width,))


def _weighted(s: Site, counts: Value, mode: str, places: Array) -> Value:
    """Counts [N, columns], or the weights of what is there, or both multiplied."""
    if mode == "TF":
        return counts
    weights = np.array(s.floats("weights", [1.0] * len(places)), np.float32)
    if len(weights) != len(places):
        raise ValueError(f"{len(weights)} weights for {len(places)} n-grams")
    by_column = np.zeros(counts.shape[1], np.float32)
    by_column[places] = weights
    scale = counts if mode == "TFIDF" else s.cast(s.op_("gt", counts, 0.0), DType.F32)
    return s.op_("mul", scale, constant(by_column))
