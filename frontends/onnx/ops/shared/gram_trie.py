"""Lists of n-grams as a trie in arrays, along which rows of words walk.

A double array (Aoe, "An efficient digital search algorithm by using a double-array structure",
1989): a node is its place, and the child of node p by word w is at base[p] + w if owner[there] = p.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Gram = tuple[int, ...]
NOWHERE = 0  # the node at which what is in no n-gram ends; nothing follows it
_CHUNK = 4096  # places that are tried at once


@dataclass(frozen=True)
class GramTrie:
    """first: i32 [words + 1], the node of each first word; word 0 is one that no n-gram has.

    base, owner, column: i32, of the nodes. column: what the n-gram that ends there adds to, or
    `none`. Every base plus every word is a place in them.
    """

    first: Array
    base: Array
    owner: Array
    column: Array


def gram_trie(grams: Sequence[tuple[Gram, int]], words: int, none: int) -> GramTrie:
    """The trie of different n-grams of words 1 ... `words`, each with its column."""
    children: dict[Gram, list[int]] = {(): []}
    columns = dict(grams)
    for gram in columns:
        for end in range(1, len(gram) + 1):
            if gram[:end] not in children:
                children[gram[:end]] = []
                children[gram[: end - 1]].append(gram[end - 1])
    for following in children.values():
        following.sort()
    return _placed(children, columns, words, none)


def _placed(
    children: dict[Gram, list[int]],
    columns: dict[Gram, int],
    words: int,
    none: int,
) -> GramTrie:
    """The nodes with most children choose their places first; the root has place -1 and base 0."""
    places: dict[Gram, int] = {(): -1}
    bases: dict[Gram, int] = {(): 0}
    free = np.ones(2 * (words + 1), np.bool_)
    free[: words + 1] = False
    for word in children[()]:
        places[(word,)] = word
    inner = [gram for gram in children if gram and children[gram]]
    lowest = words + 1
    for gram in sorted(inner, key=lambda gram: (-len(children[gram]), gram)):
        wanted = np.array(children[gram])
        lowest += int(np.argmax(free[lowest:])) if lowest < len(free) else 0
        base, free = _base(free, wanted, lowest)
        bases[gram] = base
        free[base + wanted] = False
    return _arrays(children, columns, (places, bases), words, none)


def _base(free: Array, wanted: Array, lowest: int) -> tuple[int, Array]:
    """The least base at which all children find a free place, and the places, more if need be."""
    start = max(lowest, int(wanted[0]))
    while True:
        missing = start + _CHUNK + int(wanted[-1]) + 1 - len(free)
        if missing > 0:
            free = np.append(free, np.ones(max(missing, len(free)), np.bool_))
        offsets = np.flatnonzero(free[start : start + _CHUNK]) + start - wanted[0]
        if len(wanted) == 1 and len(offsets):
            return int(offsets[0]), free
        fits = free[offsets[:, None] + wanted].all(axis=1)
        if fits.any():
            return int(offsets[np.argmax(fits)]), free
        start += _CHUNK


def _arrays(
    children: dict[Gram, list[int]],
    columns: dict[Gram, int],
    found: tuple[dict[Gram, int], dict[Gram, int]],
    words: int,
    none: int,
) -> GramTrie:
    places, bases = found
    size = max(bases.values()) + words + 1
    base, owner = np.zeros(size, np.int32), np.full(size, -2, np.int32)
    column, first = np.full(size, none, np.int32), np.zeros(words + 1, np.int32)
    for gram in sorted(children, key=len):
        for word in children[gram]:
            places[(*gram, word)] = bases[gram] + word
            owner[bases[gram] + word] = places[gram]
    for gram, place in places.items():
        if place >= 0:
            base[place] = bases.get(gram, 0)
            column[place] = columns.get(gram, none)
    first[children[()]] = children[()]
    return GramTrie(first, base, owner, column)
