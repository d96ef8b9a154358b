"""Lists of n-grams as a trie in arrays, along which rows of words walk.

A node is a number; its child by a word is found by a perfect hash of both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...site import Site
from .perfect_hash import PerfectHash, perfect_hash

Array = np.ndarray[Any, Any]
NOWHERE = 0  # the node at which what is in no n-gram ends; nothing follows it
_WORD_BITS = 32  # of a key, below those of the node


@dataclass(frozen=True)
class GramTrie:
    """Nodes 1 ... words are those of the single words, the others are numbered behind them.

    parents, words: i32, the node before node `words + k`, and the word between, at k; of 0 at 0.
    columns: i32, of all nodes, what the n-gram that ends there adds to, or `none`.
    factors: u32 [2, 2], by which nodes and words become two hashes.
    """

    count: int
    parents: Array
    words: Array
    columns: Array
    factors: Array
    found: PerfectHash

    def column(self, s: Site, node: Value) -> Value:
        """The columns of nodes."""
        return s.emit("gather", [constant(self.columns), node], axis=0)

    def child(self, s: Site, node: Value, word: Value) -> Value:
        """The nodes (i32) behind others by words of theirs, or `NOWHERE`."""
        node, word = s.cast(node, DType.I32), s.cast(word, DType.I32)
        parts = [s.cast(part, DType.U32) for part in (node, word)]
        first, second = (
            s.op_("add", s.op_("mul", parts[0], int(a)), s.op_("mul", parts[1], int(b)))
            for a, b in self.factors
        )
        found = self.found.find(s, first, second)
        same = [
            s.op_("eq", s.emit("gather", [constant(table), found], axis=0), part)
            for table, part in ((self.parents, node), (self.words, word))
        ]
        # entry 0 is that of no word behind no node: `NOWHERE`, too
        hit = s.op_("and", s.op_("and", *same), s.op_("gt", found, 0))
        return s.op_("where", hit, s.op_("add", found, self.count), NOWHERE)


def gram_trie(pools: Sequence[tuple[Array, Array]], words: int, none: int) -> GramTrie:
    """The trie of n-grams of words 1 ... `words`: of each length n a matrix i64 [k, n] of different
    ones, and their columns [k]."""
    nodes = [grams[:, 0] for grams, _ in pools]
    columns = [np.full(words + 1, none, np.int32)]
    keys = [np.zeros(1, np.int64)]
    count = words + 1  # of nodes so far
    for depth in range(max((grams.shape[1] for grams, _ in pools), default=1)):
        if depth:
            level = [
                (node << _WORD_BITS) | grams[:, depth] if grams.shape[1] > depth else node[:0]
                for node, (grams, _) in zip(nodes, pools, strict=True)
            ]
            new, which = np.unique(np.concatenate(level), return_inverse=True)
            ends = np.cumsum([len(part) for part in level])[:-1]
            nodes = np.split(which.reshape(-1) + count, ends)
            keys.append(new)
            columns.append(np.full(len(new), none, np.int32))
            count += len(new)
        for node, (grams, column) in zip(nodes, pools, strict=True):
            if grams.shape[1] == depth + 1:
                first = count - len(columns[-1])
                columns[-1][node - first] = column
    known = np.concatenate(keys)
    parents, following = known >> _WORD_BITS, known & ((1 << _WORD_BITS) - 1)

    def hashes(factors: Array) -> Array:
        node, word = (part.astype(np.uint32) for part in (parents, following))
        return factors[:, :1] * node + factors[:, 1:] * word

    factors, found = perfect_hash((2,), hashes)
    tables = (parents.astype(np.int32), following.astype(np.int32), np.concatenate(columns))
    return GramTrie(words, *tables, factors, found)
