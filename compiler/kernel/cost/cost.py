"""An analytical cost model: what a kernel under a schedule takes on one core of a machine.

A roofline with cache levels (Williams et al., "Roofline", 2009): the time is the longest of the
time that the arithmetic takes and the times in which each memory level can deliver what the level
above it misses. Misses follow from footprints: the outermost loop whose whole inside fits a cache
decides how often an operand comes anew. Nothing is measured here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ...ir.dims import Dim, evaluate, substitute, symbol, symbols_of
from ...target import CpuTarget
from .. import expr as ex
from ..axis_names import axis_of_base, band_of, panel_base
from ..footprint import union_elements, value_range
from ..instruction import INSTRUCTIONS
from ..kernel import Kernel, Stage
from ..schedule.schedule import Schedule, StageSchedule
from .cycles import stage_cycles
from .machine import Machine

CALL_CYCLES = 40.0
WRITE_FACTOR = 2.0  # a line that is written is read first and goes out later
LANE, PANEL = "$lane", "$panel"


@dataclass(frozen=True)
class ParameterBytes:
    """A parameter of a kernel. bytes: distinct bytes that one call touches."""

    name: str
    bytes: int
    written: bool
    constant: bool


@dataclass(frozen=True)
class KernelCost:
    """What one call takes. Times in seconds, sizes in bytes.

    compute_seconds: of the arithmetic alone. traffic: (level, bytes that it delivers).
    level_seconds: (level, time it needs for that). bound: "compute" or the name of a level.
    roof_seconds: the least that the bound's peak allows (for "compute", FLOPs at the FMA peak, sums
    of products at that of the instruction that computes them).
    """

    flops: int
    operands: tuple[ParameterBytes, ...]
    compute_seconds: float
    traffic: tuple[tuple[str, float], ...]
    level_seconds: tuple[tuple[str, float], ...]
    seconds: float
    bound: str
    roof_seconds: float
    least_seconds: float = 0.0

    @property
    def bytes(self) -> int:
        """Distinct bytes of all parameters."""
        return sum(operand.bytes for operand in self.operands)


@dataclass(frozen=True)
class StageAccess:
    """Every access of one stage to one buffer. offsets: with symbolic dims replaced."""

    buffer: ex.Buffer
    offsets: tuple[Dim, ...]
    written: bool

    def bytes(self, extents: Mapping[str, int]) -> int:
        """Distinct bytes while each axis runs over its extent."""
        return union_elements(self.offsets, extents) * self.buffer.dtype.bytes

    def moves_with(self, name: str) -> bool:
        """Whether what it touches depends on an axis."""
        return any(name in symbols_of(offset) for offset in self.offsets)


def kernel_cost(
    kernel: Kernel,
    schedule: Schedule,
    target: CpuTarget,
    machine: Machine,
    sizes: Mapping[str, int],
    *,
    constants: frozenset[str] = frozenset(),
    constant_bytes: int = 0,
) -> KernelCost:
    """The cost of one call, warmed up as in the middle of a model's run.

    sizes: of the kernel's symbolic dims. constants: parameters that are weights; they come from
    the level that holds `constant_bytes` (those of the whole model), everything else from the
    level that holds all of the kernel's other operands. Raises InternalError when a symbol has no
    size.
    """
    nests = _nests(kernel, schedule, sizes)
    operands = _operands(kernel, nests, constants)
    activations = sum(operand.bytes for operand in operands if not operand.constant)
    home = {o.name: constant_bytes if o.constant else activations for o in operands}
    cycles = CALL_CYCLES + sum(nest.cycles(target) for nest in nests)
    compute = cycles / machine.clock(target)
    traffic: list[tuple[str, float]] = []
    for inner, outer in zip(machine.levels, machine.levels[1:], strict=False):
        traffic.append((outer.name, _misses(kernel, nests, home, inner.capacity)))
    speed = {level.name: level.bandwidth for level in machine.levels}
    times = tuple((name, count / speed[name]) for name, count in traffic)
    flops = sum(sum(nest.flops) for nest in nests)
    least = sum(nest.least_operations(target) for nest in nests) / machine.flops_per_second
    slowest, longest = max(times, key=lambda item: item[1], default=("", 0.0))
    by_memory = longest > compute
    return KernelCost(
        flops=flops,
        operands=operands,
        compute_seconds=compute,
        traffic=tuple(traffic),
        level_seconds=times,
        seconds=max(compute, longest),
        bound=slowest if by_memory else "compute",
        roof_seconds=longest if by_memory else least,
        least_seconds=least,
    )


def _nests(kernel: Kernel, schedule: Schedule, sizes: Mapping[str, int]) -> list[_Nest]:
    """The loops of every stage."""
    known = tuple(sorted(sizes.items()))
    return [
        _nest(_Same(stage), own, kernel.shared, known)
        for stage, own in zip(kernel.stages, schedule.stages, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Same:
    """A stage as a key: itself, not one that is equal, which would take long to find out."""

    stage: Stage

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.stage is self.stage

    def __hash__(self) -> int:
        return id(self.stage)


@lru_cache(maxsize=64)  # of the schedules that are compared, most differ in one stage
def _nest(
    stage: _Same, own: StageSchedule, shared: int, sizes: tuple[tuple[str, int], ...]
) -> _Nest:
    return _Nest(stage.stage, own, shared, dict(sizes))


def _operands(
    kernel: Kernel, nests: list[_Nest], constants: frozenset[str]
) -> tuple[ParameterBytes, ...]:
    sizes: dict[str, int] = {}
    for nest in nests:
        for access in nest.accesses:
            name = access.buffer.name
            sizes[name] = max(sizes.get(name, 0), access.bytes(nest.extents))
    written = {buffer.name for buffer in kernel.params[len(kernel.params) - kernel.outputs :]}
    return tuple(
        ParameterBytes(b.name, sizes.get(b.name, 0), b.name in written, b.name in constants)
        for b in kernel.params
    )


def _misses(kernel: Kernel, nests: list[_Nest], home: Mapping[str, int], capacity: float) -> float:
    """Bytes that a cache of a capacity has to get from further out in one call."""
    total: dict[str, float] = {}
    for nest in nests:
        for access in nest.accesses:
            name = access.buffer.name
            missed = nest.traffic(access, capacity, home.get(name, 0))
            if access.written and home.get(name, 0) > capacity:
                missed *= WRITE_FACTOR
            # stages that take turns inside shared loops find each other's data in the cache
            before = total.get(name, 0.0)
            total[name] = max(before, missed) if kernel.shared else before + missed
    return sum(total.values())


class _Nest:
    """The loops of one stage, outermost first, and what its accesses touch inside each."""

    def __init__(
        self, stage: Stage, own: StageSchedule, shared: int, sizes: Mapping[str, int]
    ) -> None:
        self.stage, self.schedule, self.shared = stage, own, shared
        self.flops = evaluate(stage.sum_flops(), sizes), evaluate(stage.store_flops(), sizes)
        self._cycles: dict[CpuTarget, float] = {}
        self.extents = {
            axis.name: max(1, evaluate(axis.extent, sizes))
            for axis in stage.axes + stage.reduce_axes
        }
        self.depth = math.prod(self.extents[a.name] for a in stage.reduce_axes)
        self.accesses = _accesses(stage, self._panels(sizes))
        self.loops = self._loops()
        inside = dict(self.extents)
        self.inside = [dict(inside)]
        self.trips: list[tuple[str, int]] = []
        for name, tile in self.loops:
            step = min(tile, inside[name])
            self.trips.append((name, -(-inside[name] // step)))
            inside[name] = step
            self.inside.append(dict(inside))
        self.held = [sum(a.bytes(extents) for a in self.accesses) for extents in self.inside]

    def _panels(self, sizes: Mapping[str, int]) -> dict[str, Dim]:
        """What symbols stand for: dims their sizes, the lanes of packed panels two axes."""
        values: dict[str, Dim] = dict(sizes)
        vector = self.schedule.tile.vector
        if vector in self.extents:
            own = self.schedule
            width = min(own.tile.lanes * (own.panel or own.tile.vectors), self.extents[vector])
            self.extents[PANEL] = -(-self.extents[vector] // width)
            self.extents[LANE] = width
            values[panel_base(vector)] = symbol(PANEL) * width
        return values

    def _loops(self) -> list[tuple[str, int]]:
        """(axis, step) of every loop; the tile's own axes end with the tile."""
        own = self.schedule
        tile = {own.tile.vector: own.tile.width, own.tile.row: own.tile.rows}
        order = [a.name for a in self.stage.axes[: self.shared]] + list(own.order)
        order += [a.name for a in self.stage.reduce_axes]
        found: list[tuple[str, int]] = []
        for name in order:
            if name == band_of(own.tile.row):
                found.append((own.tile.row, own.blocks.band))
                continue
            outer_block = name == own.blocks.axis and name not in {n for n, _ in found}
            found.append((name, own.blocks.steps if outer_block else tile.get(name, 1)))
            if name == own.tile.vector and PANEL in self.extents:
                found.append((PANEL, 1))
        return found

    def traffic(self, access: StageAccess, capacity: float, home: int) -> float:
        """Bytes of one access that miss a cache, given the bytes among which its buffer lives."""
        if self.held[0] <= capacity and home <= capacity:
            return 0.0
        fitting = next((d for d, held in enumerate(self.held) if held <= capacity), len(self.loops))
        moved = float(access.bytes(self.inside[fitting]))
        crossed = False
        # the vector axis and its panels are one loop: an operand moves with either name
        alias = self.schedule.tile.vector if access.moves_with(PANEL) else PANEL
        for name, trips in reversed(self.trips[:fitting]):
            if name == alias:
                continue
            # the operand stays while loops around the fitting part do not move it
            crossed = crossed or access.moves_with(name)
            moved *= trips if crossed else 1
        whole = access.bytes(self.inside[0])
        if whole > capacity / 2:
            return max(moved, whole)
        return float(whole) if home > capacity else 0.0

    def cycles(self, target: CpuTarget) -> float:
        """Cycles of the arithmetic, the operands being near."""
        if target not in self._cycles:
            self._cycles[target] = stage_cycles(self.stage, self.schedule, self.extents, target)
        return self._cycles[target]

    def least_operations(self, target: CpuTarget) -> float:
        """Operations that take as long as its own where nothing but arithmetic is in the way."""
        instruction = INSTRUCTIONS.get(self.schedule.instruction)
        gain = 1.0 if instruction is None else instruction.gain(target)
        return self.flops[0] / gain + self.flops[1]


