"""Pointwise operators: each output element comes from the same, broadcast, elements of the inputs.

Half-precision floats are computed in f32 and rounded. Integers wrap. Integer `div` truncates
toward zero; integer `div`, `mod` and `fmod` by zero give 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph import Value
from ..types import DType, TensorType, broadcast_shapes
from .common import ANY, BOOLS, FLOATS, INTEGERS, NUMBERS, like, need_dtype, same_dtype, widen
from .registry import EXACT, REQUIRED, Array, Infer, OpDef, Trait, register

_erf = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The Gauss error function, computed in f64 by the C library."""
    return np.asarray(_erf(x.astype(np.float64)), dtype=np.float64)


def _sigmoid(x: Array) -> Array:
    # 1 / (1 + e^-x) for x >= 0, e^x / (1 + e^x) below: no overflow on either side
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1 / (1 + small), small / (1 + small))


def _truncated_division(a: Array, b: Array) -> Array:
    if DType.of(a.dtype).is_float:
        return np.divide(a, b)
    quotient = np.floor_divide(a, b)
    inexact = (quotient * b != a) & ((a < 0) != (b < 0)) & (b != 0)
    return np.asarray(quotient + inexact.astype(a.dtype))


def _power(a: Array, b: Array) -> Array:
    if DType.of(a.dtype).is_float:  # numpy's power takes roots for scalars of 0.5, of -inf too
        return np.float_power(a, b).astype(a.dtype)
    if not DType.of(a.dtype).is_signed:
        return np.power(a, b)
    result = np.power(a, np.maximum(b, 0))
    odd = np.bitwise_and(b, 1).astype(bool)
    inverse = np.where(a == 1, 1, np.where(a == -1, np.where(odd, -1, 1), 0))
    return np.where(b < 0, inverse, result)


def _in_own_arithmetic(
    fn: Callable[..., Array], args: Sequence[Array], dtype: DType
) -> list[Array]:
    with np.errstate(all="ignore"):
        result = fn(*[widen(array) for array in args])
    return [np.asarray(result).astype(dtype.numpy, copy=False)]


def _unary(
    name: str,
    fn: Callable[[Array], Array],
    allowed: frozenset[DType],
    traits: Trait = Trait.NONE,
    result: DType | None = None,
) -> None:
    def infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
        need_dtype(inputs[0], allowed, f"the operand of '{name}'")
        return [TensorType(result or inputs[0].dtype, inputs[0].shape)]

    def evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
        return _in_own_arithmetic(fn, args, result or DType.of(args[0].dtype))

    register(OpDef(name, infer, evaluate, Trait.POINTWISE | traits, arity=(1, 1)))


def _nearest(x: Array) -> Array:
    """The nearest i32, ties to even. Only targets whose conversions saturate are given others."""
    limits = np.iinfo(np.int32)
    return np.clip(np.rint(x.astype(np.float64)), limits.min, limits.max)


def _infer_binary(name: str, allowed: frozenset[DType], result: DType | None) -> Infer:
    def infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
        dtype = same_dtype(inputs)
        need_dtype(inputs[0], allowed, f"the operand of '{name}'")
        return [TensorType(result or dtype, broadcast_shapes(inputs[0].shape, inputs[1].shape))]

    return infer


def _binary(
    name: str,
    fn: Callable[[Array, Array], Array],
    allowed: frozenset[DType],
    traits: Trait = Trait.NONE,
    result: DType | None = None,
    attrs: dict[str, Any] | None = None,
) -> None:
    def evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
        return _in_own_arithmetic(fn, args, result or DType.of(args[0].dtype))

    infer = _infer_binary(name, allowed, result)
    register(OpDef(name, infer, evaluate, Trait.POINTWISE | traits, attrs or {}, (2, 2)))


def _infer_where(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], BOOLS, "the condition")
    dtype = same_dtype(inputs[1:])
    return [TensorType(dtype, broadcast_shapes(*(value.shape for value in inputs)))]


def _where(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    return [np.asarray(np.where(args[0], args[1], args[2])).astype(args[1].dtype, copy=False)]


def _infer_fma(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], frozenset({DType.F32}), "a factor of 'fma'")
    return [TensorType(same_dtype(inputs), broadcast_shapes(*(v.shape for v in inputs)))]


