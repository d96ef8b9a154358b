"""Strings as their bytes, which operators that compare or join them need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.dims import Dim, dmax
from ...broadcasting import common_shape
from ...containers import Content, Text
from ...reading.tensors import padded
from ...site import NotSupported, Site
from ...table import lowers, refuses
from ...text_moves import widened
from ..shared.word_hash import place_of_words

Array = np.ndarray[Any, Any]
FEW = 8  # words that strings are compared with one by one


def encoded(strings: Sequence[str]) -> Array:
    """UTF-8 bytes, u8 [number, width of the longest], zeros after the shorter ones."""
    return padded([text.encode() for text in strings])


def text_at(s: Site, strings: Sequence[str], index: Value) -> Text:
    """The strings of a constant list at an index of any shape."""
    return Text(s.emit("gather", [constant(encoded(strings)), index], axis=0))


def chosen(s: Site, condition: Value, text: Text, other: str) -> Text:
    """The strings where a condition of their shape holds, and another one elsewhere."""
    rest = constant(encoded([other]).reshape(-1))
    width = dmax(text.data.shape[-1], rest.shape[-1])
    flag = s.reshape(condition, (*condition.shape, 1))
    return Text(s.op_("where", flag, _widened(s, text.data, width), _widened(s, rest, width)))


def _widened(s: Site, data: Value, width: Dim) -> Value:
    return widened(s.emitter, data, width)


def _equal(s: Site, a: Value, b: Value) -> Value:
    """Whether strings are the same: bool, without the axis of bytes."""
    width = dmax(a.shape[-1], b.shape[-1])
    same = s.op_("eq", _widened(s, a, width), _widened(s, b, width))
    axis = [same.type.rank - 1]
    return s.cast(s.reduce("min", s.cast(same, DType.U8), axis, keepdims=False), DType.BOOL)


def matches(s: Site, data: Value, strings: Sequence[str]) -> Value:
    """Which of the strings each element equals: bool [..., number of strings]."""
    s.emitter.words.update(dict.fromkeys(strings))
    column = s.reshape(data, (*data.shape[:-1], 1, data.shape[-1]))
    return _equal(s, column, constant(encoded(strings)))


def place_among(s: Site, text: Text, words: Sequence[str]) -> tuple[Value, Value]:
    """The place (i64) of the first word that each string equals, and whether there is one; of
    other strings the place is that of any word."""
    s.emitter.words.update(dict.fromkeys(words))
    different = list(dict.fromkeys(words))
    if len(different) > FEW:
        place, hit = place_of_words(s, text.data, different)
        if len(different) < len(words):
            places = {word: place for place, word in reversed(list(enumerate(words)))}
            first = np.array([places[word] for word in different], np.int64)
            place = s.emit("gather", [constant(first), place], axis=0)
        return place, hit
    found = s.cast(matches(s, text.data, words), DType.U8)
    last = found.type.rank - 1
    place = s.emit("argmax", [found], axis=last, keepdims=False)
    return place, s.cast(s.reduce("max", found, [last], keepdims=False), DType.BOOL)


def texts(s: Site) -> tuple[Value, Value]:
    """The bytes of both inputs. Raises ValueError where one is no string."""
    a, b = (entry.data if isinstance(entry, Text) else None for entry in s.entries[:2])
    if a is None or b is None:
        raise ValueError("one input is strings, the other is not")
    return a, b


def equal_texts(s: Site) -> Value:
    """Equal on strings."""
    return _equal(s, *texts(s))


@lowers("StringConcat")
def string_concat(s: Site) -> Sequence[Content]:
    """The bytes of the first string, then those of the second, which begin where it ends."""
    a, b = texts(s)
    width = a.shape[-1] + b.shape[-1]
    shape = (*common_shape(a.shape[:-1], b.shape[:-1]), width)
    filled = s.op_("ne", a, 0)
    last = [a.type.rank - 1]
    length = s.reduce("sum", s.cast(filled, DType.I64), last)
    place = s.op_("sub", s.iota((width,), 0, DType.I64), length)
    index = s.expand(s.op_("max", place, 0), shape)
    second = s.expand(_widened(s, b, width), shape)
    moved = s.emit("gather_elements", [second, index], axis=len(shape) - 1)
    first = s.expand(_widened(s, a, width), shape)
    return [Text(s.op_("where", s.op_("lt", place, 0), first, moved))]


@refuses("ImageDecoder")
def image_decoder(s: Site) -> Value:
    raise NotSupported("images are not decoded", "decode them outside, and give the model pixels")
