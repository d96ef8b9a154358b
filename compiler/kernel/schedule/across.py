"""Tiles of instructions that add up all lanes of their operands into one number.

Lanes lie along the sum, and a tile is a few columns of one row, or a few rows of one column, each
with a sum of its own in a scalar register: what all of them share is loaded once. The constant is
stored with the steps of a column side by side (`packing.py`).
"""

from __future__ import annotations

from ...target import CpuTarget
from ..contraction import contraction_of
from ..forms.step_groups import products_of_groups
from ..instruction import ACROSS, best_of
from ..kernel import Axis, Stage
from .schedule import RegisterTile, StageSchedule

LANES = 4  # groups of 32 bits in a register
MOST_SUMS = 4  # with the addresses of as many operands they fill the scalar registers


def across_lanes(stage: Stage, own: tuple[Axis, ...], target: CpuTarget) -> StageSchedule | None:
    """The schedule of a stage whose products such an instruction computes; None for others, and
    where a sum has too few neighbouring steps, or would be read with gaps."""
    ops = products_of_groups(stage)
    best = best_of(ops[0], target.instructions) if ops else None
    if best is None or best.name not in ACROSS or len(ops) != len(stage.reductions) or len(ops) > 1:
        return None
    contraction = contraction_of(stage)
    along = stage.reduce_axes[-1]
    product = contraction.products[0]
    if product is None or not isinstance(along.extent, int) or along.extent < LANES:
        return None
    if product.left.stride(along.name) != 1 or product.left.load.dynamic:
        return None
    names = tuple(axis.name for axis in own)
    columns = [axis for axis in contraction.columns if axis.name in names]
    if not columns or not isinstance(columns[-1].extent, int):
        return None
    row, extent = columns[-1].name, columns[-1].extent
    sums = next(count for count in range(MOST_SUMS, 0, -1) if extent % count == 0 or count == 1)
    order = (*(name for name in names if name != row), row)
    return StageSchedule(RegisterTile(along.name, LANES, 1, row, sums), order)
