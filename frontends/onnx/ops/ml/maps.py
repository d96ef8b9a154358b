"""Maps as vectors of their values (ai.onnx.ml): DictVectorizer and CastMap."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Content, Maps, Text
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.scores import ML
from ..standard.strings import chosen
from ..standard.text_numbers import read

_NONE = "0.f"  # what ONNX Runtime gives for a string that is missing


@lowers("DictVectorizer", domain=ML)
def dict_vectorizer(s: Site) -> Content:
    """The values of the keys of a vocabulary; 0, or an empty string, for those that are missing."""
    words, numbers = s.texts("string_vocabulary", []), s.ints("int64_vocabulary", [])
    if bool(words) == bool(numbers):
        raise ValueError("it needs a vocabulary, either of strings or of integers")
    return _values(s, _maps(s), words or numbers)


@lowers("CastMap", domain=ML)
def cast_map(s: Site) -> Content:
    """All values in the order of their keys, or those of the first `max_map` integers."""
    maps, form, kind = _maps(s), s.text("map_form", "DENSE"), s.text("cast_to", "TO_FLOAT")
    if form not in ("DENSE", "SPARSE"):
        raise ValueError(f"map_form '{form}' is not DENSE or SPARSE")
    if form == "SPARSE":
        found = _values(s, maps, range(s.integer("max_map", 1)))
    elif maps.keys is None:
        found = Text(maps.data) if maps.is_text else maps.data
    else:
        raise NotSupported("it takes all entries of a map of which only some are known")
    if kind == "TO_STRING":
        return _strings(s, found, form)
    if kind not in ("TO_FLOAT", "TO_INT64"):
        raise ValueError(f"cast_to '{kind}' is not TO_FLOAT, TO_INT64 or TO_STRING")
    dtype = DType.F32 if kind == "TO_FLOAT" else DType.I64
    if not isinstance(found, Text):
        return s.cast(found, dtype)
    there = _filled(s, found)
    return s.op_("where", there, read(s, chosen(s, there, found, "0"), dtype), 0)


def _filled(s: Site, text: Text) -> Value:
    """Which strings are not empty."""
    filled = s.cast(s.op_("ne", text.data, 0), DType.U8)
    last = [text.data.type.rank - 1]
    return s.cast(s.reduce("max", filled, last, keepdims=False), DType.BOOL)


def _strings(s: Site, found: Value | Text, form: str) -> Text:
    if not isinstance(found, Text):
        raise NotSupported("numbers of a map as strings", "let the map have strings, or cast later")
    return found if form == "DENSE" else chosen(s, _filled(s, found), found, _NONE)


def _maps(s: Site) -> Maps:
    entry = s.entries[0]
    if not isinstance(entry, Maps):
        raise ValueError("its input is no map")
    return entry


def _values(s: Site, maps: Maps, keys: Sequence[int | str]) -> Value | Text:
    """What belongs to some keys, in their order."""
    if maps.keys is None:
        raise NotSupported("it takes some entries of a map of which only the order is known")
    data, place = maps.data, {key: at for at, key in enumerate(maps.keys)}
    if tuple(keys) != maps.keys:
        if any(key not in place for key in keys):
            raise NotSupported("it takes keys of a map that nothing has told of before")
        columns = np.array([place[key] for key in keys], np.int64)
        data = s.emit("gather", [data, constant(columns)], axis=1)
    return Text(data) if maps.is_text else data
