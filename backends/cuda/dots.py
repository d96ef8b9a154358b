"""What `tl.dot` multiplies: the elements of factors, and what their products are added up in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...compiler.ir.dims import symbol
from ...compiler.ir.ops.packed import DIGITS
from ...compiler.ir.types import DType
from ...compiler.kernel import expr as ex
from ...compiler.kernel.contraction import Contraction, Operand, Product, contraction_of
from ...compiler.kernel.kernel import Axis, Reduction, Stage
from .emit.types import FLOAT_BYTES, HALVES

EXACT_IN_HALVES = 9  # bits of signed integers that both kinds of halves hold
# elements that are converted to what sums are made in by the multiplication itself
_CONVERTED = {DType.F32: (*HALVES, *FLOAT_BYTES), DType.I32: (DType.I8,)}


@dataclass(frozen=True)
class Arithmetic:
    """How products may be computed. tf32: of f32, with 11 bits of either factor. fp8: whether
    tensor cores take 8-bit floats, which else become f16."""

    tf32: bool = False
    fp8: bool = False


AS_WRITTEN = Arithmetic()


@dataclass(frozen=True)
class Dot:
    """A sum of products. elements: what both factors are multiplied as. total: what is added up."""

    elements: DType
    total: DType


def dot_of(reduction: Reduction) -> Dot | None:
    """How `tl.dot` computes a reduction, or None where it does not.

    Products of f32 that are to be rounded one by one are none; those of halves, and of bytes, are
    exact.
    """
    body = reduction.body
    if reduction.kind != "sum" or not isinstance(body, ex.Apply) or body.op != "mul":
        return None
    if body.dtype not in _CONVERTED:
        return None
    kinds = {element_of(factor) for factor in body.args if not is_small(factor)}
    if len(kinds) == 1 and (kind := kinds.pop()) in _CONVERTED[body.dtype]:
        return Dot(kind, body.dtype)
    if body.dtype is not DType.F32 or body.exact:
        return None
    return Dot(DType.F32, DType.F32)


def is_small(factor: ex.Expr) -> bool:
    """Whether a factor of f32 is an integer of so few bits that halves hold it exactly: a number
    of packed weights, less a zero point."""
    match factor:
        case ex.Apply(op="sub", args=args):
            return all(map(_is_byte, args)) and any(is_small(arg) for arg in args[:1])
        case ex.Apply(op=op) if op in DIGITS:
            return True
        case ex.Apply(op="cast", args=(ex.Load(dtype=DType.I8),), dtype=DType.F32):
            return True
    return False


def _is_byte(part: ex.Expr) -> bool:
    if isinstance(part, ex.Const):
        return float(part.value).is_integer() and abs(part.value) <= (1 << (EXACT_IN_HALVES - 2))
    return is_small(part)


def contraction_for(stage: Stage) -> Contraction:
    """What the reductions of a stage read, where products are those that `tl.dot` may compute: the
    right factor may be a number of packed weights, which a zero point is taken off."""
    found = contraction_of(stage)
    products = [
        known or _of_numbers(reduction, [o for o in found.operands if o.reduction == number])
        for number, (reduction, known) in enumerate(
            zip(stage.reductions, found.products, strict=True)
        )
    ]
    return replace(found, products=tuple(products))


def _of_numbers(reduction: Reduction, operands: Sequence[Operand]) -> Product | None:
    body = reduction.body
    if reduction.kind != "sum" or not isinstance(body, ex.Apply) or body.op != "mul":
        return None
    sides = [[o for o in operands if o.load in set(ex.unique_parts(arg))] for arg in body.args]
    if len(sides[0]) != 1 or not sides[1] or not is_small(body.args[1]):
        return None
    moves = frozenset[str]().union(*(operand.moves for operand in sides[1]))
    return Product(sides[0][0], replace(sides[1][0], moves=moves), plain=False)


def digits_of(stage: Stage) -> Axis | None:
    """The reduction axis along which a stage takes numbers out of one word, if there is one."""
    if not stage.reduce_axes:
        return None
    last = stage.reduce_axes[-1]
    for reduction in stage.reductions:
        for part in ex.unique_parts(reduction.body):
            if isinstance(part, ex.Apply) and part.op in DIGITS:
                place = part.args[1]
                known = isinstance(place, ex.IndexValue) and place.index == symbol(last.name)
                return last if known and isinstance(last.extent, int) else None
    return None


def narrow(factor: ex.Expr) -> ex.Expr:
    """A factor before it is converted to what products are added up in."""
    if isinstance(factor, ex.Apply) and factor.op == "cast":
        source = factor.args[0]
        if source.dtype in _CONVERTED.get(factor.dtype, ()):
            return source
    return factor


def element_of(factor: ex.Expr) -> DType:
    """The elements that a factor is multiplied as."""
    return narrow(factor).dtype