def _fma(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    a, b, c = (np.asarray(arg, np.float64) for arg in args)  # where the product is exact
    return [np.asarray(a * b + c, np.float32)]


def _quotient(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """x / s, rounded once; the third operand is 1 / s, rounded, which saves kernels a division."""
    with np.errstate(all="ignore"):
        return [np.asarray(args[0] / args[1], np.float32)]


def _infer_cast(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    if not isinstance(attrs["dtype"], DType):
        raise ValueError(f"dtype {attrs['dtype']!r} is not an element type")
    return [like(inputs[0])[0].with_dtype(attrs["dtype"])]


def _cast(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    dtype: DType = attrs["dtype"]
    source = _computable(args[0])
    if dtype is DType.BOOL:
        return [np.asarray(widen(source) != 0)]
    with np.errstate(all="ignore"):
        if dtype.is_narrow:
            return [_narrowed(source, dtype)]
        return [(source if dtype.is_float else widen(source)).astype(dtype.numpy)]


def _computable(array: Array) -> Array:
    """Elements of a narrow type in one that holds all of its values."""
    dtype = DType.of(array.dtype)
    if not dtype.is_narrow:
        return array
    return array.astype({"f": np.float32, "i": np.int8, "u": np.uint8}[dtype.value[0]])


def _narrowed(array: Array, dtype: DType) -> Array:
    """To a narrow float by way of f32; to a narrow integer the low bits of the truncated value."""
    if dtype.value[0] == "f":
        return array.astype(np.float32).astype(dtype.numpy)
    octets = (array.astype(np.int64) & ((1 << int(dtype.value[1:])) - 1)).astype(np.uint8)
    return octets.view(dtype.numpy)


def _infer_bitcast(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, dtype = inputs[0], attrs["dtype"]
    if not isinstance(dtype, DType) or x.dtype.bits != dtype.bits or x.dtype is DType.BOOL:
        raise ValueError(f"the bits of {x.dtype} are not those of a {dtype}")
    return [like(x)[0].with_dtype(dtype)]


def _bitcast(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    return [np.asarray(args[0]).view(attrs["dtype"].numpy)]


_FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "tanh": np.tanh,
    "asinh": np.arcsinh,
    "acosh": np.arccosh,
    "atanh": np.arctanh,
    "erf": erf,
    "sigmoid": _sigmoid,
}
_NONNEGATIVE = {"exp", "sigmoid"}


def _register_all() -> None:
    idem, comm, steps = Trait.IDEMPOTENT, Trait.COMMUTATIVE, Trait.DISCRETE
    _unary("neg", np.negative, NUMBERS, Trait.INVOLUTION)
    _unary("abs", np.abs, NUMBERS, idem | Trait.NONNEGATIVE)
    _unary("sign", np.sign, NUMBERS, idem | steps)
    _unary("ceil", np.ceil, FLOATS, idem | steps)
    _unary("floor", np.floor, FLOATS, idem | steps)
    _unary("round", np.rint, FLOATS, idem | steps)
    _unary("rint", _nearest, FLOATS, steps, DType.I32)
    for name, fn in _FUNCTIONS.items():
        _unary(name, fn, FLOATS, Trait.NONNEGATIVE if name in _NONNEGATIVE else Trait.NONE)
    _unary("not", np.logical_not, BOOLS, Trait.INVOLUTION)
    _unary("bitnot", np.invert, INTEGERS, Trait.INVOLUTION)
    _unary("isnan", np.isnan, FLOATS, result=DType.BOOL)
    _unary("isinf", np.isinf, FLOATS, result=DType.BOOL)

    _binary("add", np.add, NUMBERS, comm, attrs=EXACT)
    _binary("sub", np.subtract, NUMBERS, attrs=EXACT)
    _binary("mul", np.multiply, NUMBERS, comm, attrs=EXACT)
    _binary("div", _truncated_division, NUMBERS)
    _binary("pow", _power, NUMBERS)
    _binary("max", np.maximum, NUMBERS, comm)
    _binary("min", np.minimum, NUMBERS, comm)
    _binary("at_least", lambda a, b: np.where(a > b, a, b), NUMBERS, steps)
    _binary("at_most", lambda a, b: np.where(a < b, a, b), NUMBERS, steps)
    _binary("mod", np.mod, NUMBERS, steps)
    _binary("fmod", np.fmod, NUMBERS, steps)
    _binary("and", np.logical_and, BOOLS, comm)
    _binary("or", np.logical_or, BOOLS, comm)
    _binary("xor", np.logical_xor, BOOLS, comm)
    _binary("bitand", np.bitwise_and, INTEGERS, comm)
    _binary("bitor", np.bitwise_or, INTEGERS, comm)
    _binary("bitxor", np.bitwise_xor, INTEGERS, comm)
    _binary("shl", np.left_shift, INTEGERS)
    _binary("shr", np.right_shift, INTEGERS)
    _binary("eq", np.equal, ANY, comm | steps, DType.BOOL)
    _binary("ne", np.not_equal, ANY, comm | steps, DType.BOOL)
    _binary("lt", np.less, ANY, steps, DType.BOOL)
    _binary("le", np.less_equal, ANY, steps, DType.BOOL)
    _binary("gt", np.greater, ANY, steps, DType.BOOL)
    _binary("ge", np.greater_equal, ANY, steps, DType.BOOL)

    register(OpDef("where", _infer_where, _where, Trait.POINTWISE, arity=(3, 3)))
    register(OpDef("fma", _infer_fma, _fma, Trait.POINTWISE, arity=(3, 3)))
    register(OpDef("quotient", _infer_fma, _quotient, Trait.POINTWISE, arity=(3, 3)))
    attrs = {"dtype": REQUIRED}
    register(OpDef("cast", _infer_cast, _cast, Trait.POINTWISE, attrs, arity=(1, 1)))
    kind = Trait.POINTWISE | steps
    register(OpDef("bitcast", _infer_bitcast, _bitcast, kind, attrs, arity=(1, 1)))


_register_all()
