"""How threads share a kernel: which of its loops are divided among them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

from ...ir.dims import coefficient, estimate
from ..axis_names import band_of
from ..contraction import contraction_of, extent_of
from ..kernel import Kernel, Stage
from .schedule import Schedule, StageSchedule

ENOUGH_ITERATIONS = 64  # to keep several threads evenly busy
ENOUGH_ROWS = 12  # iterations that are long or come several times over
# of weights that every thread reads whole, so that it needs no results of other threads
MOST_COMMON_BYTES = 512 << 10


def outer_loops(kernel: Kernel, schedule: Schedule) -> list[tuple[str, int]]:
    """(axis, tile size) of the loops that threads share, outermost first."""
    if kernel.shared:
        return [(axis.name, 1) for axis in kernel.stages[0].axes[: kernel.shared]]
    if not schedule.parallel:
        return []
    own = schedule.stages[0]
    names = own.order[schedule.ahead : schedule.ahead + schedule.parallel]
    return [(name, own.tile.span(name)) for name in names]


def parallel_loops(kernel: Kernel, stages: tuple[StageSchedule, ...]) -> int:
    """Enough outer loops to keep several threads evenly busy; none where stages only follow."""
    if kernel.shared:
        return kernel.shared
    if len(stages) != 1 or kernel.stages[0].sequential:
        return 0
    stage, own = kernel.stages[0], stages[0]
    first = next((axis for axis in stage.axes if own.order and axis.name == own.order[0]), None)
    if first and not isinstance(first.extent, int) and len(own.order) > 1:
        certain = estimate(first.extent, 1)  # it may be a batch of one
        certain = max(1, certain // own.tile.span(first.name))
        return 1 + _loops(stage, own, 1, -(-ENOUGH_ROWS // certain))
    return _loops(stage, own, 0, ENOUGH_ITERATIONS)


def _loops(stage: Stage, own: StageSchedule, ahead: int, enough: int) -> int:
    """How many loops behind the first `ahead` have so many iterations together, or all of them."""
    extents = {axis.name: extent_of(axis) for axis in stage.axes}
    count = 1
    for position, name in enumerate(own.order[ahead:]):
        if count >= enough or name in (own.blocks.axis, band_of(own.tile.row)):
            return position
        count *= -(-extents[name] // own.tile.span(name))
    return len(own.order) - ahead


def by_rows(kernel: Kernel, schedule: Schedule, following: bool) -> Schedule:
    """The schedule with the results' rows divided instead of their columns, where that moves less.

    Who multiplies by the result then reads what it made itself, but all of the weights: what
    another core has written comes slowly (measured on two Zen 3 cores: 13 GB/s, from the own
    second-level cache 65). following: whether the operands were divided so; where there are no
    weights that decides.
    """
    if kernel.shared or not schedule.parallel or len(kernel.stages) != 1:
        return schedule
    stage, own = kernel.stages[0], schedule.stages[0]
    ahead = _columns_first(stage, own)
    if not ahead or own.blocks.axis or any(not isinstance(axis.extent, int) for axis in stage.axes):
        return schedule
    weights = _weight_bytes(stage, own)
    if not weights and not following:
        return schedule
    if weights > min(MOST_COMMON_BYTES, _moved_bytes(stage, own)):
        return schedule
    count = _loops(stage, own, ahead, ENOUGH_ROWS)
    return replace(schedule, ahead=ahead, parallel=count)


def is_by_rows(kernel: Kernel, schedule: Schedule) -> bool:
    """Whether every thread makes neighbouring rows of the result."""
    if kernel.shared:
        return True
    if not schedule.parallel:
        return False
    return schedule.ahead > 0 or not _columns_first(kernel.stages[0], schedule.stages[0])


def _columns_first(stage: Stage, own: StageSchedule) -> int:
    """How many loops over parts of the result's rows are around those over rows."""
    if not stage.stores or stage.stores[0].dynamic:
        return 0
    strides = [coefficient(stage.stores[0].offset, name) for name in own.order]
    ahead = 0
    for stride, following in itertools.pairwise(strides):
        if not isinstance(stride, int) or not isinstance(following, int) or stride >= following:
            break
        ahead += 1
    return ahead


def _weight_bytes(stage: Stage, own: StageSchedule) -> int:
    """Size of the operand that all rows share."""
    inside = own.order[_columns_first(stage, own) :]
    sizes = {axis.name: extent_of(axis) for axis in (*stage.axes, *stage.reduce_axes)}
    found = 0
    for operand in contraction_of(stage).operands:
        if not operand.along(own.tile.vector) or any(map(operand.along, inside)):
            continue
        moving = [size for name, size in sizes.items() if operand.along(name)]
        found += math.prod(moving) * operand.load.dtype.bytes
    return found


def _moved_bytes(stage: Stage, own: StageSchedule) -> int:
    """Bytes of the result, or of the operand that it takes the rows from, whichever is more."""
    points = math.prod(extent_of(axis) for axis in stage.axes)
    columns = math.prod(extent_of(a) for a in stage.axes if a.name == own.tile.vector)
    depth = extent_of(stage.reduce_axes[-1]) if stage.reduce_axes else 1
    return max(points, points // columns * depth) * stage.stores[0].buffer.dtype.bytes
