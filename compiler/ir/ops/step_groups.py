"""Groups of neighbouring steps of a sum as one element of 32 bits, and products of such elements.

It is the form in which instructions take them: four bytes (VPDPBUSD, SDOT), two words of 16 bits
(VPMADDWD) or two bf16 (VDPBF16PS) of either operand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..graph import Value
from ..types import DType, TensorType, broadcast_shapes
from .common import need_dtype, same_dtype
from .registry import Array, OpDef, Trait, register

GROUP = DType.I32  # what a group of neighbouring elements is read as


@dataclass(frozen=True)
class GroupProduct:
    """What multiplies two groups: the elements of either operand, and what they add up in."""

    left: DType
    right: DType
    accumulate: DType

    @property
    def steps(self) -> int:
        """Steps of a sum in one group."""
        return GROUP.bytes // self.left.bytes


GROUP_PRODUCTS = {
    "dot4": GroupProduct(DType.U8, DType.I8, DType.I32),
    "sdot4": GroupProduct(DType.I8, DType.I8, DType.I32),
    "wdot2": GroupProduct(DType.I16, DType.I16, DType.I32),
    "dot2": GroupProduct(DType.BF16, DType.BF16, DType.F32),
}


def ungrouped(groups: Array, dtype: DType, axis: int) -> Array:
    """The elements of groups, which lie along the last axis (-1) or the one before it (-2)."""
    single = np.ascontiguousarray(groups.swapaxes(axis, -1)).view(dtype.numpy)
    return single.swapaxes(axis, -1)


def _infer_pack_groups(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, axis = inputs[0], attrs["axis"]
    if x.dtype.is_narrow or x.dtype is DType.BOOL or x.dtype.bytes not in (1, 2):
        raise ValueError(f"groups of 32 bits are of elements of 8 or 16, not of {x.dtype.value}")
    if axis not in (-1, -2) or x.type.rank < -axis:
        raise ValueError(f"axis {axis} is not one of the last two of {x.type}")
    count, steps = x.shape[axis], GROUP.bytes // x.dtype.bytes
    if not isinstance(count, int) or count % steps:
        raise ValueError(f"{count} elements do not divide into groups of {steps}")
    shape = list(x.shape)
    shape[axis] = count // steps
    return [TensorType(GROUP, tuple(shape))]


def _pack_groups(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    moved = np.ascontiguousarray(args[0].swapaxes(attrs["axis"], -1))
    return [np.ascontiguousarray(moved.view(GROUP.numpy).swapaxes(attrs["axis"], -1))]


def _infer_dot4(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], frozenset({GROUP}), "a group of elements")
    return [TensorType(same_dtype(inputs), broadcast_shapes(*(v.shape for v in inputs)))]


def _integer_dot(op: str, args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """The sum of the products of the elements of a and those of b, as many as a group has."""
    of = GROUP_PRODUCTS[op]
    a, b = (np.ascontiguousarray(arg) for arg in np.broadcast_arrays(*args))
    left = a[..., None].view(of.left.numpy).astype(np.int32)
    right = b[..., None].view(of.right.numpy).astype(np.int32)
    return [np.asarray((left * right).sum(-1, dtype=np.int32))]


def _infer_dot2(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    return [found.with_dtype(DType.F32) for found in _infer_dot4(inputs, attrs)]


def _dot2(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """The sum of the products of two bf16 of a and two of b: the product of the later ones, which
    is exact in f32, then that of the earlier ones added to it with one rounding."""
    a, b = (np.ascontiguousarray(arg) for arg in np.broadcast_arrays(*args))
    left, right = (x[..., None].view(DType.BF16.numpy).astype(np.float64) for x in (a, b))
    with np.errstate(all="ignore"):
        return [np.asarray((left * right).sum(-1).astype(np.float32))]


# the first element of a group is the lowest
register(
    OpDef("pack_groups", _infer_pack_groups, _pack_groups, Trait.NONE, {"axis": -1}, arity=(1, 1))
)
for _op in ("dot4", "sdot4", "wdot2"):
    register(OpDef(_op, _infer_dot4, partial(_integer_dot, _op), Trait.POINTWISE, arity=(2, 2)))
register(OpDef("dot2", _infer_dot2, _dot2, Trait.POINTWISE, arity=(2, 2)))
