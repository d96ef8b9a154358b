"""Elementwise arithmetic, comparison, logic and conversion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce

import ml_dtypes
import numpy as np

from .....compiler.ir import DType, Value
from ...containers import Content, Text
from ...site import Site
from ...table import MICROSOFT, lowers
from .strings import equal_texts

_UNARY = {
    "Neg": "neg",
    "Abs": "abs",
    "Sign": "sign",
    "Ceil": "ceil",
    "Floor": "floor",
    "Round": "round",
    "Sqrt": "sqrt",
    "Exp": "exp",
    "Log": "log",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Asin": "asin",
    "Acos": "acos",
    "Atan": "atan",
    "Sinh": "sinh",
    "Cosh": "cosh",
    "Tanh": "tanh",
    "Asinh": "asinh",
    "Acosh": "acosh",
    "Atanh": "atanh",
    "Erf": "erf",
    "Sigmoid": "sigmoid",
    "Not": "not",
    "BitwiseNot": "bitnot",
    "IsNaN": "isnan",
}
_BINARY = {
    "Add": "add",
    "Sub": "sub",
    "Mul": "mul",
    "Div": "div",
    "And": "and",
    "Or": "or",
    "Xor": "xor",
    "BitwiseAnd": "bitand",
    "BitwiseOr": "bitor",
    "BitwiseXor": "bitxor",
    "Equal": "eq",
    "Less": "lt",
    "LessOrEqual": "le",
    "Greater": "gt",
    "GreaterOrEqual": "ge",
}


@lowers(*_UNARY)
def unary(s: Site) -> Value:
    return s.op_(_UNARY[s.op], s.input(0))


@lowers(*_BINARY)
def binary(s: Site) -> Value:
    if any(isinstance(entry, Text) for entry in s.entries):  # only Equal takes them
        return equal_texts(s)
    second = _second(s)
    if s.op == "Div":
        check_divisor(s, second)
    return s.op_(_BINARY[s.op], s.input(0), second)


def check_divisor(s: Site, divisor: Value) -> None:
    """Make a run end with an error where an integer is divided by zero.

    Constants and numbers made of dims are not looked at: a division by those has a defined result.
    """
    if divisor.dtype.is_integer and divisor.data is None and s.known(divisor) is None:
        s.require_nonzero(divisor, "division by zero")


def lowest(s: Site, dtype: DType) -> Value:
    """The scalar that is less than all others of an element type."""
    if dtype.is_float:
        return s.scalar(float("-inf"), dtype)
    return s.scalar(-(1 << (dtype.bits - 1)) if dtype.is_signed else 0, dtype)


def _second(s: Site) -> Value:
    """The second operand; before opset 7 `axis` says where its first dimension belongs."""
    a, b = s.input(0), s.input(1)
    if s.opset < 7 and s.integer("broadcast", 0) and s.has("axis"):
        behind = a.type.rank - s.axis(s.integer("axis"), a.type.rank) - b.type.rank
        if behind < 0:
            raise ValueError(f"{b.type} does not fit into {a.type} at axis {s.integer('axis')}")
        return s.reshape(b, (*b.shape, *(1,) * behind))
    return b


@lowers("Min", "Max", "Sum")
def variadic(s: Site) -> Value:
    op = {"Min": "min", "Max": "max", "Sum": "add"}[s.op]
    values = [s.input(i) for i in range(len(s.inputs))]
    return reduce(lambda a, b: s.op_(op, a, b), values)


@lowers("Mean")
def mean(s: Site) -> Value:
    return s.op_("div", variadic_sum(s), float(len(s.inputs)))


def variadic_sum(s: Site) -> Value:
    """All inputs of a node added up."""
    return reduce(lambda a, b: s.op_("add", a, b), [s.input(i) for i in range(len(s.inputs))])


@lowers("Pow")
def power(s: Site) -> Value:
    base, exponent = s.input(0), _second(s)
    if base.dtype is exponent.dtype:
        return s.op_("pow", base, exponent)
    if exponent.dtype.is_integer or base.dtype.is_float:
        return s.op_("pow", base, s.cast(exponent, base.dtype))
    wide = s.op_("pow", s.cast(base, exponent.dtype), exponent)
    return s.cast(wide, base.dtype)


@lowers("Mod")
def modulo(s: Site) -> Value:
    a, b = s.input(0), s.input(1)
    check_divisor(s, b)
    return s.op_("fmod" if s.integer("fmod", 0) else "mod", a, b)


@lowers("Reciprocal")
def reciprocal(s: Site) -> Value:
    return s.op_("div", 1.0, s.input(0))


@lowers("BitShift")
def bit_shift(s: Site) -> Value:
    direction = s.text("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise ValueError(f"direction '{direction}' is neither LEFT nor RIGHT")
    return s.op_("shl" if direction == "LEFT" else "shr", s.input(0), s.input(1))


@lowers("IsInf")
def is_infinite(s: Site) -> Value:
    x = s.input(0)
    both = s.emit("isinf", [x])
    positive, negative = s.integer("detect_positive", 1), s.integer("detect_negative", 1)
    if positive and negative:
        return both
    if not positive and not negative:
        return s.op_("and", both, False)
    return s.op_("and", both, s.op_("gt" if positive else "lt", x, 0.0))


@lowers("Where")
def where(s: Site) -> Value:
    return s.op_("where", s.input(0), s.input(1), s.input(2))


@lowers("Identity")
@lowers("SampleOp", domain=MICROSOFT)
def identity(s: Site) -> Sequence[Content | None]:
    return s.entries[:1]


@lowers("Clip")
def clip(s: Site) -> Value:
    x = s.input(0)
    low, high = s.optional(1), s.optional(2)
    if s.opset < 11:
        low = s.scalar(s.real("min"), x.dtype) if s.has("min") else None
        high = s.scalar(s.real("max"), x.dtype) if s.has("max") else None
    least, most = _limits(x.dtype)
    if low is not None:
        x = s.op_("max", x, _bound(s, low, -math.inf))
    elif least is not None:
        x = s.op_("max", x, least)
    if high is not None:
        return s.op_("min", x, _bound(s, high, math.inf))
    return x if most is None else s.op_("min", x, most)


def _limits(dtype: DType) -> tuple[float | None, float | None]:
    """The bounds where none is given: what makes infinite floats finite."""
    if not dtype.is_float:
        return None, None
    info = ml_dtypes.finfo(dtype.numpy)
    return float(info.min), float(info.max)


def _bound(s: Site, value: Value, none: float) -> Value:
    """A bound as a scalar; NaN is less and greater than nothing, and so bounds nothing."""
    scalar = _as_scalar(s, value)
    if not value.dtype.is_float or (value.data is not None and not np.isnan(value.data).any()):
        return scalar
    return s.op_("where", s.op_("isnan", scalar), none, scalar)


def _as_scalar(s: Site, value: Value) -> Value:
    return s.reshape(value, ()) if value.type.rank else value


SQRT_HALF = math.sqrt(0.5)
