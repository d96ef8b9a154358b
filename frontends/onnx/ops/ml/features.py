"""Preparation of features in ai.onnx.ml: scaling, imputing, encoding."""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from .....compiler.ir.dims import dmin
from ...containers import Text
from ...site import Site
from ...table import lowers
from ..shared.scores import ML, floats, rows
from ..standard.strings import FEW, matches, place_among

Array = np.ndarray[Any, Any]


@lowers("Scaler", domain=ML)
def scaler(s: Site) -> Value:
    x = s.cast(s.input(0), DType.F32)
    offset, scale = floats(s, "offset"), floats(s, "scale")
    for values in (offset, scale):
        if len(values) != 1:
            if not x.type.rank:
                raise ValueError(f"{len(values)} offsets or scales for {x.type}")
            x = s.sized(x, -1, len(values))
    return s.op_("mul", s.op_("sub", x, constant(offset)), constant(scale))


@lowers("Normalizer", domain=ML)
def normalizer(s: Site) -> Value:
    """Rows over their largest element, the sum of magnitudes, or the root of the sum of squares."""
    x, norm = s.cast(s.input(0), DType.F32), s.text("norm", "MAX")
    if x.type.rank not in (1, 2):
        raise ValueError(f"the input {x.type} is neither a vector nor a matrix")
    last = [x.type.rank - 1]
    if norm == "MAX":
        size = s.reduce("max", x, last)
    elif norm == "L1":
        size = s.reduce("sum", s.op_("abs", x), last)
    elif norm == "L2":
        size = s.op_("sqrt", s.reduce("sum", s.op_("mul", x, x), last))
    else:
        raise ValueError(f"norm '{norm}' is not MAX, L1 or L2")
    return s.op_("div", x, s.op_("where", s.op_("eq", size, 0.0), 1.0, size))


@lowers("Binarizer", domain=ML)
def binarizer(s: Site) -> Value:
    x = s.input(0)
    if x.dtype.is_float:
        return s.cast(s.op_("gt", x, s.real("threshold", 0.0)), x.dtype)
    wide = s.cast(x, DType.F32)
    return s.cast(s.op_("gt", wide, s.real("threshold", 0.0)), x.dtype)


@lowers("Imputer", domain=ML)
def imputer(s: Site) -> Value:
    x = s.input(0)
    if x.dtype.is_float:
        values: Array = np.array(s.floats("imputed_value_floats", []), x.dtype.numpy)
        wanted: float = s.real("replaced_value_float", 0.0)
    else:
        values = np.array(s.ints("imputed_value_int64s", []), x.dtype.numpy)
        wanted = s.integer("replaced_value_int64", 0)
    if not len(values):
        raise ValueError(f"it has no values to put into {x.type}")
    if len(values) > 1 and x.type.rank:
        if isinstance(x.shape[-1], int) and x.shape[-1] != len(values):
            values = values[:1]
        else:
            x = s.sized(x, -1, len(values))
    found = s.op_("isnan", x) if wanted != wanted else s.op_("eq", x, wanted)
    return s.op_("where", found, constant(values if len(values) > 1 else values.reshape(())), x)


@lowers("OneHotEncoder", domain=ML)
def one_hot_encoder(s: Site) -> Value:
    """One truth value per category; what is none of them is all zeros, or ends the run."""
    words, numbers = s.texts("cats_strings", []), s.ints("cats_int64s", [])
    if not words and not numbers:
        raise ValueError("it has no categories")
    entry = s.entries[0]
    if isinstance(entry, Text):
        found = _categories(s, entry, words)
    else:
        x = s.input(0)
        wide = s.reshape(s.cast(x, DType.I64), (*x.shape, 1))
        found = s.op_("eq", wide, constant(np.array(numbers, np.int64)))
    if not s.integer("zeros", 1):
        _require_category(s, found)
    return s.cast(found, DType.F32)


def _categories(s: Site, text: Text, words: list[str]) -> Value:
    """Which of the categories each string is: bool [..., number of categories]."""
    if len(words) <= FEW or len(set(words)) < len(words):
        return matches(s, text.data, words)
    place, hit = place_among(s, text, words)
    each = s.iota((*(1,) * place.type.rank, len(words)), place.type.rank, DType.I64)
    place, hit = (s.reshape(value, (*value.shape, 1)) for value in (place, hit))
    return s.op_("and", hit, s.op_("eq", place, each))


def _require_category(s: Site, found: Value) -> None:
    """End the run where an element is in no category."""
    count, flags = found.shape[-1], s.cast(found, DType.I64)
    none = s.op_("sub", 1, s.reduce("max", flags, [found.type.rank - 1]))
    index = s.op_("mul", none, s.scalar(count, DType.I64))
    attrs = {"sizes": (count,), "what": "a value that is none of its categories"}
    s.emitter.emit_node("check_index", [index], attrs)


@lowers("ArrayFeatureExtractor", domain=ML)
def array_feature_extractor(s: Site) -> Value:
    x, index = s.input(0), s.input(1)
    picked = s.emit("gather", [x, s.reshape(index, (index.type.elements,))], axis=x.type.rank - 1)
    return s.reshape(picked, (1, *picked.shape)) if x.type.rank == 1 else picked


@lowers("FeatureVectorizer", domain=ML)
def feature_vectorizer(s: Site) -> Value:
    """Matrices side by side; each is cut or filled with zeros to its given width."""
    widths = s.ints("inputdimensions", [])
    if len(widths) != len(s.inputs):
        raise ValueError(f"{len(widths)} widths for {len(s.inputs)} inputs")
    parts = []
    for number, width in enumerate(widths):
        x = s.input(number)
        x = s.reshape(x, (x.shape[0], -1)) if x.type.rank > 2 else x
        part = rows(s, x)
        kept = dmin(part.shape[1], width)
        part = s.slice(part, 1, 0, kept)
        if kept != width:
            pads = (0, 0, 0, width - kept)
            part = s.emit("pad", [part, s.scalar(0.0, DType.F32)], pads=pads, mode="constant")
        parts.append(part)
    return s.emit("concat", parts, axis=1)
