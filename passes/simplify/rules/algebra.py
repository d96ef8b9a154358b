"""Algebraic simplification of pointwise operators.

Floats are rewritten where the result differs by rounding only, and no discrete result hangs on it
(see `ir/exactness.py`); the sign of a zero and the bits of a NaN are not kept. Constants are
combined in f64 and rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.ops.registry import Trait, has_trait, lookup
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, like, scalar
from ....compiler.ir.types import DType

RULES = Rules()
Array = np.ndarray[Any, Any]

_NEUTRAL: dict[str, float] = {"add": 0, "sub": 0, "mul": 1, "div": 1, "pow": 1}
_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "add": np.add,
    "mul": np.multiply,
    "max": np.maximum,
    "min": np.minimum,
}
_SMALLEST_NORMAL = {
    DType.F64: 2.0**-1022,
    DType.F32: 2.0**-126,
    DType.BF16: 2.0**-126,
    DType.F16: 2.0**-14,
}


def fit(rw: Rewriter, value: Value, node: Node) -> Value:
    """`value` broadcast to the shape of the node's output."""
    shape = node.output.shape
    return value if value.shape == shape else rw.emit("broadcast_to", [value], {"shape": shape})


def combine(
    fn: Callable[[Array, Array], Array], a: Value, b: Value, limit: int | None = None
) -> Value | None:
    """The constant fn(a, b), computed in f64 for floats; None when it over- or underflows or
    has more elements than either of them (than `limit`, when given)."""
    if a.data is None or b.data is None:
        return None
    size = math.prod(np.broadcast_shapes(a.data.shape, b.data.shape))
    if size > (max(a.data.size, b.data.size) if limit is None else limit):
        return None
    with np.errstate(all="ignore"):
        if not a.dtype.is_float:
            return constant(np.asarray(fn(a.data, b.data), dtype=a.data.dtype))
        exact = np.asarray(fn(a.data.astype(np.float64), b.data.astype(np.float64)))
        rounded = exact.astype(a.data.dtype)
    magnitude = np.abs(rounded.astype(np.float64))
    tiny = (magnitude < _SMALLEST_NORMAL[a.dtype]) & (exact != 0)
    lost = np.isfinite(exact) & ~np.isfinite(magnitude)
    return None if bool(np.any(tiny | lost)) else constant(rounded)


@RULES.on(Trait.POINTWISE)
def plain_constants(node: Node, rw: Rewriter) -> Replacement:
    """A constant that is one number has rank 0, others no leading axes of size 1."""
    plain = [_plain(value) for value in node.inputs]
    if all(new is old for new, old in zip(plain, node.inputs, strict=True)):
        return None
    if lookup(node.op).infer(plain, node.attrs)[0].shape != node.output.shape:
        return None
    return rw.emit(node.op, plain, node.attrs)


def _plain(value: Value) -> Value:
    if value.data is None or not value.type.rank:
        return value
    number = scalar(value)
    if number is not None and number == number:
        return constant(value.data.reshape(-1)[0].reshape(()), value.name)
    ones = next((i for i, dim in enumerate(value.data.shape) if dim != 1), 0)
    return constant(value.data.reshape(value.data.shape[ones:]), value.name) if ones else value


@RULES.on(Trait.COMMUTATIVE)
def constant_on_the_right(node: Node, rw: Rewriter) -> Replacement:
    """c + x -> x + c"""
    a, b = node.inputs
    return rw.emit(node.op, [b, a]) if a.is_constant and not b.is_constant else None


@RULES.on("add", "sub", "mul", "div", "pow")
def neutral(node: Node, rw: Rewriter) -> Replacement:
    """x + 0, x - 0, x * 1, x / 1, x ** 1 -> x"""
    number = scalar(node.inputs[1])
    if number is None or number != _NEUTRAL[node.op]:
        return None
    return fit(rw, node.inputs[0], node)


@RULES.on("max", "min")
def unbounded(node: Node, rw: Rewriter) -> Replacement:
    """max(x, -inf), min(x, inf) -> x"""
    number = scalar(node.inputs[1])
    bound = -math.inf if node.op == "max" else math.inf
    return fit(rw, node.inputs[0], node) if number == bound else None


