"""Partial sums of a reduction that is done in blocks: they wait in memory between the blocks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from llvmlite import ir

from ....compiler.kernel.axis_names import band_of, start_of
from ....compiler.kernel.kernel import Stage
from ....compiler.kernel.schedule.schedule import StageSchedule
from .builder import Emitter, memory_type
from .indices import Int

NAME = "partial sums"


class PartialSums:
    """Stack memory for the accumulators of all tiles inside the loop over the blocks."""

    def __init__(self, e: Emitter, stage: Stage, own: StageSchedule) -> None:
        self.e, self.own = e, own
        self.dtype = stage.reductions[0].body.dtype
        inside = own.order[own.order.index(own.blocks.axis) + 1 :]
        extents = {axis.name: axis.extent for axis in stage.axes}
        self.counts: list[tuple[str, int]] = []
        for name in inside:
            steps = own.tile.rows if name == own.tile.row else 1
            banded = name == own.tile.row and own.blocks.band
            rows = own.blocks.band if banded else int(extents[name])  # type: ignore[arg-type]
            self.counts.append((name, -(-rows // steps) * steps))
        # a tile's rows lie one behind the other, wherever their loop is
        self.counts.sort(key=lambda count: count[0] == own.tile.row)
        self.width = own.tile.width
        elements = math.prod(count for _, count in self.counts) * self.width
        self.memory = e.local(memory_type(self.dtype), elements)
        e.checks.add_local(NAME, self.memory, elements * self.dtype.bytes)

    def start(self, env: Mapping[str, Int]) -> Int:
        """The first step of the present block."""
        return env[start_of(self.own.blocks.axis)]

    def resume(self, env: Mapping[str, Int], neutral: Sequence[ir.Value]) -> list[ir.Value]:
        """The accumulators of a tile: neutral in the first block, else as they were left."""
        first = self.e.b.icmp_signed("==", self.e.as_index(self.start(env)), self.e.as_index(0))
        values = []
        for number, value in enumerate(neutral):
            pointer = self._pointer(env, number)
            left = self.e.load(pointer, self.dtype, self.own.tile.lanes, buffer=NAME)
            values.append(self.e.b.select(first, value, left))
        return values

    def leave(self, env: Mapping[str, Int], values: Sequence[ir.Value]) -> None:
        """Keep the accumulators of a tile for the next block."""
        for number, value in enumerate(values):
            self.e.store(value, self._pointer(env, number), self.dtype, buffer=NAME)

    def _pointer(self, env: Mapping[str, Int], number: int) -> ir.Value:
        e = self.e
        row: Int = 0
        for name, count in self.counts:
            place = env[name]
            if name == self.own.tile.row and self.own.blocks.band:
                place = e.sub(place, env[band_of(name)])
            row = e.add(e.mul(row, count), place)
        offset = e.add(e.mul(row, self.width), number * self.own.tile.lanes)
        return e.pointer(self.memory, offset, self.dtype)
