"""Labels and categories in ai.onnx.ml: strings and numbers mapped to each other, maps of scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value
from .....compiler.ir.assumptions import EQUAL
from ...containers import Content, Maps, Text
from ...site import Site
from ...table import lowers
from ..shared.lookups import (
    DENSE,
    denormals_flushed,
    lie_close,
    place_among_numbers,
    without_denormals,
)
from ..shared.scores import ML, pick
from ..standard.strings import chosen, place_among, text_at

Array = np.ndarray[Any, Any]
MIN_TABLE = 5  # binary logarithm of its least size


@lowers("ZipMap", domain=ML)
def zip_map(s: Site) -> Sequence[Content]:
    """The scores as they are; which class each column belongs to goes with them."""
    classes: list[Any] = [*s.texts("classlabels_strings", []), *s.ints("classlabels_int64s", [])]
    x = s.input(0)
    if x.type.rank not in (1, 2):
        raise ValueError(f"the input {x.type} is neither a vector nor a matrix")
    x = s.reshape(x, (1, *x.shape)) if x.type.rank == 1 else x
    count = len(classes)
    s.require(x.shape[1], EQUAL, count, f"{count} class labels for {x.type}")
    return [Maps(s.reshape(x, (x.shape[0], count)), tuple(classes))]


@lowers("CategoryMapper", domain=ML)
def category_mapper(s: Site) -> Content:
    """Strings to numbers, or numbers to strings, by two lists."""
    words, numbers = s.texts("cats_strings", []), np.array(s.ints("cats_int64s", []), np.int64)
    if len(words) != len(numbers):
        raise ValueError("it needs as many strings as numbers")
    if isinstance(s.entries[0], Text):
        place, hit = place_among(s, s.entries[0], words)
        return _value_at(s, numbers, place, hit, s.integer("default_int64", -1))
    keys, texts = numbers, np.array(words, object)
    return _by_number(s, keys, texts, s.text("default_string", "_Unused"))


@lowers("LabelEncoder", domain=ML)
def label_encoder(s: Site) -> Content:
    """Each element's place among the keys, then the value there."""
    entry = s.entries[0]
    keys, values, default = _first_version(s) if s.opset < 2 else _mapping(s)
    if len(keys) != len(values):
        raise ValueError("it needs as many keys as values")
    if isinstance(entry, Text):
        place, hit = place_among(s, entry, _strings(keys))
        return _value_at(s, values, place, hit, default)
    return _by_number(s, keys, values, default)


def _strings(values: Array) -> list[str]:
    """A list of strings. Raises ValueError when they are numbers."""
    if values.dtype != object:
        raise ValueError("its input is strings, and it maps numbers")
    return [str(value) for value in values]


def _value_at(s: Site, values: Array, place: Value, hit: Value, default: Any) -> Content:
    """values[place] where it is a hit, the default elsewhere."""
    if values.dtype == object:
        return chosen(s, hit, text_at(s, _strings(values), place), str(default))
    return s.op_("where", hit, pick(s, values, place), default)


def _by_number(s: Site, keys: Array, values: Array, default: Any) -> Content:
    """The value of a number, by its place among sorted keys; of keys given twice, the first. Floats
    below the normal ones are all the key 0, as for every comparison in compiled code.

    Integer keys that lie close together number a table.
    """
    x = s.input(0)
    if keys.dtype != x.dtype.numpy:
        raise ValueError(f"keys of type {keys.dtype} for the input {x.type}")
    if lie_close(keys):
        return _numbered(s, x, keys, values, default)
    keys = without_denormals(keys)
    if (keys == 0).any():
        x = denormals_flushed(s, x)
    nan = np.isnan(keys) if keys.dtype.kind == "f" else np.zeros(len(keys), bool)
    _, first = np.unique(keys, return_index=True)
    order = np.array([i for i in first if not nan[i]], np.int64)
    place = s.expand(s.scalar(0, DType.I64), x.shape)
    hit = s.expand(s.scalar(False, DType.BOOL), x.shape)
    if len(order):
        rank = place_among_numbers(s, x, keys[order])
        place, hit = pick(s, order, rank), s.op_("eq", pick(s, keys[order], rank), x)
    if nan.any() and s.opset >= 4:  # before, a key that is NaN equals nothing
        unordered = s.emit("isnan", [x])
        place = s.op_("where", unordered, int(np.flatnonzero(nan)[0]), place)
        hit = s.op_("or", hit, unordered)
    if not len(values):
        raise ValueError("it has no keys")
    return _value_at(s, values, place, hit, default)


def _numbered(s: Site, x: Value, keys: Array, values: Array, default: Any) -> Content:
    """The value that a table holds for an integer: the default before, between and behind keys.

    Tables have few different sizes, so that many encoders share one kernel.
    """
    low, high = int(keys.min()), int(keys.max())
    low = min(low, 0) if high < DENSE * len(keys) else low
    size = 1 << max(MIN_TABLE, (high - low + 3).bit_length())
    table = np.full(size, default, values.dtype)
    table[(keys - low + 1)[::-1]] = values[::-1]  # of keys given twice, the first counts
    inside = s.op_("min", s.op_("max", x, low - 1), low + size - 2)
    place = s.op_("sub", inside, low - 1)
    if values.dtype == object:
        return text_at(s, _strings(table), place)
    return pick(s, table, place)


def _first_version(s: Site) -> tuple[Array, Array, Any]:
    """Keys, values and the default of opset 1: strings and their places, in either direction."""
    words = np.array(s.texts("classes_strings"), object)
    places = np.arange(len(words), dtype=np.int64)
    if isinstance(s.entries[0], Text):
        return words, places, s.integer("default_int64", -1)
    return places, words, s.text("default_string", "_Unused")


def _mapping(s: Site) -> tuple[Array, Array, Any]:
    """Keys, values and the default."""
    keys, _ = _side(s, "keys")
    values, default = _side(s, "values")
    if s.has("default_tensor"):
        texts = values.dtype == object
        default = s.string_tensor("default_tensor")[0] if texts else _first(s, "default_tensor")
    return keys, values, default


def _first(s: Site, name: str) -> Any:
    return s.array(name).reshape(-1)[0].item()


def _side(s: Site, side: str) -> tuple[Array, Any]:
    """The keys or the values, and what stands for a value that is missing."""
    if s.has(f"{side}_tensor"):
        if s.is_string_tensor(f"{side}_tensor"):
            return np.array(s.string_tensor(f"{side}_tensor"), object), "_Unused"
        array = s.array(f"{side}_tensor").reshape(-1)
        return array, 0 if array.dtype.kind == "f" else -1
    if s.has(f"{side}_strings"):
        words = np.array(s.texts(f"{side}_strings"), object)
        return words, s.text("default_string", "_Unused")
    if s.has(f"{side}_floats"):
        return np.array(s.floats(f"{side}_floats"), np.float32), s.real("default_float", -0.0)
    if s.has(f"{side}_int64s"):
        return np.array(s.ints(f"{side}_int64s"), np.int64), s.integer("default_int64", -1)
    raise ValueError(f"it has no {side}")
