"""Tiles of instructions that take one lane of an operand for all (Arm's SDOT, USDOT, BFDOT).

Neighbouring steps of a row are read at once, and stay in a register while all of them are done: a
tile has a register for each row besides its sums.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ...target import CpuTarget
from ..contraction import contraction_of, extent_of
from ..cost.tile_cycles import step_cycles
from ..forms.step_groups import products_of_groups
from ..instruction import LANE_STEPS
from ..kernel import Kernel, Stage
from .choice import BANDS, BLOCKS, Choice, StageChoice
from .matrix_tiles import plain_operands
from .register_tile import least_tile
from .resolve import axes_by_role

LANES = 4  # columns of a vector
COLUMN_REGISTERS = 5  # of the columns' operand: LLVM loads several ahead


def with_lane_tiles(choice: Choice, kernel: Kernel, target: CpuTarget) -> Choice:
    """The choice with such tiles in the stages that multiply several rows of groups so."""
    pairs = zip(choice.stages, kernel.stages, strict=True)
    return replace(
        choice, stages=tuple(_stage(own, stage, kernel.shared, target) for own, stage in pairs)
    )


def _stage(own: StageChoice, stage: Stage, shared: int, target: CpuTarget) -> StageChoice:
    names = axes_by_role(stage, shared)
    if len(products_of_groups(stage)) != 1 or len(stage.reductions) != 1:
        return own
    if not own.row or not own.vector.startswith("p") or own.lanes != LANES:
        return own
    inner = stage.reduce_axes[-1]
    if not isinstance(inner.extent, int) or inner.extent % LANE_STEPS:
        return own
    if not plain_operands(stage, names[own.vector], names[own.row]):
        return own
    if contraction_of(stage).operands[0].stride(inner.name) != 1:
        return own
    axes = {axis.name: axis for axis in stage.axes}
    row, columns = axes[names[own.row]], -(-extent_of(axes[names[own.vector]]) // LANES)
    if extent_of(row) < 2:
        return own
    rows, vectors = least_tile(row, columns, target, registers, partial(_cycles, target))
    order = tuple(name for name in own.order if name not in (BLOCKS, BANDS))
    return replace(
        own, rows=rows, vectors=vectors, order=order, unroll=LANE_STEPS, block=0, band=0, panel=0,
        ordered=False,
    )  # fmt: skip


def registers(rows: int, vectors: int) -> int:
    """Registers of a tile: its sums, what its rows read, and some of the columns."""
    return rows * vectors + rows + COLUMN_REGISTERS


def _cycles(target: CpuTarget, rows: int, vectors: int) -> float:
    """Cycles of one group of steps."""
    return step_cycles(rows * vectors, vectors + rows / LANE_STEPS, 0, 0, target)
