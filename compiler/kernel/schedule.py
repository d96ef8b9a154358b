"""Schedules: how the loops of a kernel are tiled, vectorised, ordered and shared by threads.

A schedule changes speed, never results (beyond the order of floating-point sums). The heuristic
here reads the target's registers and caches; it measures nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..ir.dims import Dim, coefficient, symbols_of
from ..target import Target
from . import expr as ex
from .kernel import MAX_STACK_BYTES, Axis, Kernel, Stage
from .register_tile import PANEL_SHARE, extent_of, reduced_loads, register_tile

MIN_PREFETCH_BYTES = 8 << 10  # panels that are used up sooner come by the hardware's prefetching
# measured with panels of 49 to 98 KiB: one Zen 5 core (48 KiB) multiplies 10 % faster when they
# come to the first level, one Zen 4 core (32 KiB) 5 % faster when they come to the second
ROOMY_L1_BYTES = 48 << 10
STREAMS = 4  # panels that are read at the same time where nothing else hides memory's latency
MAX_WRITTEN_STEPS = 8  # of an innermost loop, written out as a whole
UNROLLS = (4, 3, 5)  # of longer ones, the preferred first
MAX_MOVED_ROWS = 8  # of a tile that is transposed in registers
MIN_BAND_TILES = 4  # fewer row tiles are not worth a block's partial sums


@dataclass(frozen=True)
class StageSchedule:
    """How one stage is emitted.

    vector: axis along which SIMD lanes run ("" for scalar code); it may be a reduction axis.
    lanes: elements per SIMD register. vectors: registers per tile along it.
    row: axis that is tiled by `rows` steps sharing loads ("" for none).
    order: the stage's own parallel axes, outermost loop first. unroll: of the innermost
    reduction loop. prefetch: how many bytes ahead the operand that all rows share is fetched
    (0: not at all), to the cache of `prefetch_level`. split: reduction axis (the first one) that is
    done in blocks of `block` steps, by a loop of that name in `order`; partial sums wait in memory.
    band: how many rows, a multiple of the tile's, share a block, by a loop `band_of(row)` in
    `order` around that over the blocks (0: all of them). written: a reduction of at most so many
    accumulations is written out, without loops. panel: vectors per packed panel of the operand
    that a tile reads along its lanes, a divisor of `vectors` (0: one panel is as wide as the tile).
    ordered: nothing of an unrolled step begins before the one ahead of it, for want of registers.
    """

    vector: str = ""
    lanes: int = 1
    vectors: int = 1
    row: str = ""
    rows: int = 1
    order: tuple[str, ...] = ()
    unroll: int = 1
    prefetch: int = 0
    prefetch_level: int = 1
    split: str = ""
    block: int = 0
    band: int = 0
    written: int = 0
    panel: int = 0
    ordered: bool = False

    def __str__(self) -> str:
        tile = f"{self.rows}x{self.vectors * self.lanes}"
        split = f" split {self.block}" if self.split else ""
        split += f" band {self.band}" if self.band else ""
        split += f" panels of {self.panel * self.lanes}" if self.panel else ""
        return f"{tile} {self.row or '-'}x{self.vector or '-'} unroll {self.unroll}{split}"


@dataclass(frozen=True)
class Schedule:
    """Schedules of all stages; the outermost `parallel` loops are divided among threads."""

    stages: tuple[StageSchedule, ...]
    parallel: int


def band_of(row: str) -> str:
    """The name of the loop over bands of an axis' rows, and of a band's first row."""
    return f"{row}@band"


def naive_schedule(kernel: Kernel) -> Schedule:
    """Scalar loops in the written order: what `-O0` uses."""
    stages = tuple(
        StageSchedule(order=tuple(axis.name for axis in stage.axes[kernel.shared :]))
        for stage in kernel.stages
    )
    return Schedule(stages, _parallel_loops(kernel, stages))


def default_schedule(kernel: Kernel, target: Target) -> Schedule:
    """The heuristic schedule for a target."""
    # what is written out is reordered, and more than this spills: measured with 16 registers
    written = 8 * target.vector_registers
    chosen = (_schedule_stage(stage, kernel.shared, target) for stage in kernel.stages)
    stages = tuple(replace(own, written=written) for own in chosen)
    return Schedule(stages, _parallel_loops(kernel, stages))


def outer_loops(kernel: Kernel, schedule: Schedule) -> list[tuple[str, int]]:
    """(axis, tile size) of the loops that threads share, outermost first."""
    if kernel.shared:
        return [(axis.name, 1) for axis in kernel.stages[0].axes[: kernel.shared]]
    if not schedule.parallel:
        return []
    own = schedule.stages[0]
    tile = {own.vector: own.lanes * own.vectors, own.row: own.rows}
    return [(name, tile.get(name, 1)) for name in own.order[: schedule.parallel]]


def _parallel_loops(kernel: Kernel, stages: tuple[StageSchedule, ...]) -> int:
    """Enough outer loops to keep several threads evenly busy; none where stages only follow."""
    if kernel.shared:
        return kernel.shared
    if len(stages) != 1 or kernel.stages[0].sequential:
        return 0
    extents = {axis.name: extent_of(axis) for axis in kernel.stages[0].axes}
    schedule, count = stages[0], 1
    for position, name in enumerate(schedule.order):
        if count >= 64 or name in (schedule.split, band_of(schedule.row)):
            return position
        tile = {schedule.vector: schedule.vectors * schedule.lanes, schedule.row: schedule.rows}
        count *= -(-extents[name] // tile.get(name, 1))
    return len(schedule.order)


def _schedule_stage(stage: Stage, shared: int, target: Target) -> StageSchedule:
    own = stage.axes[shared:]
    names = tuple(axis.name for axis in own)
    unroll = _unroll(stage)
    if stage.sequential or any(r.kind.startswith("arg") for r in stage.reductions):
        return StageSchedule(order=names)
    lanes = target.lanes(_widest(stage))
    moved = _transposed_axes(stage, own)
    if moved and lanes > 1:
        return _transposing(*moved, names, lanes)
    vector = _vector_axis(stage, own, lanes)
    if not vector:
        return StageSchedule(order=names, unroll=unroll)
    if vector not in names:  # along the reduction: independent partial sums hide the latency
        extent = next(extent_of(a) for a in stage.reduce_axes if a.name == vector)
        lanes = min(lanes, _power_of_two(extent))
        vectors = max(1, min(4, extent // lanes))
        return StageSchedule(vector, lanes, vectors, order=names)
    axis = next(a for a in own if a.name == vector)
    if not target.masked and isinstance(axis.extent, int):
        lanes = min(lanes, _power_of_two(axis.extent))
    row = _row_axis(stage, own, vector) if stage.reductions else ""
    if not row:
        most = 8 if stage.reductions else max(1, 4 // len(stage.stores))
        vectors = max(1, min(most, -(-extent_of(axis) // lanes)))
        order = (*(n for n in names if n != vector), vector)
        whole = StageSchedule(vector, lanes, vectors, order=order, unroll=unroll)
        return replace(whole, panel=_streams(whole, stage))
    row_axis = next(a for a in own if a.name == row)
    shared_loads = _has_shared_loads(stage, vector, row)
    rows, vectors = register_tile(stage, row_axis, axis, lanes, target, shared_loads)
    if not shared_loads:
        order = (*(n for n in names if n not in (vector, row)), row, vector)
        return StageSchedule(vector, lanes, vectors, row, rows, order, unroll)
    # the weights' panel stays in cache while the rows stream past it
    others = [n for n in names if n not in (vector, row)]
    matrices = [n for n in others if _moves_panel(stage, vector, row, n)]
    order = (*matrices, vector, *(n for n in others if n not in matrices), row)
    plain = StageSchedule(vector, lanes, vectors, row, rows, order, unroll)
    whole = _with_panels(plain, stage, target)
    if whole is plain and vectors > 1:
        # a narrower panel may be divided into equal blocks where this one cannot
        rows, vectors = register_tile(
            stage, row_axis, axis, lanes, target, shared_loads, vectors - 1
        )
        narrow = _with_panels(replace(plain, rows=rows, vectors=vectors), stage, target)
        whole = narrow if narrow.split else plain
    if whole.rows * whole.vectors >= 20 and unroll == 4 and not whole.prefetch:
        in_use = whole.rows * whole.vectors + whole.vectors + 3
        # enough independent work in two steps already
        return replace(whole, unroll=2, ordered=in_use > target.vector_registers)
    return whole


def _with_panels(own: StageSchedule, stage: Stage, target: Target) -> StageSchedule:
    """The schedule with prefetching, and in blocks where a panel of the shared operand is large.

    A panel and the next one that is fetched meanwhile share the second-level cache.
    """
    if any(not isinstance(axis.extent, int) for axis in stage.reduce_axes):
        return own
    depth = math.prod(extent_of(axis) for axis in stage.reduce_axes)
    size = depth * own.vectors * own.lanes * stage.reductions[0].body.dtype.bytes
    if size < MIN_PREFETCH_BYTES:
        return own
    most = int(target.l2_bytes * PANEL_SHARE)
    if size <= most:
        return replace(own, prefetch=size, prefetch_level=_prefetch_level(size, target))
    blocks = _blocks(own, stage, -(-size // most))
    if not blocks:
        return own
    first = stage.reduce_axes[0].name
    place = own.order.index(own.vector) + 1
    head, inside = own.order[:place], own.order[place:]
    band, most_rows = 0, _most_rows(own, stage)
    if most_rows < _rows_inside(own, stage, inside):
        band = most_rows // (2 * own.rows) * own.rows
        row = next(axis for axis in stage.axes if axis.name == own.row)
        if min(band, extent_of(row)) < MIN_BAND_TILES * own.rows:
            return own  # partial sums would come and go for little
        head, inside = (*head, *inside[:-1], band_of(own.row)), (own.row,)
    block = extent_of(stage.reduce_axes[0]) // blocks
    ahead = size // blocks
    own = replace(own, prefetch=ahead, prefetch_level=_prefetch_level(ahead, target))
    return replace(own, order=(*head, first, *inside), split=first, block=block, band=band)


def _prefetch_level(ahead: int, target: Target) -> int:
    """The cache to fetch panels to that are read `ahead` bytes later."""
    return 1 if target.l1_bytes >= ROOMY_L1_BYTES or ahead <= target.l1_bytes else 2


def _streams(own: StageSchedule, stage: Stage) -> int:
    """Vectors per panel where nothing is used twice, as in a product of one row; 0: no panels.

    Such an operand comes from memory, and hardware that prefetches follows several streams at once
    faster than one: measured on one Zen 3 core, 17 GB/s against 13.
    """
    if own.vectors % STREAMS or len(stage.reduce_axes) != 1 or len(stage.reductions) != 1:
        return 0
    body = stage.reductions[0].body
    if not isinstance(body, ex.Apply):
        return 0  # not a product
    panel = own.vectors // STREAMS
    size = extent_of(stage.reduce_axes[0]) * panel * own.lanes * body.dtype.bytes
    return panel if size >= MIN_PREFETCH_BYTES else 0


def _most_rows(own: StageSchedule, stage: Stage) -> int:
    """Rows whose partial sums fit the stack."""
    width = own.vectors * own.lanes * stage.reductions[0].body.dtype.bytes
    return MAX_STACK_BYTES // width


def _rows_inside(own: StageSchedule, stage: Stage, inside: tuple[str, ...]) -> float:
    """Rows that loops go over, edge tiles counted whole; infinite where that is not known."""
    axes = [axis for axis in stage.axes if axis.name in inside]
    if not all(isinstance(axis.extent, int) for axis in axes):
        return math.inf
    steps = (own.rows if axis.name == own.row else 1 for axis in axes)
    return math.prod(-(-extent_of(a) // s) * s for a, s in zip(axes, steps, strict=True))


def _blocks(own: StageSchedule, stage: Stage, least: int) -> int:
    """Into how many equal blocks the first reduction axis is split; 0 where it cannot be."""
    columns = next(axis.extent for axis in stage.axes if axis.name == own.vector)
    body = stage.reductions[0].body
    if len(stage.reductions) > 1 or not isinstance(columns, int):
        return 0
    if not isinstance(body, ex.Apply) or not all(
        isinstance(part, ex.Load) and not part.dynamic for part in body.args
    ):
        return 0
    extent = extent_of(stage.reduce_axes[0])
    step = own.unroll if len(stage.reduce_axes) == 1 else 1
    fitting = (n for n in range(least, 4 * least) if extent % (n * step) == 0)
    return next(fitting, 0)


def _power_of_two(extent: int) -> int:
    return 1 << max(0, extent.bit_length() - 1)


def _unroll(stage: Stage) -> int:
    """Steps of the innermost reduction loop that are written out: short loops wholly.

    Otherwise a number that leaves no rest, and more than two rounds: LLVM turns the counter of two
    into a flag and then finds no common address for what the steps read.
    """
    if not stage.reduce_axes:
        return 1
    inner = stage.reduce_axes[-1].extent
    if not isinstance(inner, int):
        return UNROLLS[0]
    if inner <= MAX_WRITTEN_STEPS:
        return max(1, inner)
    fitting = [u for u in UNROLLS if inner // u > 2]
    return next((u for u in fitting if inner % u == 0), fitting[0])


def _widest(stage: Stage) -> int:
    """Bits of the widest element computed on; 64-bit indices do not count."""
    bits = [s.buffer.dtype.bits for s in stage.stores]
    for expression in stage.expressions():
        for part in ex.walk(expression):
            if part.dtype.is_float or part.dtype.bits < 64:
                bits.append(part.dtype.bits)
    return max(min(bits), max((b for b in bits if b <= 32), default=64)) if bits else 32


def _transposed_axes(stage: Stage, own: tuple[Axis, ...]) -> tuple[Axis, Axis] | None:
    """(the axis along which the stage's only operand is contiguous, that of its only result) where
    these differ."""
    if stage.reductions or len(stage.stores) != 1 or stage.stores[0].dynamic:
        return None
    store = stage.stores[0]
    loads = {part for part in ex.walk(store.value) if isinstance(part, ex.Load)}
    if store.bounds or len(loads) != 1:
        return None
    load = next(iter(loads))
    if load.dynamic or load.dtype.bits != store.buffer.dtype.bits:
        return None
    found = [[a for a in own if coefficient(o, a.name) == 1] for o in (load.offset, store.offset)]
    if len(found[0]) != 1 or len(found[1]) != 1 or found[0] == found[1]:
        return None
    vector, row = found[0][0], found[1][0]
    across = coefficient(load.offset, row.name), coefficient(store.offset, vector.name)
    if None in across or 0 in across or extent_of(row) < 2:
        return None
    return vector, row


def _transposing(lane: Axis, row: Axis, names: tuple[str, ...], lanes: int) -> StageSchedule:
    """Tiles of a few vectors, transposed in registers."""
    rows = min(MAX_MOVED_ROWS, lanes, extent_of(row))
    rows = rows if rows == 3 else _power_of_two(rows)
    order = (*(n for n in names if n not in (lane.name, row.name)), lane.name, row.name)
    return StageSchedule(lane.name, lanes, 1, row.name, rows, order)


def _access_cost(index: Dim, dynamic: bool, name: str, lanes: int) -> float:
    """Cost of one vector access along the axis, in contiguous accesses."""
    factor = coefficient(index, name)
    if factor is None or dynamic:
        return 2.0 * lanes
    if factor == 0:
        return 0.5
    return 1.0 if factor == 1 else 2.0 * lanes


def _vector_axis(stage: Stage, own: tuple[Axis, ...], lanes: int) -> str:
    """The axis along which vector code is cheapest per element; "" when scalar code is."""
    best, best_cost = "", float("inf")
    loads = [
        part
        for expression in stage.expressions()
        for part in ex.walk(expression)
        if isinstance(part, ex.Load)
    ]
    depth = math.prod(extent_of(a) for a in stage.reduce_axes)
    operations = sum(ex.cost(s.value) for s in stage.stores) / depth
    operations += sum(ex.cost(reduction.body) for reduction in stage.reductions)
    candidates = [*reversed(own), *(reversed(stage.reduce_axes) if stage.reductions else ())]
    for axis in candidates:
        extent = extent_of(axis)
        along_reduction = axis in stage.reduce_axes
        if along_reduction and any(
            s.buffer.local is None and symbols_of(s.offset) & {axis.name} for s in stage.stores
        ):
            continue
        cost = float(operations)
        for load in loads:
            moving = any(ex.depends_on(index, axis.name) for index, _ in load.dynamic)
            cost += _access_cost(load.offset, moving, axis.name, lanes)
        if along_reduction:
            cost += 4.0 * lanes / max(1, extent) * len(stage.reductions)
        else:
            for store in stage.stores:
                access = _access_cost(store.offset, bool(store.dynamic), axis.name, lanes)
                cost += access if access > 1 else access / depth  # a scatter is as many stores
        per_element = cost * -(-extent // lanes) / extent
        if per_element < best_cost * 0.999:
            best, best_cost = axis.name, per_element
    scalar = operations + len(loads) + len(stage.stores)
    return best if best_cost < scalar else ""


def _row_axis(stage: Stage, own: tuple[Axis, ...], vector: str) -> str:
    """The innermost other axis along which some vector load of the reductions is constant."""
    loads = [part for part in reduced_loads(stage) if ex.depends_on(part, vector)]
    for axis in reversed(own):
        if axis.name != vector and any(not ex.depends_on(load, axis.name) for load in loads):
            return axis.name
    others = [axis.name for axis in own if axis.name != vector]
    return others[-1] if others and stage.reduce_axes else ""


def _moves_panel(stage: Stage, vector: str, row: str, name: str) -> bool:
    """Whether an axis selects among several matrices of the operand that all rows share."""
    return any(
        ex.depends_on(part, vector) and not ex.depends_on(part, row) and ex.depends_on(part, name)
        for part in reduced_loads(stage)
    )


def _has_shared_loads(stage: Stage, vector: str, row: str) -> bool:
    """Whether the reductions read something that all rows share and something all lanes share."""
    loads = reduced_loads(stage)
    by_lane = any(ex.depends_on(p, vector) and not ex.depends_on(p, row) for p in loads)
    by_row = any(ex.depends_on(p, row) and not ex.depends_on(p, vector) for p in loads)
    return by_lane and by_row
