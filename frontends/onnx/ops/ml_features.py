"""Preparation of features in ai.onnx.ml: scaling, imputing, encoding. Numbers only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ....compiler.ir import DType, Value, constant
from ..containers import Text
from ..site import NotSupported, Site
from ..table import lowers, refuses
from .ml_common import ML, STRINGS_REMEDY, floats, pick, rows
from .strings import matches

Array = np.ndarray[Any, Any]


@lowers("Scaler", domain=ML)
def scaler(s: Site) -> Value:
    x = s.cast(s.input(0), DType.F32)
    offset, scale = floats(s, "offset"), floats(s, "scale")
    for values in (offset, scale):
        if len(values) != 1 and x.shape[-1:] != (len(values),):
            raise ValueError(f"{len(values)} offsets or scales for {x.type}")
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
    if len(values) > 1 and x.shape[-1:] != (len(values),):
        values = values[:1]
    found = s.op_("isnan", x) if wanted != wanted else s.op_("eq", x, wanted)
    return s.op_("where", found, constant(values if len(values) > 1 else values.reshape(())), x)


@lowers("OneHotEncoder", domain=ML)
def one_hot_encoder(s: Site) -> Value:
    x = s.input(0)
    if s.has("cats_strings") and s.texts("cats_strings"):
        raise NotSupported("its categories are strings", STRINGS_REMEDY)
    categories = np.array(s.ints("cats_int64s", []), np.int64)
    if not len(categories):
        raise ValueError("it has no categories")
    if not s.integer("zeros", 1):
        raise NotSupported("values outside of the categories are an error (zeros=0)", "use zeros=1")
    wide = s.reshape(s.cast(x, DType.I64), (*x.shape, 1))
    return s.cast(s.op_("eq", wide, constant(categories)), DType.F32)


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
        have = part.shape[1]
        if not isinstance(have, int):
            raise NotSupported(f"input {number} has an unknown number of columns", "pin its shape")
        if have > width:
            part = s.slice(part, 1, 0, width)
        elif have < width:
            zero = s.expand(s.scalar(0.0, DType.F32), (part.shape[0], width - have))
            part = s.emit("concat", [part, zero], axis=1)
        parts.append(part)
    return s.emit("concat", parts, axis=1)


@lowers("LabelEncoder", domain=ML)
def label_encoder(s: Site) -> Value:
    """Each element's place among the sorted keys, by bisection, then the value there."""
    if isinstance(s.entries[0], Text):
        return _label_of_text(s, s.entries[0])
    x = s.input(0)
    keys, values, default = _mapping(s)
    if keys.dtype != x.dtype.numpy:
        raise ValueError(f"keys of type {keys.dtype} for the input {x.type}")
    nan = np.isnan(keys) if keys.dtype.kind == "f" else np.zeros(len(keys), bool)
    _, first = np.unique(keys, return_index=True)  # of keys given twice, the first counts
    order = np.array([i for i in first if not nan[i]], np.int64)
    out = s.expand(s.scalar(default, DType.of(values.dtype)), x.shape)
    if len(order):
        place = _bisect(s, x, keys[order])
        hit = s.op_("eq", pick(s, keys[order], place), x)
        out = s.op_("where", hit, pick(s, values[order], place), out)
    if nan.any() and s.opset >= 4:  # before, a key that is NaN equals nothing
        out = s.op_("where", s.op_("isnan", x), values[nan][0].item(), out)
    return out


def _bisect(s: Site, x: Value, table: Array) -> Value:
    """The index of the last entry of a sorted table that is not above x (0 if there is none)."""
    low = s.expand(s.scalar(0, DType.I32), x.shape)
    step = 1 << (len(table).bit_length() - 1)
    while step:
        probe = s.op_("min", s.op_("add", low, step), len(table) - 1)
        low = s.op_("where", s.op_("le", pick(s, table, probe), x), probe, low)
        step >>= 1
    return low


def _label_of_text(s: Site, text: Text) -> Value:
    """The value of the first key that a string equals."""
    if s.opset < 2:
        keys = s.texts("classes_strings")
        values, default = np.arange(len(keys), dtype=np.int64), s.integer("default_int64", -1)
    else:
        keys = s.texts("keys_strings") if s.has("keys_strings") else s.string_tensor("keys_tensor")
        values, default = _values(s)
    if len(keys) != len(values):
        raise ValueError("it needs as many keys as values")
    found = matches(s, text.data, keys)
    place = s.emit("argmax", [s.cast(found, DType.U8)], axis=found.type.rank - 1, keepdims=False)
    hit = s.reduce("max", s.cast(found, DType.U8), [found.type.rank - 1], keepdims=False)
    return s.op_("where", s.cast(hit, DType.BOOL), pick(s, values, place), default)


def _mapping(s: Site) -> tuple[Array, Array, Any]:
    """Keys, values and the default. Raises NotSupported for strings."""
    if s.opset < 2:
        raise NotSupported("it maps to strings", STRINGS_REMEDY)
    keys, _ = _side(s, "keys")
    values, default = _values(s)
    if len(keys) != len(values):
        raise ValueError("it needs as many keys as values")
    return keys, values, default


def _values(s: Site) -> tuple[Array, Any]:
    values, default = _side(s, "values")
    if s.has("default_tensor"):
        default = s.array("default_tensor").reshape(-1)[0].item()
    return values, default


def _side(s: Site, side: str) -> tuple[Array, Any]:
    """The keys or the values, and what stands for a value that is missing."""
    if s.has(f"{side}_strings"):
        raise NotSupported("it maps from or to strings", STRINGS_REMEDY)
    if s.has(f"{side}_tensor"):
        array = s.array(f"{side}_tensor").reshape(-1)
        return array, 0 if array.dtype.kind == "f" else -1
    if s.has(f"{side}_floats"):
        return np.array(s.floats(f"{side}_floats"), np.float32), s.real("default_float", -0.0)
    if s.has(f"{side}_int64s"):
        return np.array(s.ints(f"{side}_int64s"), np.int64), s.integer("default_int64", -1)
    raise ValueError(f"it has no {side}")


_REFUSED = {
    "CategoryMapper": ("it maps between strings and integers", STRINGS_REMEDY),
    "ZipMap": ("its output is a map", "export with zipmap=False, or end the model before it"),
    "CastMap": ("its input is a map", "give the model a tensor"),
    "DictVectorizer": ("its input is a map", "give the model a tensor"),
}


@refuses(*_REFUSED, domain=ML)
def refused(s: Site) -> Sequence[Value]:
    raise NotSupported(*_REFUSED[s.op])
