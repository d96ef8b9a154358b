"""Operators of com.microsoft on tokens: hashes, repeats that are blocked, embeddings by characters.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md and, where that is silent, its kernels.
"""

from __future__ import annotations

import math

import numpy as np

from .....compiler.ir import DType, Graph, TensorType, Value, constant
from .....compiler.ir.assumptions import AT_MOST, EQUAL
from .....compiler.ir.dims import ceildiv, dmax
from ...containers import Text
from ...site import Site
from ...table import MICROSOFT, lowers
from ..shared.byte_rows import strings_of
from ..standard.sampling import number

# MurmurHash3_x86_32, by Austin Appleby (public domain).
_FACTORS = (0xCC9E2D51, 0x1B873593)
_ADDED = 0xE6546B64
_MIX = ((16, 0x85EBCA6B), (13, 0xC2B2AE35))
_WORD = 4  # bytes


@lowers("MurmurHash3", domain=MICROSOFT)
def murmur_hash(s: Site) -> Value:
    """A hash of 32 bits of each element's bytes."""
    seed = s.integer("seed", 0) & 0xFFFFFFFF
    if isinstance(s.entries[0], Text):
        strings = strings_of(s)
        rows = strings.data
        length = s.reduce("sum", s.cast(s.op_("ne", rows, 0), DType.U32), [1], keepdims=False)
        words = _words_of_bytes(s, rows)
        hashes = _mixed(s, _scanned(s, words, length, seed), length)
        hashes = s.reshape(hashes, strings.shape)
    else:
        x = s.input(0)
        if x.dtype.bytes not in (4, 8):
            raise ValueError(f"elements of type {x.dtype} are not hashed")
        bits = s.emit("bitcast", [x], dtype=DType.U32 if x.dtype.bytes == 4 else DType.U64)
        hashes = s.scalar(seed, DType.U32)
        for place in range(0, x.dtype.bytes, _WORD):
            word = bits if not place else s.op_("shr", bits, 8 * place)
            hashes = _next(s, hashes, s.cast(word, DType.U32))
        hashes = _mixed(s, hashes, s.scalar(x.dtype.bytes, DType.U32))
    return hashes if s.integer("positive", 1) else s.emit("bitcast", [hashes], dtype=DType.I32)


def _words_of_bytes(s: Site, rows: Value) -> Value:
    """Bytes [n, width] as words of four, the first byte the lowest: u32 [words, n]."""
    count = ceildiv(rows.shape[1], _WORD)
    pads = (0, 0, 0, count * _WORD - rows.shape[1])
    wide = s.emit("pad", [rows, s.scalar(0, DType.U8)], pads=pads, mode="constant")
    parts = s.cast(s.reshape(wide, (rows.shape[0], count, _WORD)), DType.U32)
    shifts = constant(np.array([1 << 8 * place for place in range(_WORD)], np.uint32))
    words = s.reduce("sum", s.op_("mul", parts, shifts), [2], keepdims=False)
    return s.transpose(words, (1, 0))


def _rotated(s: Site, x: Value, by: int) -> Value:
    return s.op_("bitor", s.op_("shl", x, by), s.op_("shr", x, 32 - by))


def _scrambled(s: Site, word: Value) -> Value:
    return s.op_("mul", _rotated(s, s.op_("mul", word, _FACTORS[0]), 15), _FACTORS[1])


def _next(s: Site, hashes: Value, word: Value) -> Value:
    """The hash after one more word of four bytes."""
    turned = _rotated(s, s.op_("bitxor", hashes, _scrambled(s, word)), 13)
    return s.op_("add", s.op_("mul", turned, 5), _ADDED)


