"""Borders of one number around tensors in memory."""

from __future__ import annotations

from ...ir.dims import symbol
from ...ir.types import TensorType
from ..expr import Buffer, Const
from ..kernel import Axis, Kernel, Stage, Store
from ..lower.scope import strides_of
from ..simplify import simplify


def border_kernel(type_: TensorType) -> Kernel:
    """A kernel that writes what surrounds a tensor: axis by axis, before and behind it."""
    buffer = Buffer("o0", type_.dtype)
    strides, origin = strides_of(type_)
    fill = type_.layout.fill
    number = Const(float(fill) if type_.dtype.is_float else fill, type_.dtype)
    stages: list[Stage] = []
    for axis, (low, high) in enumerate(type_.layout.border):
        for start, count in ((-low, low), (type_.shape[axis], high)):
            if not count:
                continue
            axes: list[Axis] = []
            offset = origin + strides[axis] * start
            for other, dim in enumerate(type_.shape):
                before, after = type_.layout.border[other]
                whole = other > axis  # later axes with their borders, earlier ones without
                extent = count if other == axis else dim + (before + after if whole else 0)
                name = f"$b{other}"
                axes.append(Axis(name, extent))
                offset = offset + strides[other] * symbol(name)
                if whole:
                    offset = offset - strides[other] * before
            stages.append(Stage(tuple(axes), (), (), (Store(buffer, offset, number),)))
    kernel = Kernel("", (buffer,), 1, tuple(stages), 0, ("border",))
    return simplify(kernel)
