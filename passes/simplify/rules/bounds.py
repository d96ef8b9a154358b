"""Bounds that are the ends of a float type, as a Clip of one side has them: all that they do is to
make infinite floats finite.

They go where no operand is infinite, or where what reads them makes the same of both. Infinities
that sums and products of finite numbers make are overflows, which depend on the order of sums and
on the algorithm of a convolution: those of f32 and more are nobody's, those of f16 are kept.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

from ....compiler.ir.graph import Node, Value
from ....compiler.ir.ops.registry import Trait, has_trait
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar
from ....compiler.ir.types import DType
from .algebra import fit

RULES = Rules()

_MOVES = Trait.VIEW | Trait.INDEX_MAP | Trait.BROADCAST
_BOUNDED = frozenset(("sigmoid", "erf", "sin", "cos", "asin", "acos", "atan", "sign", "softmax"))
_SUMS = frozenset(("add", "sub", "mul", "fma", "reduce_sum", "reduce_mean", "avg_pool"))
_SAME = frozenset(("neg", "abs", "sqrt", "ceil", "floor", "round"))  # finite for finite operands
_WIDE = (DType.F32, DType.F64, DType.BF16)  # types of which an overflow is nobody's
_IN_HALF = (DType.BOOL, DType.I8, DType.U8, DType.I16)  # integers that f16 holds
_MOST_SEEN = 200  # values looked at behind one bound
Wanted = tuple[Value, frozenset[float]]  # infinities that a value must not be
_BOTH = frozenset((math.inf, -math.inf))


@RULES.on("max", "min")
def finite_already(node: Node, rw: Rewriter) -> Replacement:
    """min(x, the largest float), max(x, the least one) -> x, where x is never infinite there"""
    x = node.inputs[0]
    if not _is_end(node) or not _never(x, math.inf if node.op == "min" else -math.inf):
        return None
    return fit(rw, x, node)


@RULES.on("quantize", "cast")
def infinite_alike(node: Node, rw: Rewriter) -> Replacement:
    """quantize(min(x, the largest float)) -> quantize(x): both are the last integer; the same for
    a cast to floats of which both are infinite"""
    inner = rw.producer(node.inputs[0], "max", "min")
    if inner is None or not _is_end(inner) or inner.inputs[0].shape != inner.output.shape:
        return None
    if not (_quantises_alike if node.op == "quantize" else _casts_alike)(node, inner):
        return None
    return rw.emit(node.op, [inner.inputs[0], *node.inputs[1:]], node.attrs)


def _is_end(node: Node) -> bool:
    """Whether a maximum or minimum is one with the least or largest number of a float type."""
    dtype, number = node.output.dtype, scalar(node.inputs[1])
    if number is None or not dtype.is_float or dtype.is_narrow:
        return False
    info = ml_dtypes.finfo(dtype.numpy)
    return bool(number == float(info.max if node.op == "min" else info.min))


def _quantises_alike(node: Node, inner: Node) -> bool:
    """Whether the bound is beyond what any i64 stands for, as an infinity is."""
    scale, bound = node.inputs[1].data, scalar(inner.inputs[1])
    if scale is None or bound is None or node.output.dtype.is_float:
        return False
    return bool(np.all(abs(bound) / np.abs(scale.astype(np.float64)) > 2.0**63))


def _casts_alike(node: Node, inner: Node) -> bool:
    dtype, bound = node.output.dtype, inner.inputs[1].data
    if bound is None or not dtype.is_float or dtype.is_narrow:
        return False
    with np.errstate(over="ignore"):
        return bool(np.isinf(bound.astype(dtype.numpy).astype(np.float64)).all())


def _never(value: Value, infinity: float) -> bool:
    """Whether no element of a float is that infinity; False if not seen."""
    waiting: list[Wanted] = [(value, frozenset((infinity,)))]
    seen: set[Wanted] = set()
    while waiting:
        wanted = waiting.pop()
        if wanted in seen:
            continue
        seen.add(wanted)
        needs = _needs(*wanted) if len(seen) < _MOST_SEEN else None
        if needs is None:
            return False
        waiting += needs
    return True


def _needs(value: Value, infinities: frozenset[float]) -> list[Wanted] | None:
    """What must not be infinite, lest the value is; None: nothing that would do is known."""
    if not value.dtype.is_float:
        return []
    if value.data is not None:
        return None if np.isinf(value.data.astype(np.float64)).any() else []
    node = value.producer
    if node is None or node.regions:
        return None
    if node.op in _BOUNDED:
        return []
    if has_trait(node, Trait.CONTRACTION):
        return [] if value.dtype in _WIDE else None
    if node.op == "dequantize":
        integers = not node.inputs[0].dtype.is_float and value.dtype in _WIDE
        return [(node.inputs[1], _BOTH)] if integers else None
    if node.op in ("max", "min"):
        return _needs_of_extreme(node, infinities)
    if node.op == "max_pool":  # of a window that is padding alone it is -inf
        return None if -math.inf in infinities else [(node.inputs[0], infinities)]
    if node.op == "cast":
        return _needs_of_cast(node, infinities)
    if has_trait(node, _MOVES) or node.op in ("concat", "where"):
        return [(part, infinities) for part in node.inputs]
    if node.op in _SAME or (node.op in _SUMS and value.dtype in _WIDE):
        return [(part, _BOTH) for part in node.inputs]
    return None


def _needs_of_extreme(node: Node, infinities: frozenset[float]) -> list[Wanted]:
    """max(x, c) is -inf for no x, and min(x, c) never inf."""
    a, bound = node.inputs[0], scalar(node.inputs[1])
    if bound is None or math.isinf(bound):
        return [(part, infinities) for part in node.inputs]
    left = infinities - {-math.inf if node.op == "max" else math.inf}
    return [(a, left)] if left else []


def _needs_of_cast(node: Node, infinities: frozenset[float]) -> list[Wanted] | None:
    x, dtype = node.inputs[0], node.output.dtype
    if dtype.is_narrow or x.dtype.is_narrow:
        return None
    if not x.dtype.is_float:
        return [] if dtype in _WIDE or x.dtype in _IN_HALF else None
    return [(x, infinities)] if dtype.bits > x.dtype.bits else None
