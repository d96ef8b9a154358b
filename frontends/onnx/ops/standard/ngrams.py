"""Counts of n-grams: the vectoriser of words and of their numbers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Text
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.gram_trie import GramTrie, gram_trie
from ..shared.lookups import number_among
from .strings import place_among

Array = np.ndarray[Any, Any]


def _numbered(s: Site) -> tuple[Value, Array, int]:
    """The input in numbers, the pool in these, how many words there are: words are numbered from 1
    on as they occur in the pool, others are 0."""
    entry = s.entries[0]
    if not isinstance(entry, Text):
        pool = np.array(s.ints("pool_int64s", []), np.int64)
        keys = np.unique(pool)
        return number_among(s, s.input(0), keys), np.searchsorted(keys, pool) + 1, len(keys)
    texts = s.texts("pool_strings")
    words = {word: number for number, word in enumerate(dict.fromkeys(texts), 1)}
    if not words:
        nothing = s.expand(s.scalar(0, DType.I32), entry.data.shape[:-1])
        return nothing, np.zeros(0, np.int64), 0
    place, hit = place_among(s, entry, list(words))
    number = s.op_("where", hit, s.op_("add", s.cast(place, DType.I32), 1), 0)
    return number, np.array([words[word] for word in texts], np.int64), len(words)


def _pools(s: Site, pool: Array) -> list[Array]:
    """The n-grams to be counted by length: entry n - 1 is a matrix with n columns."""
    ends = [*s.ints("ngram_counts"), len(pool)]
    if ends[0] != 0 or any(a > b or (b - a) % n for n, (a, b) in enumerate(pairwise(ends), 1)):
        raise ValueError(f"ngram_counts {ends[:-1]} do not divide a pool of {len(pool)}")
    return [pool[a:b].reshape(-1, n) for n, (a, b) in enumerate(pairwise(ends), 1)]


def _counts(s: Site, x: Value, trie: GramTrie, longest: int, width: int) -> Value:
    """How often n-grams of up to `longest` words are in the rows of x [N, C]: f32 [N, width].

    The words of an n-gram may be apart, all by the same number of words. Every word is tried as the
    first of an n-gram: a walk along the trie ends nowhere where no n-gram goes on, or the row ends.
    """
    batch, length = x.shape
    first = s.cast(x, DType.I32)
    hits = [trie.column(s, first)]
    for step in range(1, 2 + (s.integer("max_skip_count") if longest > 1 else 0)):
        if isinstance(length, int) and step >= max(length, 1):
            break
        pads = (0, 0, 0, (longest - 1) * step)
        longer = s.emit("pad", [first, s.scalar(0, DType.I32)], pads=pads, mode="constant")
        node = first
        for word in range(1, longest):
            node = trie.child(s, node, s.slice(longer, 1, word * step, word * step + length))
            hits.append(trie.column(s, node))
    found = s.emit("concat", hits, axis=1)
    counts = s.op_("lt", found, width)
    index = s.op_("where", counts, found, 0)  # others add 0 there
    zeros = s.expand(s.scalar(0.0, DType.F32), (batch, width))
    updates = s.cast(counts, DType.F32)
    return s.emit("scatter_elements", [zeros, index, updates], axis=1, reduction="add")


@lowers("TfIdfVectorizer")
def tf_idf_vectorizer(s: Site) -> Value:
    mode = s.text("mode")
    if mode not in ("TF", "IDF", "TFIDF"):
        raise ValueError(f"mode '{mode}' is not TF, IDF or TFIDF")
    x, pool, words = _numbered(s)
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
    if any(len(np.unique(matrix, axis=0)) < len(matrix) for matrix in pools):
        raise NotSupported("its pool has an n-gram twice", "give each once")
    columns = np.split(places, np.cumsum([len(matrix) for matrix in pools])[:-1])
    counted = [
        (matrix, column)
        for matrix, column in zip(pools, columns, strict=True)
        if len(matrix) and first <= matrix.shape[1] <= last
    ]
    width = int(places.max(initial=-1)) + 1
    if not width:
        empty = s.expand(s.scalar(0.0, DType.F32), (rows.shape[0], 0))
        return empty if x.type.rank == 2 else s.reshape(empty, (0,))
    longest = max((matrix.shape[1] for matrix, _ in counted), default=1)
    counts = _counts(s, rows, gram_trie(counted, words, width), longest, width)
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
