"""Constant factors of products, stored as their steps of a sum are read: side by side.

The elements that one result needs of a constant lie one behind the other, [N, K], and begin at a
multiple of 16 elements, so that threads load 16 bytes at once, and tensor cores that want factors
so (`wgmma` of anything but halves) find them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...compiler.ir.dims import Dim, coefficient, symbol
from ...compiler.ir.types import DType
from ...compiler.kernel import expr as ex
from ...compiler.kernel.contraction import Operand
from ...compiler.kernel.kernel import Axis, Kernel, Stage, linear_of
from ...compiler.kernel.schedule.chooser import Constant
from ...compiler.kernel.schedule.packing import Packing, loads_of, moved
from ...compiler.kernel.schedule.tiles import Kind, Tiles
from .dots import contraction_for, dot_of

Array = np.ndarray[Any, Any]
MULTIPLE = 16  # elements that rows are filled up to


@dataclass(frozen=True)
class Rows:
    """Elements of a constant along axes, the last `inner` of which are a row: [rows, steps].

    offset: of the first. extents, strides: of every axis, in elements.
    """

    offset: int
    extents: tuple[int, ...]
    strides: tuple[int, ...]
    inner: int

    @property
    def steps(self) -> int:
        """Elements of a row."""
        return int(np.prod(self.extents[len(self.extents) - self.inner :], dtype=np.int64))

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(np.prod(self.extents[: len(self.extents) - self.inner], dtype=np.int64))

    @property
    def padded(self) -> int:
        """Elements of a row with the zeros behind it."""
        return -(-self.steps // MULTIPLE) * MULTIPLE

    @property
    def plain(self) -> bool:
        """Whether the constant is stored so already, without zeros."""
        expected, step = [], 1
        for extent in reversed(self.extents):
            expected.append(step)
            step *= extent
        return self.padded == self.steps and self.strides == tuple(reversed(expected))

    def apply(self, data: Array) -> Array:
        """The rows, each with its zeros."""
        bits = f"u{data.itemsize}"  # numpy knows no strides of small floats
        flat = np.ascontiguousarray(data).reshape(-1).view(bits)[self.offset :]
        steps = tuple(stride * flat.itemsize for stride in self.strides)
        picked = np.lib.stride_tricks.as_strided(flat, self.extents, steps, writeable=False)
        rows = np.zeros((self.rows, self.padded), bits)
        rows[:, : self.steps] = picked.reshape(self.rows, self.steps)
        return rows.view(data.dtype)


@dataclass(frozen=True)
class PackedKernel:
    """A kernel that reads packed constants, and how they are packed, by parameter name."""

    kernel: Kernel
    packings: Mapping[str, Packing]
    tiles: tuple[Tiles, ...]


def pack_factors(
    kernel: Kernel, tiles: Sequence[Tiles], constants: Mapping[str, Constant]
) -> PackedKernel:
    """Have the products of a kernel read constants packed, where that makes their loads wide."""
    packings = {name: c.packing for name, c in constants.items() if c.packing is not None}
    attention = any(own.kind is Kind.ATTENTION for own in tiles)
    if kernel.shared or attention or len(tiles) not in (1, len(kernel.stages)):
        return PackedKernel(kernel, packings, tuple(tiles))
    stages, changed = list(kernel.stages), list(tiles)
    before = len(stages) - len(tiles)  # what a norm finds before the product
    for number, own in enumerate(tiles):
        stage = stages[before + number]
        offsets: dict[ex.Load, Dim] = {}
        for side, operand in _factors(stage, own):
            constant = constants.get(operand.load.buffer.name)
            rows = _rows(stage, operand, constant) if constant else None
            if rows is None or loads_of(kernel, operand.load.buffer.name) != 1:
                continue
            if not rows.plain:
                packing = Packing(rows.rows, rows.padded, rows.padded, 1, rows)
                packings[operand.load.buffer.name] = packing
                offsets[operand.load] = _offset(stage, operand, rows)
                changed[number] = _reading(changed[number], side, rows.padded)
        if offsets:
            reductions = tuple(
                r.with_parts(partial(ex.rebuilt, change=partial(moved, offsets=offsets)))
                for r in stage.reductions
            )
            stages[before + number] = replace(stage, reductions=reductions)
    return PackedKernel(replace(kernel, stages=tuple(stages)), packings, tuple(changed))


def _reading(tiles: Tiles, side: int, steps: int) -> Tiles:
    """The tiles of a product one side of which reads rows of so many steps."""
    left, right = tiles.packed
    return replace(tiles, packed=(left, steps) if side else (steps, right))


def _factors(stage: Stage, tiles: Tiles) -> Iterator[tuple[int, Operand]]:
    """The factors of a stage's products for whose loads it matters where steps of a sum lie, each
    with its side: 0 or 1."""
    for reduction, found in zip(stage.reductions, contraction_for(stage).products, strict=True):
        dot = dot_of(reduction)
        exact = dot is None or (dot.elements is DType.F32 and not tiles.tf32)
        useless = exact if tiles.kind is Kind.PRODUCT else tiles.columns <= MULTIPLE
        if found is None or useless:
            continue
        yield from enumerate((found.left, found.right))


def _rows(stage: Stage, operand: Operand, constant: Constant) -> Rows | None:
    """Where the elements of a constant factor lie; None where they are no fixed steps apart."""
    load, sums = operand.load, stage.reduce_axes
    axes = (*_own(stage, operand), *sums)
    if load.dynamic or constant.packing is not None:
        return None
    if not all(isinstance(axis.extent, int) and axis.extent > 0 for axis in axes):
        return None
    strides = [coefficient(load.offset, axis.name) for axis in axes]
    pairs = list(zip(axes, strides, strict=True))
    rest = load.offset - sum((symbol(a.name) * s for a, s in pairs if s is not None), start=0)
    if not isinstance(rest, int) or not all(isinstance(s, int) and s >= 0 for s in strides):
        return None
    extents = tuple(int(axis.extent) for axis in axes)  # type: ignore[arg-type]
    steps = tuple(int(stride) for stride in strides)  # type: ignore[arg-type]
    last = rest + sum((n - 1) * step for n, step in zip(extents, steps, strict=True))
    if rest < 0 or last >= constant.elements or not any(steps[len(axes) - len(sums) :]):
        return None
    return Rows(rest, extents, steps, len(sums))


def _own(stage: Stage, operand: Operand) -> tuple[Axis, ...]:
    return tuple(axis for axis in stage.axes if operand.along(axis.name))


def _offset(stage: Stage, operand: Operand, rows: Rows) -> Dim:
    """The place of an element in the packed rows."""
    return linear_of(_own(stage, operand)) * rows.padded + linear_of(stage.reduce_axes)
