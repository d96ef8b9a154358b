"""Packing of constant operands: panels as wide as the register tile, zero-padded at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from ..ir.dims import Dim, coefficient, floordiv, symbol, symbols_of
from . import expr as ex
from .kernel import Kernel, Reduction, Stage
from .schedule import Schedule


class Transform(Protocol):
    """A change of a constant's elements before it is packed; hashable."""

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The changed elements."""
        ...


@dataclass(frozen=True)
class Packing:
    """A row-major matrix [rows, columns] stored as [panels][rows][width].

    before: a transform of the constant that makes the matrix.
    """

    rows: int
    columns: int
    width: int
    before: Transform | None = None

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The packed elements, flat; the transformed `data` has rows * columns elements."""
        data = self.before.apply(data) if self.before else data
        panels = -(-self.columns // self.width)
        padded = np.zeros((self.rows, panels * self.width), data.dtype)
        padded[:, : self.columns] = data.reshape(self.rows, self.columns)
        split = padded.reshape(self.rows, panels, self.width)
        return np.ascontiguousarray(split.transpose(1, 0, 2)).reshape(-1)

    @property
    def elements(self) -> int:
        """Elements of the packed matrix."""
        return -(-self.columns // self.width) * self.width * self.rows


def pack(
    kernel: Kernel, schedule: Schedule, sizes: dict[str, int]
) -> tuple[Kernel, dict[str, Packing]]:
    """Re-index constant operands that a reduction reads along its lanes.

    sizes: elements of every constant parameter. Returns the kernel that reads packed operands
    and the packing of each one that changed.
    """
    packings: dict[str, Packing] = {}
    stages = list(kernel.stages)
    for number, (stage, own) in enumerate(zip(kernel.stages, schedule.stages, strict=True)):
        axis = next((a for a in stage.axes[kernel.shared :] if a.name == own.vector), None)
        if axis is None or not isinstance(axis.extent, int) or not stage.reductions:
            continue
        width = own.lanes * own.vectors
        offsets: dict[ex.Load, Dim] = {}
        for load in _constant_loads(stage, sizes):
            name = load.buffer.name
            found = _packed_offset(load, axis.name, axis.extent, width, sizes[name])
            if found is not None and _loads_of(kernel, name) == 1:
                packings[name] = Packing(sizes[name] // axis.extent, axis.extent, width)
                offsets[load] = found
        if offsets:
            reductions = tuple(
                Reduction(r.kind, _replace(r.body, offsets), r.last) for r in stage.reductions
            )
            stages[number] = replace(stage, reductions=reductions)
    return replace(kernel, stages=tuple(stages)), packings


def _constant_loads(stage: Stage, sizes: dict[str, int]) -> list[ex.Load]:
    return [
        part
        for reduction in stage.reductions
        for part in ex.walk(reduction.body)
        if isinstance(part, ex.Load) and part.buffer.name in sizes
    ]


def _loads_of(kernel: Kernel, name: str) -> int:
    """How many different places read a buffer."""
    return len(
        {
            part
            for stage in kernel.stages
            for expression in stage.expressions()
            for part in ex.walk(expression)
            if isinstance(part, ex.Load) and part.buffer.name == name
        }
    )


def _packed_offset(load: ex.Load, axis: str, columns: int, width: int, size: int) -> Dim | None:
    """The offset into the packed operand, or None when the operand is no such matrix."""
    if load.dynamic or coefficient(load.offset, axis) != 1 or size % columns or columns == width:
        return None
    rest = load.offset - symbol(axis)
    row = floordiv(rest, columns)
    if row * columns != rest or axis in symbols_of(row):
        return None
    return row * width + symbol(axis) + symbol(f"{axis}@base") * (size // columns - 1)


def _replace(expression: ex.Expr, offsets: dict[ex.Load, Dim]) -> ex.Expr:
    if isinstance(expression, ex.Load) and expression in offsets:
        return replace(expression, offset=offsets[expression])
    if isinstance(expression, ex.Apply):
        return replace(expression, args=tuple(_replace(a, offsets) for a in expression.args))
    return expression