@RULES.on("sub")
def subtract_constant(node: Node, rw: Rewriter) -> Replacement:
    """x - c -> x + (-c)"""
    x, c = node.inputs
    if c.data is None or x.is_constant or not (c.dtype.is_float or c.dtype.is_signed):
        return None
    return rw.emit("add", [x, constant(-c.data)])


@RULES.on("add", "mul", "max", "min")
def reassociate(node: Node, rw: Rewriter) -> Replacement:
    """(x op c1) op c2 -> x op (c1 op c2)"""
    inner = rw.sole(node.inputs[0], node.op)
    if inner is None or not node.inputs[1].is_constant or not inner.inputs[1].is_constant:
        return None
    rounds = node.op in ("add", "mul") and node.output.dtype.is_float
    if rounds and not rw.may_round(node.output):
        return None
    merged = combine(_COMBINE[node.op], inner.inputs[1], node.inputs[1])
    return None if merged is None else fit(rw, rw.emit(node.op, [inner.inputs[0], merged]), node)


@RULES.on("pow")
def power(node: Node, rw: Rewriter) -> Replacement:
    """Small constant exponents become products, roots and reciprocals."""
    x, exponent = node.inputs
    number = scalar(exponent)
    if number is None or node.output.shape != x.shape:
        return None
    if number == 2:
        return rw.emit("mul", [x, x])
    if number == 3:
        return rw.emit("mul", [rw.emit("mul", [x, x]), x])
    if not x.dtype.is_float or number not in (0.5, -0.5, -1) or not rw.may_round(node.output):
        return None
    if number == -1:
        return rw.emit("div", [like(x, 1), x])
    root = rw.emit("sqrt", [x]) if _is_positive(x) else _root(rw, x)
    return root if number == 0.5 else rw.emit("div", [like(x, 1), root])


def _root(rw: Rewriter, x: Value) -> Value:
    """x ** 0.5: as sqrt(x), but inf for -inf, and 0 for -0."""
    least = rw.emit("eq", [x, like(x, -math.inf)])
    bounded = rw.emit("where", [least, like(x, math.inf), x])
    return rw.emit("abs", [rw.emit("sqrt", [bounded])])


def _is_positive(x: Value, depth: int = 6) -> bool:
    """Whether no element can be negative or -0, as in sums of squares; False if not seen."""
    node = x.producer
    if x.data is not None:
        return x.data.size == 1 and bool((x.data > 0).all())
    if node is None or not depth:
        return False
    square = node.op == "mul" and len(set(node.inputs)) == 1
    if square or has_trait(node, Trait.NONNEGATIVE):
        return True
    kept = ("add", "mul", "div", "reduce_sum", "reduce_mean", "reshape", "broadcast_to")
    return node.op in kept and all(_is_positive(value, depth - 1) for value in node.inputs)


@RULES.on(Trait.IDEMPOTENT)
def idempotent(node: Node, rw: Rewriter) -> Replacement:
    """f(f(x)) -> f(x)"""
    inner = rw.producer(node.inputs[0], node.op)
    return inner.output if inner is not None and inner.attrs == node.attrs else None


@RULES.on(Trait.INVOLUTION)
def involution(node: Node, rw: Rewriter) -> Replacement:
    """f(f(x)) -> x"""
    inner = rw.producer(node.inputs[0], node.op)
    return inner.inputs[0] if inner is not None else None


@RULES.on("neg")
def negated_product(node: Node, rw: Rewriter) -> Replacement:
    """-(x * c) -> x * (-c)"""
    inner = rw.sole(node.inputs[0], "mul")
    if inner is None or inner.inputs[1].data is None or not node.output.dtype.is_float:
        return None
    return rw.emit("mul", [inner.inputs[0], constant(-inner.inputs[1].data)])


@RULES.on("add", "sub")
def add_negated(node: Node, rw: Rewriter) -> Replacement:
    """x + (-y) -> x - y;  (-x) + y -> y - x;  x - (-y) -> x + y"""
    a, b = node.inputs
    other = "sub" if node.op == "add" else "add"
    if inner := rw.producer(b, "neg"):
        return rw.emit(other, [a, inner.inputs[0]])
    if node.op == "add" and (inner := rw.producer(a, "neg")):
        return rw.emit("sub", [b, inner.inputs[0]])
    return None


