"""What `tl.dot` multiplies: the elements of factors, and what their products are added up in."""

from __future__ import annotations

from dataclasses import dataclass

from ...compiler.ir.types import DType
from ...compiler.kernel import expr as ex
from ...compiler.kernel.kernel import Reduction
from .emit.types import HALVES

# elements that are converted to what sums are made in by the multiplication itself
_CONVERTED = {DType.F32: HALVES, DType.I32: (DType.I8,)}


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
    kinds = {element_of(factor) for factor in body.args}
    if len(kinds) == 1 and (kind := kinds.pop()) in _CONVERTED[body.dtype]:
        return Dot(kind, body.dtype)
    if body.dtype is not DType.F32 or body.exact:
        return None
    return Dot(DType.F32, DType.F32)


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