def _accesses(stage: Stage, values: Mapping[str, Dim]) -> list[StageAccess]:
    """One access per buffer read or written; an index from data may touch a line per element."""
    found: dict[tuple[ex.Buffer, bool], dict[Dim, None]] = {}

    def note(buffer: ex.Buffer, offset: Dim, dynamic: tuple[tuple[ex.Expr, Dim], ...]) -> None:
        total = substitute(_split_lanes(offset), values)
        for index, stride in dynamic:
            # as far apart as if every index were different
            moving = sorted({n for d in ex.all_indices(index) for n in symbols_of(d)})
            for name in moving:
                if name.startswith("$") and name not in symbols_of(total):
                    total = total + substitute(stride, values) * symbol(name)
        found.setdefault((buffer, False), {})[total] = None

    for expression in stage.expressions():
        for part in ex.walk(expression):
            if isinstance(part, ex.Load):
                note(part.buffer, part.offset, part.dynamic)
    accesses = [
        StageAccess(buffer, tuple(offsets), False) for (buffer, _), offsets in found.items()
    ]
    found.clear()
    for store in stage.stores:
        note(store.buffer, store.offset, store.dynamic)
    accesses += [
        StageAccess(buffer, tuple(offsets), True) for (buffer, _), offsets in found.items()
    ]
    return accesses


def _split_lanes(offset: Dim) -> Dim:
    """A packed operand's offset by panel and lane instead of the axis and its tile's base."""
    for base in symbols_of(offset):
        axis = axis_of_base(base)
        if axis is None:
            continue
        offset = substitute(offset, {axis: symbol(base) + symbol(LANE)})
    return offset


def parameter_bytes(kernel: Kernel, schedule: Schedule, sizes: Mapping[str, int]) -> list[int]:
    """Bytes from the start of each parameter to the last element that a call may touch."""
    ends: dict[str, int] = {}
    for nest in _nests(kernel, schedule, sizes):
        for access in nest.accesses:
            last = max(value_range(offset, nest.extents)[1] for offset in access.offsets)
            name = access.buffer.name
            ends[name] = max(ends.get(name, 0), (last + 1) * access.buffer.dtype.bytes)
    return [ends.get(buffer.name, 0) for buffer in kernel.params]
