"""Tiles for instructions that multiply small matrices (AMX): how many of them, of how many rows.

A tile of the schedule is made of one or two matrices of rows by one to four of columns, which stay
in the eight matrix registers together with those that they are the products of (Intel SDM vol. 1,
chapter 18). Rows and columns that are left go by vectors: operands lie alike for both.
"""

from __future__ import annotations

from dataclasses import replace

from ...ir.dims import Dim
from .. import expr as ex
from ..contraction import UNKNOWN_EXTENT, Contraction, contraction_of, extent_of
from ..forms.step_groups import products_of_groups
from ..instruction import MATRIX_REGISTERS, MATRIX_ROWS, matrix_steps
from ..kernel import Kernel, Stage
from .choice import Choice, StageChoice
from .resolve import axes_by_role

LANES = 16  # columns of a matrix
# of a matrix: bytes go by vectors fast enough, bf16 slower than f32 where there are matrices
FEWEST_ROWS = {"amx": 6, "amxbf16": 4}
FEWEST_STEPS = 16  # groups of a sum: fewer are not worth a detour of the results through memory


def with_matrix_tiles(choice: Choice, kernel: Kernel) -> Choice | None:
    """The choice with tiles of matrices in the stage that has groups; None where it cannot."""
    found = [number for number, stage in enumerate(kernel.stages) if products_of_groups(stage)]
    if len(found) != 1:
        return None
    number = found[0]
    fewest = FEWEST_ROWS[choice.instruction]
    own = _tiled(choice.stages[number], kernel.stages[number], kernel.shared, fewest)
    if own is None:
        return None
    stages = (*choice.stages[:number], own, *choice.stages[number + 1 :])
    return replace(choice, stages=stages)


def _tiled(own: StageChoice, stage: Stage, shared: int, fewest: int) -> StageChoice | None:
    axes = axes_by_role(stage, shared)
    if not own.row or not own.vector.startswith("p") or own.lanes != LANES:
        return None
    if len(stage.reductions) != 1 or not plain_operands(stage, axes[own.vector], axes[own.row]):
        return None
    if not deep_enough(stage.reduce_axes[-1].extent, contraction_of(stage).depth):
        return None
    sizes = {axis.name: axis for axis in stage.axes}
    rows = _rows(extent_of(sizes[axes[own.row]]), fewest)
    columns = extent_of(sizes[axes[own.vector]]) // LANES
    if not rows or not columns:
        return None
    high = -(-rows // MATRIX_ROWS)
    most = min(columns, 2 if high == 2 else 4)
    vectors = next(n for n in range(most, 0, -1) if columns % n == 0 or n <= most // 2 or n == 1)
    assert high * vectors + high + 1 <= MATRIX_REGISTERS
    return replace(
        own.without_blocks(), rows=rows, vectors=vectors, unroll=1, prefetch=0,
        panel=0, ordered=False,
    )  # fmt: skip


def deep_enough(innermost: Dim, depth: int) -> bool:
    """Whether a sum of so many groups, so many of them along its innermost axis, pays."""
    return matrix_steps(innermost) >= FEWEST_STEPS // 4 and depth >= FEWEST_STEPS


def plain_operands(stage: Stage, vector: str, row: str) -> bool:
    """Whether matrices of both operands can be loaded: rows of the one, panels of the other."""
    body = stage.reductions[0].body
    if not isinstance(body, ex.Apply) or not all(isinstance(a, ex.Load) for a in body.args):
        return False
    contraction: Contraction = contraction_of(stage)
    left, right = contraction.operands
    return (
        left.along(row)
        and not left.along(vector)
        and right.stride(vector) == 1
        and not right.along(row)
        and left.stride(row) is not None
        and not left.load.dynamic
    )


def _rows(extent: int, fewest: int) -> int:
    """Rows of a tile, such that few are left: of two matrices where that many are there."""
    if extent == UNKNOWN_EXTENT:
        return 2 * MATRIX_ROWS
    best, least = 0, extent * 8.0
    for count in (2, 1):
        for rows in range(MATRIX_ROWS, fewest - 1, -1):
            tile = count * rows
            if tile > extent:
                continue
            left = extent % tile
            time = (extent - left) * (1.0 if count == 2 else 1.25) + left * 8.0
            time *= 1.0 + (MATRIX_ROWS - rows) * 0.01
            if time < least:
                best, least = tile, time
    return best
