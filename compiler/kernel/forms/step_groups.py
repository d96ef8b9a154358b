"""Sums whose steps go in groups, as instructions take them: neighbouring elements as one.

Of a product of narrow elements, a group of neighbouring steps of the sum is read as one element of
32 bits from either operand, and an operator multiplies two such groups and adds up. What is left is
a product like any other, of so many times fewer steps: tiles, panels and threads follow as they do
for floats. The right operand, a constant, is stored with the elements of a group side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.dims import Dim, coefficient, floordiv, substitute, symbol, symbols_of
from ...ir.ops.step_groups import GROUP
from .. import expr as ex
from ..instruction import DOTS, Instruction, best_of, instruction_for
from ..kernel import Axis, Kernel, Reduction, Stage


@dataclass(frozen=True)
class GroupRows:
    """Rows of a matrix in groups: [rows, columns] becomes [rows / steps, columns] of groups."""

    steps: int
    columns: int

    def apply(self, data: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The groups of a constant, each as one integer of 32 bits."""
        split = data.reshape(-1, self.steps, self.columns).transpose(0, 2, 1)
        return np.ascontiguousarray(split).view(np.int32).reshape(-1)


@dataclass(frozen=True)
class Grouped:
    """A kernel whose sums go in groups. transforms: of the constants that it reads so."""

    kernel: Kernel
    transforms: Mapping[str, GroupRows]


def products_of_groups(stage: Stage) -> tuple[str, ...]:
    """The operators that multiply groups in the sums of a stage."""
    bodies = (reduction.body for reduction in stage.reductions)
    return tuple(body.op for body in bodies if isinstance(body, ex.Apply) and body.op in DOTS)


def best_instruction(kernel: Kernel, available: Iterable[str]) -> Instruction | None:
    """The best instruction among those available for the products of a kernel, if there is any."""
    for stage in kernel.stages:
        for op in products_of_groups(stage):
            return best_of(op, available)
        for reduction in stage.reductions:
            factors = _factors(reduction)
            if factors is not None:
                left, right = (_loaded(factor) for factor in factors)
                types = (left.dtype, right.dtype, reduction.body.dtype)
                return instruction_for(*types, available)
    return None


def in_groups(kernel: Kernel, instruction: Instruction, sizes: Mapping[str, int]) -> Grouped | None:
    """The kernel with the products of one stage in groups of steps; None where it has none such.

    sizes: elements of the constants that it reads.
    """
    for number, stage in enumerate(kernel.stages):
        changed = _grouped(stage, instruction, sizes)
        if changed is None:
            continue
        stage, transforms = changed
        others = kernel.stages[:number] + kernel.stages[number + 1 :]
        if any(_reads(other, transforms) for other in others):
            return None
        stages = (*kernel.stages[:number], stage, *kernel.stages[number + 1 :])
        return Grouped(replace(kernel, stages=stages), transforms)
    return None


def _reads(stage: Stage, names: Iterable[str]) -> bool:
    loads = (p for e in stage.expressions() for p in ex.unique_parts(e) if isinstance(p, ex.Load))
    return not {load.buffer.name for load in loads}.isdisjoint(names)


