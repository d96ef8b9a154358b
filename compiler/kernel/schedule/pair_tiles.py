"""Tiles of instructions that multiply two rows by two columns (Arm's SMMLA, USMMLA, BFMMLA).

A vector of the tile is four columns of two rows, in two registers: an operand's register has two
groups of steps of each of two rows, or columns. Those of the columns, a constant, are stored so;
those of the rows are put together from what two rows read, once for all columns of the tile. A
last row without another is multiplied twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial

from ...errors import ScheduleError
from ...ir.dims import Dim, substitute, symbol
from ...target import CpuTarget
from .. import expr as ex
from ..axis_names import pair_of
from ..contraction import contraction_of, extent_of
from ..cost.tile_cycles import step_cycles
from ..forms.step_groups import products_of_groups
from ..instruction import PAIR, PAIRS
from ..kernel import Axis, Kernel, Stage
from .choice import Choice, StageChoice
from .matrix_tiles import plain_operands
from .register_tile import least_tile
from .resolve import axes_by_role
from .schedule import Schedule, StageSchedule

LANES = 4  # columns of a vector
COLUMN_REGISTERS = 2  # of the columns' operand: the present one, and the next that is loaded
UNROLL = 2  # pairs of groups of a row that a load takes


def with_pair_tiles(
    choice: Choice, kernel: Kernel, target: CpuTarget, constants: Collection[str]
) -> Choice | None:
    """The choice with such tiles in the stage that has groups; None where it cannot, or where one
    row alone is multiplied, which other instructions do as fast.

    constants: names of the parameters that are packed.
    """
    found = [number for number, stage in enumerate(kernel.stages) if products_of_groups(stage)]
    if len(found) != 1:
        return None
    number = found[0]
    own, stage = choice.stages[number], kernel.stages[number]
    names = axes_by_role(stage, kernel.shared)
    if not own.row or not own.vector.startswith("p") or own.lanes != LANES:
        return None
    if any(reasons_against(stage, names[own.vector], names[own.row])):
        return None
    if contraction_of(stage).operands[1].load.buffer.name not in constants:
        return None
    axes = {axis.name: axis for axis in stage.axes}
    row, vector = axes[names[own.row]], axes[names[own.vector]]
    if extent_of(row) < PAIR or not isinstance(vector.extent, int):
        return None
    columns = -(-vector.extent // LANES)
    tile = least_tile(row, columns, target, registers, partial(_cycles, target))
    changed = _tiled(own, *tile)
    stages = (*choice.stages[:number], changed, *choice.stages[number + 1 :])
    return replace(choice, stages=stages)


def _tiled(own: StageChoice, rows: int, vectors: int) -> StageChoice:
    return replace(
        own.without_blocks(), rows=rows, vectors=vectors, unroll=UNROLL, prefetch=0,
        panel=0, ordered=False,
    )  # fmt: skip


def registers(rows: int, vectors: int) -> int:
    """Registers of a tile: its sums, what its rows read, and some of the columns."""
    high = -(-rows // PAIR)
    return high * PAIR * vectors + high * UNROLL + COLUMN_REGISTERS


def _cycles(target: CpuTarget, rows: int, vectors: int) -> float:
    """Cycles of two groups of steps. Putting rows together takes as long as a product does."""
    high = -(-rows // PAIR)
    operations = high * PAIR * vectors + high
    return step_cycles(operations, PAIR * vectors + rows / UNROLL, 0, 0, target)


def reasons_against(stage: Stage, vector: str, row: str) -> Iterator[str]:
    """Why a stage cannot go in pairs of rows, columns and groups."""
    if len(stage.reductions) != 1 or not plain_operands(stage, vector, row):
        yield "what rows or columns of pairs read does not lie in rows"
        return
    inner = stage.reduce_axes[-1]
    if not isinstance(inner.extent, int) or inner.extent % PAIR:
        yield f"a sum of {inner.extent} groups does not divide into pairs"
        return
    left, right = contraction_of(stage).operands
    if left.stride(inner.name) != 1:
        yield "the steps of a row are no neighbours"
    columns = right.stride(inner.name)
    if not isinstance(columns, int) or columns < 1:
        yield "the steps of a column do not lie in rows"
        return
    strides = [right.stride(axis.name) for axis in (*stage.axes, *stage.reduce_axes[:-1])]
    if any(not isinstance(s, int) or (s >= columns and s % (PAIR * columns)) for s in strides):
        yield "pairs of steps begin at odd ones"


def in_pairs(kernel: Kernel, schedule: Schedule) -> Kernel:
    """The kernel with the steps of such instructions' sums two by two: the innermost axis counts
    pairs, behind it is one of two steps."""
    pairs = zip(kernel.stages, schedule.stages, strict=True)
    return replace(kernel, stages=tuple(_paired(stage, own) for stage, own in pairs))


def _paired(stage: Stage, own: StageSchedule) -> Stage:
    if own.instruction not in PAIRS:
        return stage
    axis = stage.reduce_axes[-1]
    if reasons := list(reasons_against(stage, own.tile.vector, own.tile.row)):
        raise ScheduleError(f"'{own.instruction}' cannot multiply so", why="; ".join(reasons))
    assert isinstance(axis.extent, int)
    pair = Axis(pair_of(axis.name), PAIR)
    inside: Dim = symbol(axis.name) * PAIR + symbol(pair.name)
    reductions = tuple(
        reduction.with_parts(
            lambda part: ex.map_indices(part, lambda dim: substitute(dim, {axis.name: inside}), {})
        )
        for reduction in stage.reductions
    )
    axes = (*stage.reduce_axes[:-1], Axis(axis.name, axis.extent // PAIR), pair)
    return replace(stage, reduce_axes=axes, reductions=reductions)