def _scanned(s: Site, words: Value, length: Value, seed: int) -> Value:
    """The hashes [n] of words [words, n] of strings of some bytes."""
    count, n = words.shape
    start = s.expand(s.scalar(seed, DType.U32), (n,))
    if count == 0:
        return start
    place = s.iota((count,), 0, DType.U32)
    left = s.op_("sub", s.reshape(s.cast(length, DType.I64), (1, n)),
                 s.op_("mul", s.reshape(s.cast(place, DType.I64), (count, 1)), _WORD))  # fmt: skip
    state, word, more = (
        Value(TensorType(DType.U32, (n,))),
        Value(TensorType(DType.U32, (n,))),
        Value(TensorType(DType.I64, (n,))),
    )
    s.emitter.enter()
    whole = _next(s, state, word)
    last = s.op_("bitxor", state, _scrambled(s, word))
    after = s.op_("where", s.op_("ge", more, _WORD), whole, last)
    after = s.emitter.real(s.op_("where", s.op_("gt", more, 0), after, state))
    nodes, _ = s.emitter.leave()
    region = Graph([state, word, more], [after], nodes, "hash_step")
    attributes = {"num_state": 1, "reverse_in": (False, False), "reverse_out": (), "trip": count}
    return s.emitter.emit_node("scan", [start, words, left], attributes, regions=[region])[0]


def _mixed(s: Site, hashes: Value, length: Value) -> Value:
    """The hash after all words."""
    hashes = s.op_("bitxor", hashes, length)
    for shift, factor in _MIX:
        hashes = s.op_("mul", s.op_("bitxor", hashes, s.op_("shr", hashes, shift)), factor)
    return s.op_("bitxor", hashes, s.op_("shr", hashes, 16))


@lowers("NGramRepeatBlock", domain=MICROSOFT)
def ngram_repeat_block(s: Site) -> Value:
    """Scores [batch, words], -inf for words that would end an n-gram of the sequence again."""
    ids, scores, size = s.input(0), s.input(1), s.integer("ngram_size")
    if size < 1 or ids.type.rank != 2 or scores.type.rank != 2:
        raise ValueError(f"{ids.type} and {scores.type} have no n-grams of {size} words")
    batch, length = ids.shape
    s.require(batch, EQUAL, scores.shape[0], f"scores {scores.type} do not fit {ids.type}")
    count = dmax(length - size + 1, 0)
    longer = s.emit("pad", [ids, s.scalar(0, ids.dtype)], pads=(0, size, 0, size), mode="constant")
    repeats = s.expand(s.scalar(True, DType.BOOL), (batch, count))
    for place in range(size - 1):
        end = length + 1 + place
        tail = s.slice(longer, 1, end, end + 1)
        same = s.op_("eq", s.slice(longer, 1, size + place, size + place + count), tail)
        repeats = s.op_("and", repeats, same)
    words = s.slice(longer, 1, 2 * size - 1, 2 * size - 1 + count)
    index = s.op_("where", repeats, words, 0)  # others block nothing there
    flags = [s.expand(s.scalar(0, DType.I32), scores.shape), index, s.cast(repeats, DType.I32)]
    blocked = s.emit("scatter_elements", flags, axis=1, reduction="max")
    return s.op_("where", s.op_("gt", blocked, 0), s.scalar(-math.inf, scores.dtype), scores)


@lowers("BifurcationDetector", domain=MICROSOFT)
def bifurcation_detector(s: Site) -> list[Value]:
    """The tokens so far with those of a prediction that agree with the source, and the next; where
    in the source the last n-grams of these end."""
    source, current, start, predicted = s.input(0), s.input(1), s.input(2), s.optional(3)
    tokens = current
    if predicted is not None:
        tokens = s.emit("concat", [current, _agreed(s, source, start, predicted)], axis=0)
    return [tokens, s.reshape(_suffix_place(s, source, tokens), start.shape)]


def _agreed(s: Site, source: Value, start: Value, predicted: Value) -> Value:
    """The predicted tokens up to the first that is not the source's, it included."""
    (first,) = s.dims(s.reshape(start, (1,)))
    s.require(first, AT_MOST, source.shape[0], "a place behind the source tokens")
    rest = s.slice(source, 0, first, source.shape[0])
    (count,) = rest.shape
    s.require(predicted.shape[0], EQUAL, count + 1, "one more token is predicted than is left")
    same = s.op_("eq", s.slice(s.reshape(predicted, (count + 1,)), 0, 0, count), rest)
    run = s.emit("cumprod", [s.cast(same, DType.I64)], axis=0)
    (agreed,) = s.dims(s.reduce("sum", run, [0]))
    return s.slice(predicted, 0, 0, agreed + 1)


