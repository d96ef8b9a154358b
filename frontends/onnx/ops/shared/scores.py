"""What several ai.onnx.ml operators share: inputs as rows, labels, transforms of scores.

Semantics: the ONNX standard where it says them, ONNX Runtime's kernels (providers/cpu/ml) where
it is silent, as for the approximation behind PROBIT.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Content
from ...site import Site
from ..standard.strings import text_at

ML = "ai.onnx.ml"
TRANSFORMS = ("NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT")  # opset 5 numbers them
STRINGS_REMEDY = "map strings to numbers outside of the model"
# Winitzki's approximation of the inverse error function, with the constants of ONNX Runtime.
_PI, _A = 3.14159, 0.147


def rows(s: Site, x: Value, dtype: DType | None = None) -> Value:
    """The input as a matrix of floats [N, features]; a vector is one row."""
    if x.type.rank == 1:
        x = s.reshape(x, (1, *x.shape))
    if x.type.rank != 2:
        raise ValueError(f"the input {x.type} is neither a vector nor a matrix")
    return s.cast(x, dtype or DType.F32)


def floats(s: Site, name: str) -> np.ndarray[Any, Any]:
    """A list of floats, or the tensor `<name>_as_tensor` that newer files may hold instead."""
    if s.has(f"{name}_as_tensor"):
        return np.asarray(s.array(f"{name}_as_tensor")).reshape(-1)
    return np.array(s.floats(name, []), np.float32)


def class_labels(s: Site, integers: str) -> np.ndarray[Any, Any]:
    """The class labels: i64, or objects that are strings."""
    if s.has("classlabels_strings") and s.texts("classlabels_strings"):
        return np.array(s.texts("classlabels_strings"), object)
    return np.array(s.ints(integers, []), np.int64)


def label_at(s: Site, labels: np.ndarray[Any, Any], index: Value) -> Content:
    """The class labels at an index of any shape: numbers or strings."""
    return text_at(s, labels.tolist(), index) if labels.dtype == object else pick(s, labels, index)


def pick(s: Site, table: np.ndarray[Any, Any], index: Value) -> Value:
    """The elements of a constant vector at an index of any shape."""
    if np.array_equal(table, np.arange(len(table))):
        return s.cast(index, DType.of(table.dtype))
    return s.emit("gather", [constant(np.ascontiguousarray(table)), index], axis=0)


def transform_name(s: Site) -> str:
    """The attribute post_transform, a name or its number."""
    if not s.has("post_transform"):
        return "NONE"
    attribute = s.attributes["post_transform"]
    if attribute.s:
        name = s.text("post_transform")
    else:
        number = s.integer("post_transform")
        name = TRANSFORMS[number] if 0 <= number < len(TRANSFORMS) else str(number)
    if name not in TRANSFORMS:
        raise ValueError(f"post_transform '{name}' does not exist")
    return name


def probit(s: Site, x: Value) -> Value:
    """sqrt(2) times the inverse error function of 2 x - 1, approximately."""
    y = s.op_("sub", s.op_("mul", x, 2.0), 1.0)
    log = s.op_("log", s.op_("mul", s.op_("sub", 1.0, y), s.op_("add", y, 1.0)))
    v = s.op_("add", s.op_("mul", log, 0.5), 2 / (_PI * _A))
    root = s.op_("sqrt", s.op_("sub", s.op_("mul", v, v), s.op_("mul", log, 1 / _A)))
    size = s.op_("mul", s.op_("sqrt", s.op_("sub", root, v)), math.sqrt(2.0))
    return s.op_("where", s.op_("lt", y, 0.0), s.op_("neg", size), size)


def softmax_zero(s: Site, x: Value) -> Value:
    """A softmax along axis 1 in which scores of (nearly) 0 stay 0."""
    largest = s.reduce("max", x, [1])
    powers = s.op_("exp", s.op_("sub", x, largest))
    present = s.op_("gt", s.op_("abs", x), 1e-7)
    shrunk = s.op_("mul", x, s.op_("exp", s.op_("neg", largest)))
    total = s.reduce("sum", s.op_("where", present, powers, 0.0), [1])
    return s.op_("div", s.op_("where", present, powers, shrunk), total)


def transformed(s: Site, scores: Value, name: str) -> Value:
    """Scores [N, classes] after a post transform."""
    if name == "SOFTMAX":
        return s.emit("softmax", [scores], axis=1)
    if name == "SOFTMAX_ZERO":
        return softmax_zero(s, scores)
    if name == "LOGISTIC":
        return s.op_("sigmoid", scores)
    return probit(s, scores) if name == "PROBIT" else scores


def columns(s: Site, *parts: Value) -> Value:
    """Vectors or columns side by side: [N, number of parts]."""
    shaped = [s.reshape(part, (part.shape[0], 1)) for part in parts]
    return s.emit("concat", shaped, axis=1)
