"""The choice of schedules by heuristics: they read the target's registers and caches, and measure
nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ...ir.dims import Dim, coefficient, symbols_of
from ...target import CpuTarget
from .. import expr as ex
from ..contraction import Contraction, Operand, contraction_of, extent_of
from ..kernel import Axis, Kernel, Stage, has_factors
from .across import across_lanes
from .choice import Choice
from .panels import of_one_row, with_panels
from .partition import parallel_loops
from .register_tile import adds_apart, register_tile
from .resolve import choice_of, resolve
from .schedule import RegisterTile, Schedule, StageSchedule, Unrolling
from .slices import slice_axis
from .transposing import transposing_schedule

MAX_WRITTEN_STEPS = 8  # of an innermost loop, written out as a whole
MOST_SUMS = 8  # vectors of sums side by side, where rows share nothing
UNROLLS = (4, 3, 5)  # of longer ones, the preferred first


def naive_choice(kernel: Kernel) -> Choice:
    """Scalar loops in the written order: what `-O0` uses."""
    stages = tuple(
        StageSchedule(order=tuple(axis.name for axis in stage.axes[kernel.shared :]))
        for stage in kernel.stages
    )
    choice = choice_of(Schedule(stages, parallel_loops(kernel, stages)), kernel)
    return replace(choice, stages=tuple(replace(s, written=False) for s in choice.stages))


def default_choice(kernel: Kernel, target: CpuTarget) -> Choice:
    """The heuristic choice for a target."""
    stages = tuple(_schedule_stage(stage, kernel.shared, target) for stage in kernel.stages)
    choice = choice_of(Schedule(stages, parallel_loops(kernel, stages)), kernel)
    return replace(choice, stages=tuple(replace(s, written=True) for s in choice.stages))


def default_schedule(kernel: Kernel, target: CpuTarget) -> Schedule:
    """The heuristic schedule for a target."""
    return resolve(default_choice(kernel, target), kernel, target)


def _schedule_stage(stage: Stage, shared: int, target: CpuTarget) -> StageSchedule:
    own = stage.axes[shared:]
    names = tuple(axis.name for axis in own)
    unroll = _unroll(stage)
    lanes = target.lanes(_widest(stage))
    if stage.sequential or any(r.kind.startswith("arg") for r in stage.reductions):
        return _in_order(stage, names, target, lanes)
    apart = transposing_schedule(stage, own, target, lanes) or across_lanes(stage, own, target)
    if apart:
        return apart
    vector = _vector_axis(stage, own, lanes)
    if not vector:
        return StageSchedule(order=names, unrolling=Unrolling(unroll))
    if vector not in names:  # along the reduction: independent partial sums hide the latency
        extent = next(extent_of(a) for a in stage.reduce_axes if a.name == vector)
        lanes = min(lanes, _power_of_two(extent))
        vectors = max(1, min(4, extent // lanes))
        return StageSchedule(RegisterTile(vector, lanes, vectors), names)
    axis = next(a for a in own if a.name == vector)
    if not target.masked and isinstance(axis.extent, int):
        lanes = min(lanes, _power_of_two(axis.extent))
    contraction = contraction_of(stage)
    row = _row_axis(contraction, own, vector, lanes) if stage.reductions else ""
    if not row:
        most = (
            MOST_SUMS // len(stage.reductions)
            if stage.reductions
            else max(1, 4 // len(stage.stores))
        )
        vectors = max(1, min(most, -(-extent_of(axis) // lanes)))
        order = (*(n for n in names if n != vector), vector)
        wide = RegisterTile(vector, lanes, vectors)
        whole = StageSchedule(wide, order, unrolling=Unrolling(unroll))
        return of_one_row(whole, contraction, target)
    row_axis = next(a for a in own if a.name == row)
    common = contraction.common(vector, row)
    shared_loads = bool(common and contraction.by_row(vector, row))
    rows, vectors = register_tile(contraction, row_axis, axis, lanes, target, shared_loads)
    tile = RegisterTile(vector, lanes, vectors, row, rows)
    if not shared_loads:
        order = (*(n for n in names if n not in (vector, row)), row, vector)
        return StageSchedule(tile, order, unrolling=Unrolling(unroll))
    # the weights' panel stays in cache while the rows stream past it
    others = [n for n in names if n not in (vector, row)]
    matrices = [n for n in others if any(operand.along(n) for operand in common)]
    order = (*matrices, vector, *(n for n in others if n not in matrices), row)
    plain = StageSchedule(tile, order, unrolling=Unrolling(unroll))
    whole = with_panels(plain, contraction, target)
    if whole is plain and vectors > 1:
        # a narrower panel may be divided into equal blocks where this one cannot
        rows, vectors = register_tile(
            contraction, row_axis, axis, lanes, target, shared_loads, vectors - 1
        )
        narrow = with_panels(
            replace(plain, tile=replace(tile, rows=rows, vectors=vectors)), contraction, target
        )
        whole = narrow if narrow.blocks.axis else plain
    if unroll == 4:
        return replace(whole, unrolling=_wide_steps(whole, target))
    return whole


def _in_order(stage: Stage, names: tuple[str, ...], target: CpuTarget, lanes: int) -> StageSchedule:
    """Element by element, or with lanes along slices."""
    axis = slice_axis(stage)
    if axis is None:
        return StageSchedule(order=names)
    if not target.masked and isinstance(axis.extent, int):
        lanes = min(lanes, _power_of_two(axis.extent))
    vectors = max(1, min(4, -(-extent_of(axis) // lanes)))
    return StageSchedule(RegisterTile(axis.name, lanes, vectors), names)


def _wide_steps(own: StageSchedule, target: CpuTarget) -> Unrolling:
    """Two steps instead of four, of a tile that has enough independent work in two.

    With panels fetched ahead four are as good, unless the tile and the vectors of two steps take
    more registers than there are: LLVM loads both pairs first and spills sums in the innermost
    loop. 14 x 2 vectors on one Zen 5 core: 211 GFLOP/s in four steps, 228 in two ordered ones;
    9 x 3 ones lose by it.
    """
    tile, vectors = own.tile.rows * own.tile.vectors, own.tile.vectors
    crowded = tile + vectors + 3 > target.vector_registers
    if tile < 20 or (own.prefetch.ahead and not (crowded and vectors == 2)):
        return own.unrolling
    return Unrolling(2, ordered=crowded)


def _power_of_two(extent: int) -> int:
    return 1 << max(0, extent.bit_length() - 1)


def _unroll(stage: Stage) -> int:
    """Steps of the innermost reduction loop that are written out: short loops wholly.

    Otherwise a number that leaves no rest, and more than two rounds: LLVM turns the counter of two
    into a flag and then finds no common address for what the steps read. Where another instruction
    adds products, LLVM regroups sums of several steps, and spills what is alive at once then: one.
    """
    if not stage.reduce_axes or adds_apart(stage):
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
    along = stage.reduce_axes if stage.reductions and not has_factors(stage) else ()
    candidates = [*reversed(own), *reversed(along)]
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


def _row_axis(contraction: Contraction, own: tuple[Axis, ...], vector: str, lanes: int) -> str:
    """The innermost other axis along which some vector load of the reductions is constant, or
    where windows meet; "" where rows have nothing in common, and vectors side by side do: they lie
    in the same pages.
    """
    by_lane = [operand for operand in contraction.operands if operand.along(vector)]
    for axis in reversed(own):
        if axis.name != vector and any(not operand.along(axis.name) for operand in by_lane):
            return axis.name
    others = [axis for axis in own if axis.name != vector]
    if not others or not contraction.stage.reduce_axes:
        return ""
    row = others[-1].name
    columns = next((extent_of(axis) for axis in own if axis.name == vector), 0)
    enough = columns >= MOST_SUMS * lanes
    shares = any(_windows_meet(contraction, operand, row) for operand in contraction.operands)
    return row if shares or not enough else ""


def _windows_meet(contraction: Contraction, operand: Operand, row: str) -> bool:
    """Whether what neighbouring rows add up, or may do, are partly the same elements."""
    step = operand.stride(row)
    if not isinstance(step, int) or operand.load.dynamic:
        return True
    for axis in contraction.stage.reduce_axes:
        stride = operand.stride(axis.name)
        if not isinstance(stride, int) or (stride and step < stride * extent_of(axis)):
            return True
    return False