def _grouped(
    stage: Stage, instruction: Instruction, sizes: Mapping[str, int]
) -> tuple[Stage, dict[str, GroupRows]] | None:
    if not stage.reductions:
        return None
    axis = stage.reduce_axes[-1]
    extents = {a.name: a.extent for a in (*stage.axes, *stage.reduce_axes)}
    if not isinstance(axis.extent, int) or axis.extent % instruction.steps:
        return None
    transforms: dict[str, GroupRows] = {}
    reductions: list[Reduction] = []
    for reduction in stage.reductions:
        factors = _factors(reduction)
        if factors is None or reduction.body.dtype is not instruction.of.accumulate:
            return None
        left = _left(factors[0], axis, instruction)
        right = _right(factors[1], axis, instruction, extents, sizes)
        if left is None or right is None:
            return None
        load, rows = right
        name = load.buffer.name
        if transforms.setdefault(name, rows) != rows:
            return None
        body = ex.Apply(instruction.op, (left, load), instruction.of.accumulate)
        reductions.append(replace(reduction, body=body))
    shorter = Axis(axis.name, axis.extent // instruction.steps)
    axes = (*stage.reduce_axes[:-1], shorter)
    changed = replace(stage, reduce_axes=axes, reductions=tuple(reductions))
    stores = replace(changed, reductions=())
    return None if _reads(stores, transforms) else (changed, transforms)


def _factors(reduction: Reduction) -> tuple[ex.Expr, ex.Expr] | None:
    """The factors of a sum of products of elements that are converted: left and right."""
    body = reduction.body
    if reduction.kind != "sum" or not isinstance(body, ex.Apply) or body.op != "mul":
        return None
    inner = [arg.args[0] for arg in body.args if isinstance(arg, ex.Apply) and arg.op == "cast"]
    if len(inner) != 2:
        return None
    plain = all(not _loaded(part).dynamic for part in inner if _holds_load(part))
    return (inner[0], inner[1]) if plain and all(map(_holds_load, inner)) else None


def _holds_load(part: ex.Expr) -> bool:
    """Whether it is one element, or one that is a constant outside of bounds."""
    if isinstance(part, ex.Guarded):
        return isinstance(part.value, ex.Load) and isinstance(part.other, ex.Const)
    return isinstance(part, ex.Load)


def _loaded(part: ex.Expr) -> ex.Load:
    inside = part.value if isinstance(part, ex.Guarded) else part
    assert isinstance(inside, ex.Load)
    return inside


def _left(part: ex.Expr, axis: Axis, instruction: Instruction) -> ex.Expr | None:
    """The left factor's groups: its steps are neighbours, and groups begin at multiples."""
    load, steps = _loaded(part), instruction.steps
    if load.dtype is not instruction.of.left or coefficient(load.offset, axis.name) != 1:
        return None
    start = substitute(load.offset, {axis.name: symbol(axis.name) * steps})
    offset = floordiv(start, steps)
    if offset * steps != start:
        return None
    groups = ex.Load(replace(load.buffer, dtype=GROUP), offset)
    if not isinstance(part, ex.Guarded):
        return groups
    if any(axis.name in symbols_of(bound.index) for bound in part.bounds):
        return None
    assert isinstance(part.other, ex.Const)
    outside = np.full(steps, part.other.value, load.dtype.numpy).view(np.int32)
    return ex.Guarded(part.bounds, groups, ex.Const(int(outside[0]), GROUP))


def _right(
    part: ex.Expr,
    axis: Axis,
    instruction: Instruction,
    extents: Mapping[str, Dim],
    sizes: Mapping[str, int],
) -> tuple[ex.Load, GroupRows] | None:
    """The right factor's groups, of a constant matrix whose rows are the steps of the sum."""
    if not isinstance(part, ex.Load) or part.dtype is not instruction.of.right:
        return None
    columns, steps = coefficient(part.offset, axis.name), instruction.steps
    size = sizes.get(part.buffer.name, 0)
    if not isinstance(columns, int) or columns < 1 or not size or size % (columns * steps):
        return None
    offset = _place(part.offset, axis.name, columns, steps, extents)
    if offset is None:
        return None
    return ex.Load(replace(part.buffer, dtype=GROUP), offset), GroupRows(steps, columns)


def _place(
    offset: Dim, axis: str, columns: int, steps: int, extents: Mapping[str, Dim]
) -> Dim | None:
    """Where an element of a matrix lies when its rows are stored in groups, counted in groups.

    axis: the innermost of the sum, whose steps are rows. None where others move by rows that make
    no whole groups, or leave the columns.
    """
    span = columns * steps
    names = symbols_of(offset)
    first = substitute(offset, dict.fromkeys(names, 0))
    assert isinstance(first, int)
    found: Dim = symbol(axis) * columns + first // span * columns + first % span
    last = first % span
    for name in names - {axis}:
        factor, extent = coefficient(offset, name), extents.get(name)
        if not isinstance(factor, int) or not isinstance(extent, int) or factor < 0:
            return None
        if factor % span:
            found, last = found + symbol(name) * factor, last + factor * (extent - 1)
        else:
            found = found + symbol(name) * (factor // steps)
    return found if first >= 0 and last < columns else None
