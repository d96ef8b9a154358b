"""Tiles of Arm's products of groups, whose operands take registers in ways of their own.

Of instructions that take one lane of an operand for all (SDOT, USDOT, BFDOT) neighbouring steps of
a row are read at once, and stay in a register while all of them are done: a tile has a register for
each row besides its sums. SMLAD takes pairs of halves, which bytes are made into: a group of bytes
is two registers of pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ...target import CpuTarget
from ..contraction import contraction_of, extent_of
from ..cost.tile_cycles import step_cycles
from ..forms.step_groups import products_of_groups
from ..instruction import BY_LANE, LANE_STEPS
from ..kernel import Axis, Kernel, Stage
from .choice import Choice, StageChoice
from .matrix_tiles import plain_operands
from .register_tile import least_tile
from .resolve import axes_by_role

LOADED_AHEAD = 5  # registers of the columns' operand: LLVM loads several vectors ahead


@dataclass(frozen=True)
class Model:
    """What a tile of so many rows and vectors takes of a target: registers, and cycles of a step.

    lanes: of a vector. neighbours: groups of a row that are read at once.
    """

    lanes: int
    neighbours: int
    registers: Callable[[int, int], int]
    cycles: Callable[[CpuTarget, int, int], float]


def _lane_registers(rows: int, vectors: int) -> int:
    return rows * vectors + rows + LOADED_AHEAD


def _lane_cycles(target: CpuTarget, rows: int, vectors: int) -> float:
    return step_cycles(rows * vectors, vectors + rows / LANE_STEPS, 0, 0, target)


def _pair_registers(rows: int, columns: int) -> int:
    """Sums, the pairs of all columns, and those of one row."""
    return rows * columns + 2 * columns + 2


def _pair_cycles(target: CpuTarget, rows: int, columns: int) -> float:
    """Two products for each sum; a load and two instructions that make pairs for each group."""
    return 2 * rows * columns + 3 * (rows + columns)


_MODELS = {
    **dict.fromkeys(BY_LANE, Model(4, LANE_STEPS, _lane_registers, _lane_cycles)),
    "smlad": Model(1, 1, _pair_registers, _pair_cycles),
}


def with_dot_tiles(choice: Choice, kernel: Kernel, target: CpuTarget) -> Choice:
    """The choice with such tiles in the stages that multiply several rows of groups so."""
    model = _MODELS.get(choice.instruction)
    if model is None:
        return choice
    pairs = zip(choice.stages, kernel.stages, strict=True)
    stages = tuple(_stage(own, stage, kernel.shared, target, model) for own, stage in pairs)
    return replace(choice, stages=stages)


def _stage(
    own: StageChoice, stage: Stage, shared: int, target: CpuTarget, model: Model
) -> StageChoice:
    names = axes_by_role(stage, shared)
    if len(products_of_groups(stage)) != 1 or len(stage.reductions) != 1:
        return own
    if not own.row or not own.vector.startswith("p") or own.lanes != model.lanes:
        return own
    axes = {axis.name: axis for axis in stage.axes}
    row, vector = axes[names[own.row]], axes[names[own.vector]]
    if extent_of(row) < 2 or not _fits(stage, row, vector, model):
        return own
    columns = -(-extent_of(vector) // model.lanes)
    cycles = partial(model.cycles, target)
    rows, vectors = least_tile(row, columns, target, model.registers, cycles)
    unroll = model.neighbours if model.neighbours > 1 else own.unroll
    return replace(
        own.without_blocks(), rows=rows, vectors=vectors, unroll=unroll, panel=0,
        ordered=False,
    )  # fmt: skip


def _fits(stage: Stage, row: Axis, vector: Axis, model: Model) -> bool:
    """Whether operands lie so, rows' neighbouring groups of steps side by side."""
    if not plain_operands(stage, vector.name, row.name):
        return False
    inner = stage.reduce_axes[-1]
    if model.neighbours == 1:
        return True
    whole = isinstance(inner.extent, int) and inner.extent % model.neighbours == 0
    return whole and contraction_of(stage).operands[0].stride(inner.name) == 1
