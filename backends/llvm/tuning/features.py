"""Numbers that tell candidates of a CPU apart, for a model of how far predictions are off."""

from __future__ import annotations

import math

from ....compiler.ir.dims import coefficient
from ....compiler.kernel.contraction import contraction_of, extent_of
from ....compiler.kernel.cost.cost import KernelCost
from ....compiler.kernel.kernel import Kernel, Stage
from ....compiler.kernel.schedule.register_tile import L1_PAGE
from ....compiler.kernel.schedule.schedule import Schedule, StageSchedule
from ....compiler.target import CpuTarget

FEATURES = (
    "log seconds",  # predicted
    "memory bound",
    "stages",
    "log rows",
    "log vectors",
    "part of a register",  # that a vector fills
    "registers",  # that sums take, as a share of all
    "log panel in first level",  # bytes of an operand that all rows share, over the cache's
    "log panel in second level",
    "rows a page apart",  # how many of a tile
    "fetched to first level",
    "fetched to second level",
    "blocks",
    "unrolled",
    "rest",  # share of the last tiles' slots that do nothing
)


def features_of(
    kernel: Kernel, schedule: Schedule, cost: KernelCost, target: CpuTarget
) -> tuple[float, ...]:
    """The numbers of `FEATURES`, of the stage that computes most."""
    pairs = list(zip(kernel.stages, schedule.stages, strict=True))
    stage, own = max(pairs, key=lambda pair: _points(pair[0]))
    tile, panel = own.tile, _panel_bytes(stage, own)
    registers = tile.rows * tile.vectors * max(1, len(stage.reductions))
    return (
        math.log(max(cost.seconds, 1e-9)),
        float(cost.bound != "compute"),
        float(len(pairs)),
        math.log2(tile.rows),
        math.log2(tile.vectors),
        min(1.0, tile.lanes / target.lanes(32)),
        registers / target.vector_registers,
        math.log2(max(panel, 64) / target.l1_bytes),
        math.log2(max(panel, 64) / target.l2_bytes),
        float(tile.rows if _collides(stage, tile.row) else 0),
        float(bool(own.prefetch.ahead) and own.prefetch.level == 1),
        float(bool(own.prefetch.ahead) and own.prefetch.level == 2),
        float(own.blocks.steps > 0),
        math.log2(max(1, own.unrolling.unroll)),
        _rest(stage, own),
    )


def _points(stage: Stage) -> int:
    return math.prod(extent_of(axis) for axis in (*stage.axes, *stage.reduce_axes))


def _panel_bytes(stage: Stage, own: StageSchedule) -> int:
    """Of what all rows of a tile share, or of a block of it."""
    contraction = contraction_of(stage)
    if not own.tile.row or not contraction.common(own.tile.vector, own.tile.row):
        return 0
    depth = contraction.depth
    if own.blocks.axis:
        depth = depth * own.blocks.steps // max(1, extent_of(stage.reduce_axes[0]))
    return depth * own.tile.width * contraction.accumulate.bytes


def _collides(stage: Stage, row: str) -> bool:
    """Whether rows of an operand lie whole pages apart, in the same sets of the cache."""
    for operand in contraction_of(stage).operands:
        stride = coefficient(operand.load.offset, row) if row else None
        if isinstance(stride, int) and stride and stride * operand.load.dtype.bytes % L1_PAGE == 0:
            return True
    return False


def _rest(stage: Stage, own: StageSchedule) -> float:
    used = 1.0
    for name, size in ((own.tile.row, own.tile.rows), (own.tile.vector, own.tile.width)):
        axis = next((a for a in (*stage.axes, *stage.reduce_axes) if a.name == name), None)
        if axis is not None:
            extent = extent_of(axis)
            used *= extent / (-(-extent // size) * size)
    return 1.0 - used