def _suffix_place(s: Site, source: Value, tokens: Value) -> Value:
    """The end in the source of the last n-gram of the tokens that is there once; -1: of none.

    Longer ones count before shorter ones, up to the first that is not there, or is its end.
    """
    least, most = s.integer("min_ngram_size"), s.integer("max_ngram_size")
    if not 1 <= least <= most:
        raise ValueError(f"n-grams of {least} to {most} words do not exist")
    (length,), (count,) = source.shape, tokens.shape
    padded = s.emit("pad", [tokens, s.scalar(0, tokens.dtype)], pads=(most, 0), mode="constant")
    beyond = s.emit("pad", [source, s.scalar(0, source.dtype)], pads=(0, most), mode="constant")
    ends, known = number(s, length, DType.I64), number(s, count, DType.I64)
    place: Value = s.scalar(-1, DType.I64)
    going: Value = s.scalar(True, DType.BOOL)
    line = s.iota((length,), 0, DType.I64)
    for size in range(least, most + 1):
        found = s.op_("le", line, s.op_("sub", ends, size))
        for word in range(size):
            at = most + count - size + word
            same = s.op_(
                "eq", s.slice(beyond, 0, word, word + length), s.slice(padded, 0, at, at + 1)
            )
            found = s.op_("and", found, same)
        hits = s.reduce("sum", s.cast(found, DType.I64), [0], keepdims=False)
        first = s.reduce("min", _or_more(s, found, line, ends), [0], keepdims=False)
        end = s.op_("add", first, size)
        going = s.op_("and", going, s.op_("and", s.op_("ge", known, size), s.op_("gt", hits, 0)))
        at_end = s.op_("ge", end, ends)
        once = s.op_("or", s.op_("eq", hits, 1), at_end)
        place = s.op_("where", going, s.op_("where", once, end, -1), place)
        going = s.op_("and", going, s.op_("not", at_end))
    return place


def _or_more(s: Site, found: Value, line: Value, ends: Value) -> Value:
    """The places that were found, and one behind them all: i64, never empty."""
    places = s.op_("where", found, line, ends)
    return s.emit("concat", [places, s.reshape(ends, (1,))], axis=0)


@lowers("WordConvEmbedding", domain=MICROSOFT)
def word_embedding(s: Site) -> Value:
    """Each word [characters] as the maxima of a convolution over its characters' embeddings."""
    words, weight, bias, table = (s.input(i) for i in range(4))
    if words.type.rank != 2 or weight.type.rank != 4:
        raise ValueError(f"words {words.type} and filters {weight.type} need 2 and 4 dimensions")
    filters, _, span, size = weight.shape
    count, length = words.shape
    s.require(span, AT_MOST, length, f"filters of {span} characters for words of {length}")
    begun = s.op_("gt", s.slice(words, 1, 0, 1), 0)
    characters = s.reduce("sum", s.cast(s.op_("gt", words, 0), DType.I64), [1])
    characters = s.op_("where", begun, characters, 0)
    used = s.op_("max", characters, number(s, span, DType.I64))
    letters = s.emit("gather", [table, words], axis=0)
    picture = s.reshape(letters, (count, 1, length, size))
    found = s.emit(
        "conv",
        [picture, weight, bias],
        strides=(1, 1),
        dilations=(1, 1),
        pads=(0, 0, 0, 0),
        groups=1,
    )
    windows = found.shape[2]
    values = s.op_("tanh", s.reshape(found, (count, filters, windows)))
    last = s.op_("sub", used, number(s, span, DType.I64))
    within = s.op_("le", s.iota((1, windows), 1, DType.I64), last)
    values = s.op_("where", s.reshape(within, (count, 1, windows)), values, -1e12)
    maxima = s.reduce("max", values, [2], keepdims=False)
    return s.op_("where", s.op_("gt", characters, 0), maxima, 0.0)
