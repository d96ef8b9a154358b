"""Packing of constant operands: panels as wide as the register tile, zero-padded at the end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..ir.dims import Dim, coefficient, floordiv, symbol, symbols_of
from . import expr as ex
from .kernel import Kernel, Reduction, Stage
from .schedule import Schedule


@dataclass(frozen=True)
class Packing:
    """A row-major matrix [rows, columns] stored as [panels][rows][width]."""

    rows: int
    columns: int
    width: int

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The packed elements, flat; `data` has rows * columns elements."""
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
    """Re-index constant operands that the first stage reads along its lanes.

    sizes: elements of every constant parameter. Returns the kernel that reads packed operands
    and the packing of each one that changed.
    """
    packings: dict[str, Packing] = {}
    if len(kernel.stages) != 1:
        return kernel, packings
    stage, own = kernel.stages[0], schedule.stages[0]
    axis = next((a for a in stage.axes if a.name == own.vector), None)
    if axis is None or not isinstance(axis.extent, int) or not stage.reductions:
        return kernel, packings
    width = own.lanes * own.vectors
    loads = {
        part.buffer.name: part
        for reduction in stage.reductions
        for part in ex.walk(reduction.body)
        if isinstance(part, ex.Load) and part.buffer.name in sizes
    }
    offsets: dict[ex.Load, Dim] = {}
    for name, load in loads.items():
        found = _packed_offset(stage, load, axis.name, axis.extent, width, sizes[name])
        if found is not None:
            packings[name] = Packing(sizes[name] // axis.extent, axis.extent, width)
            offsets[load] = found
    if not packings:
        return kernel, packings
    reductions = tuple(
        Reduction(r.kind, _replace(r.body, offsets), r.last) for r in stage.reductions
    )
    return replace(kernel, stages=(replace(stage, reductions=reductions),)), packings


def _packed_offset(
    stage: Stage, load: ex.Load, axis: str, columns: int, width: int, size: int
) -> Dim | None:
    """The offset into the packed operand, or None when the operand is no such matrix."""
    if load.dynamic or coefficient(load.offset, axis) != 1 or size % columns or columns == width:
        return None
    rest = load.offset - symbol(axis)
    row = floordiv(rest, columns)
    parallel = {a.name for a in stage.axes}
    if row * columns != rest or symbols_of(row) & parallel:
        return None
    return row * width + symbol(axis) + symbol(f"{axis}@base") * (size // columns - 1)


def _replace(expression: ex.Expr, offsets: dict[ex.Load, Dim]) -> ex.Expr:
    if isinstance(expression, ex.Load) and expression in offsets:
        return replace(expression, offset=offsets[expression])
    if isinstance(expression, ex.Apply):
        return replace(expression, args=tuple(_replace(a, offsets) for a in expression.args))
    return expression
