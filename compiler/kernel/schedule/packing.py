"""Packing of constant operands: panels as wide as the register tile, zero-padded at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from ...errors import ScheduleError
from ...ir.dims import Dim, coefficient, floordiv, substitute, symbol, symbols_of
from .. import expr as ex
from ..axis_names import pair_of, panel_base
from ..contraction import contraction_of
from ..instruction import ACROSS, PAIR, PAIRS
from ..kernel import Axis, Kernel
from .schedule import Schedule


class Transform(Protocol):
    """A change of a constant's elements before it is packed; hashable."""

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The changed elements."""
        ...


@dataclass(frozen=True)
class Packing:
    """Row-major matrices [rows, columns], each stored as [panels][rows / steps][width][steps].

    steps: neighbouring rows whose elements of a column lie side by side.
    before: a transform of the constant that makes the matrices. element_bytes: of one element of
    these, where the transform makes it another size than the constant's.
    """

    rows: int
    columns: int
    width: int
    matrices: int = 1
    before: Transform | None = None
    element_bytes: int = 0
    steps: int = 1

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The packed elements, flat, of matrices * rows * columns transformed ones."""
        data = self.before.apply(data) if self.before else data
        panels = -(-self.columns // self.width)
        padded = np.zeros((self.matrices, self.rows, panels * self.width), data.dtype)
        padded[..., : self.columns] = data.reshape(self.matrices, self.rows, self.columns)
        rows = self.rows // self.steps
        split = padded.reshape(self.matrices, rows, self.steps, panels, self.width)
        return np.ascontiguousarray(split.transpose(0, 3, 1, 4, 2)).reshape(-1)

    @property
    def elements(self) -> int:
        """Elements of the packed matrices."""
        return self.matrices * self.rows * -(-self.columns // self.width) * self.width


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
        across = bool(own.tile.row) and own.instruction in ACROSS
        columns = own.tile.row if across else own.tile.vector
        axis = next((a for a in stage.axes[kernel.shared :] if a.name == columns), None)
        if axis is None or not isinstance(axis.extent, int) or not stage.reductions:
            continue
        width = 1 if across else own.tile.lanes * (own.panel or own.tile.vectors)
        before = own.order[: own.order.index(axis.name)]
        around = [a for a in stage.axes[kernel.shared :] if a.name in before]
        outer = [*stage.axes[: kernel.shared], *around]
        pair = pair_of(stage.reduce_axes[-2].name) if own.instruction in PAIRS else ""
        offsets: dict[ex.Load, Dim] = {}
        for operand in contraction_of(stage).operands:
            load, name = operand.load, operand.load.buffer.name
            if name not in sizes:
                continue
            found = _packed(load, axis, outer, width, sizes[name], pair)
            if found is not None and loads_of(kernel, name) == 1:
                packing, offset = found
                if across:  # a panel is one column, wherever in a tile it is
                    offset = substitute(offset, {panel_base(axis.name): symbol(axis.name)})
                packings[name], offsets[load] = packing, offset
        if pair and not offsets:
            raise ScheduleError(
                f"'{own.instruction}' multiplies by what is no constant matrix",
                remedy="choose another instruction",
            )
        if offsets:
            reductions = tuple(
                r.with_parts(partial(ex.rebuilt, change=partial(moved, offsets=offsets)))
                for r in stage.reductions
            )
            stages[number] = replace(stage, reductions=reductions)
    return replace(kernel, stages=tuple(stages)), packings


def loads_of(kernel: Kernel, name: str) -> int:
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


def _packed(
    load: ex.Load, axis: Axis, outer: list[Axis], width: int, size: int, pair: str
) -> tuple[Packing, Dim] | None:
    """How an operand is packed and the offset into it; None when it is no such matrix.

    pair: the axis of two steps of the sum whose elements shall lie side by side, if any.
    outer: axes of loops around those over the panels; those that select a matrix keep each apart,
    one may select which of several equal parts of the columns the axis runs over.
    """
    extent = axis.extent
    assert isinstance(extent, int)
    if load.dynamic or coefficient(load.offset, axis.name) != 1 or size % extent:
        return None
    rest = load.offset - symbol(axis.name)
    row = floordiv(rest, extent)
    if row * extent != rest or axis.name in symbols_of(row):
        return None
    row, part, parts = _column_part(row, outer, extent % width == 0)
    columns = extent * parts
    if (columns == width and not pair) or size % columns:
        return None
    rows, matrices = size // columns, 1
    skipped: Dim = part * (extent * rows)
    for other in outer:
        step = coefficient(row, other.name)
        if isinstance(step, int) and step > 0 and step * other.extent == rows:
            matrices, rows = matrices * rows // step, step
            beyond = -(-columns // width) * width - width
            skipped = skipped + symbol(other.name) * (rows * beyond)
    steps = PAIR if pair else 1
    pairs = floordiv(row - symbol(pair), PAIR) if pair else row
    if rows % steps or (pair and pairs * PAIR + symbol(pair) != row):
        return None
    packing = Packing(rows, columns, width, matrices, steps=steps)
    base = symbol(panel_base(axis.name)) * (rows - steps)
    place = (pairs * width + symbol(axis.name)) * steps + (symbol(pair) if pair else 0)
    return packing, place + skipped + base


def _column_part(row: Dim, outer: list[Axis], whole: bool) -> tuple[Dim, Dim, int]:
    """(row of the matrix, part of its columns, number of parts) for a row of one of the parts.

    whole: whether a part is a whole number of panels.
    """
    for axis in outer:
        if whole and coefficient(row, axis.name) == 1 and isinstance(axis.extent, int):
            part, parts = symbol(axis.name), axis.extent
            inner = floordiv(row - part, parts)
            if parts > 1 and inner * parts == row - part:
                return inner, part, parts
    return row, 0, 1


def moved(part: ex.Expr, offsets: Mapping[ex.Load, Dim]) -> ex.Expr:
    """A load at the offset that it is given, if it is; to be used by `expr.rebuilt`."""
    if isinstance(part, ex.Load) and part in offsets:
        return replace(part, offset=offsets[part])
    return part