@RULES.on("sqrt")
def root_of_square(node: Node, rw: Rewriter) -> Replacement:
    """sqrt(x * x) -> |x|"""
    inner = rw.producer(node.inputs[0], "mul")
    if inner is None or inner.inputs[0] is not inner.inputs[1] or not rw.may_round(node.output):
        return None
    return rw.emit("abs", [inner.inputs[0]])


@RULES.on("and", "or")
def logic_with_constant(node: Node, rw: Rewriter) -> Replacement:
    """x and true -> x;  x and false -> false;  the same for or, and for x op x"""
    a, b = node.inputs
    number = scalar(b)
    if a is b:
        return a
    if number is None:
        return None
    return fit(rw, a if bool(number) == (node.op == "and") else b, node)


@RULES.on("max", "min")
def with_itself(node: Node, rw: Rewriter) -> Replacement:
    """max(x, x) -> x"""
    return node.inputs[0] if node.inputs[0] is node.inputs[1] else None


@RULES.on("where")
def select(node: Node, rw: Rewriter) -> Replacement:
    """where(true, a, b) -> a;  where(c, a, a) -> a;  where(not c, a, b) -> where(c, b, a)"""
    condition, a, b = node.inputs
    number = scalar(condition)
    if number is not None:
        return fit(rw, a if number else b, node)
    if a is b:
        return fit(rw, a, node)
    if inner := rw.producer(condition, "not"):
        return rw.emit("where", [inner.inputs[0], b, a])
    return None


@RULES.on("cast")
def cast_chain(node: Node, rw: Rewriter) -> Replacement:
    """A cast to the same type goes; a cast from a type that held the value exactly is skipped."""
    x = node.inputs[0]
    if x.dtype == node.attrs["dtype"]:
        return x
    inner = rw.producer(x, "cast")
    if inner is None or not holds(x.dtype, inner.inputs[0].dtype):
        return None
    return rw.emit("cast", [inner.inputs[0]], {"dtype": node.attrs["dtype"]})


_PRECISION = {DType.F64: 53, DType.F32: 24, DType.F16: 11, DType.BF16: 8}


def holds(wide: DType, narrow: DType) -> bool:
    """Whether every value of `narrow` is a value of `wide`."""
    if wide == narrow:
        return True
    if narrow.is_narrow or wide.is_narrow:
        return False
    if narrow is DType.BOOL or wide is DType.BOOL:
        return narrow is DType.BOOL
    if narrow.is_float:
        return wide.is_float and wide.bits > narrow.bits
    value_bits = narrow.bits - narrow.is_signed
    if wide.is_float:
        return value_bits <= _PRECISION[wide] and not (wide is DType.F16 and value_bits > 15)
    return value_bits <= wide.bits - wide.is_signed and (wide.is_signed or not narrow.is_signed)


@RULES.on(Trait.POINTWISE)
def drop_broadcast(node: Node, rw: Rewriter) -> Replacement:
    """f(broadcast(x), y) -> f(x, y), broadcast afterwards where the result still needs it."""
    sources = [_source(value, rw) for value in node.inputs]
    if all(new is old for new, old in zip(sources, node.inputs, strict=True)):
        return None
    inferred = lookup(node.op).infer(sources, node.attrs)[0]
    if inferred.shape != node.output.shape and not _narrower(inferred.shape, node.output.shape):
        return None
    return fit(rw, rw.emit(node.op, sources, node.attrs), node)


def _source(value: Value, rw: Rewriter) -> Value:
    """What a broadcast repeats, where its dims are certainly 1 or the result's."""
    node = rw.producer(value, "broadcast_to")
    if node is None or not _narrower(node.inputs[0].shape, value.shape):
        return value
    return node.inputs[0]


def _narrower(narrow: tuple[Any, ...], wide: tuple[Any, ...]) -> bool:
    offset = len(wide) - len(narrow)
    return all(dim in (1, wide[offset + axis]) for axis, dim in enumerate(narrow))
