"""In which order sums are added up: what code generation follows, and which schedules give the
same bits.

A sum is added up step by step, but for what tiles of few accumulators do side by side, lanes that
run along it, and matrices. Loops over blocks of a sum, over rows and columns, and how many steps
are written out change nothing: partial sums wait in memory as they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from ..contraction import contraction_of
from ..expr import Apply
from ..instruction import DOTS, INSTRUCTIONS, MATRICES, PAIRS
from ..kernel import Axis, Kernel, Stage, has_factors
from .schedule import Schedule, StageSchedule, Unrolling

Order = tuple[object, ...]


def parts_of_sum(stage: Stage, own: StageSchedule, slots: int) -> int:
    """In how many parts a tile of so many results does a sum side by side.

    Few accumulators leave the ports idle while each waits for itself, and a tile of few rows
    reads an operand that others do not: memory delivers several streams faster than one.
    """
    axes, reductions = stage.reduce_axes, stage.reductions
    if len(axes) != 1 or contraction_of(stage).reads_packed:  # `parts_of_block`
        return 1
    extent = own.blocks.steps if own.blocks.axis else axes[0].extent
    if not isinstance(extent, int):
        return 1
    if any(r.kind not in ("sum", "max", "min") for r in reductions):
        return 1
    busy, chosen = slots * len(reductions), own.unrolling
    parts = chosen.parts
    while parts > 1 and (
        parts * busy > chosen.accumulators or extent % parts or extent // parts < chosen.part_steps
    ):
        parts //= 2
    return parts


def parts_of_block(stage: Stage, own: Unrolling, slots: int) -> int:
    """In how many parts, in turns from step to step, a tile adds up packed weights, or what is
    multiplied by a factor later."""
    if not has_factors(stage) and not contraction_of(stage).reads_packed:
        return 1
    inside = [axis.extent for axis in stage.reduce_axes[stage.outer_axes :]]
    steps = math.prod(n for n in inside if isinstance(n, int))
    busy, parts = slots * len(stage.reductions), 1
    while 2 * parts * busy <= own.accumulators and 2 * parts <= min(own.parts, steps):
        parts *= 2
    return parts


def sum_order(kernel: Kernel, schedule: Schedule) -> Order:
    """A key for the order in which each sum is added up: of two schedules, or kernels, of the same
    operators, those with equal keys give the same bits. Integers are the same in any order."""
    stages = zip(kernel.stages, schedule.stages, strict=True)
    return tuple(_stage(stage, own, kernel.shared) for stage, own in stages)


def _stage(stage: Stage, own: StageSchedule, shared: int) -> Order:
    floats = [r for r in stage.reductions if r.body.dtype.is_float]
    if not floats:
        return ()
    tile = own.tile
    places = {axis.name: place for place, axis in enumerate(stage.reduce_axes)}
    depths = tuple(str(axis.extent) for axis in stage.reduce_axes)
    dots = tuple(r.body.op for r in floats if isinstance(r.body, Apply) and r.body.op in DOTS)
    head: Order = (depths, dots, own.instruction if dots else "")
    if tile.vector in places:
        return (*head, "lanes", places[tile.vector], tile.lanes, tile.vectors)
    whole = (tile.vector, tile.row, tile.rows, tile.lanes, tile.vectors)
    if own.instruction in MATRICES and INSTRUCTIONS[own.instruction].of.accumulate.is_float:
        return (*head, "matrices", *whole)
    if own.instruction in PAIRS:
        return (*head, "pairs")
    slots = {rows * vectors for rows in _rows(stage, own) for vectors in _vectors(stage, own)}
    side = {parts_of_sum(stage, own, count) for count in slots}
    turns = {parts_of_block(stage, own.unrolling, count) for count in slots}
    steps = own.blocks.steps if side != {1} else 0
    if turns != {1}:  # whose turn it is depends on how many steps are written out
        steps, head = own.blocks.steps, (*head, own.unrolling.unroll, own.unrolling.written)
    if len(side) == len(turns) == 1:
        return (*head, "parts", *side, *turns, steps)
    return (*head, "tiles", *whole, steps)


def _rows(stage: Stage, own: StageSchedule) -> Iterator[int]:
    """Heights of the tiles that there are."""
    yield from _sizes(stage, own.tile.row, own.tile.rows, 1, own.tile.rests)


def _vectors(stage: Stage, own: StageSchedule) -> Iterator[int]:
    """Widths of the tiles that there are, in vectors."""
    yield from _sizes(stage, own.tile.vector, own.tile.vectors, own.tile.lanes, (1,))


def _sizes(stage: Stage, name: str, size: int, unit: int, rests: tuple[int, ...]) -> Iterator[int]:
    axis: Axis | None = next((axis for axis in stage.axes if axis.name == name), None)
    if axis is None:
        yield 1
        return
    if not isinstance(axis.extent, int):
        yield from (size, *rests)
        return
    if axis.extent >= size * unit:
        yield size
    if left := axis.extent % (size * unit):
        yield -(-left // unit)
