"""Sums of blocks that a factor of their own is multiplied to, before they are added up."""

from __future__ import annotations

import math
from collections.abc import Callable

from llvmlite import ir

from ....compiler.kernel.contraction import contraction_of
from ....compiler.kernel.kernel import CACHE_LINE, Stage, has_factors
from ....compiler.kernel.schedule.schedule import StageSchedule
from ....compiler.kernel.schedule.sums import parts_of_block
from . import scalar
from .shape import Shape
from .tile import Tile


class BlockSums:
    """What the reductions of a stage with factors keep while a block is added up.

    A block's sums, and those of packed weights without factors, go in `parts` side by side, in
    turns from step to step, where a tile has so few of them that each would wait for itself.
    """

    def __init__(self, stage: Stage, own: StageSchedule, shape: Shape) -> None:
        self.stage, self.schedule = stage, own
        self.any = has_factors(stage)
        self.outer = stage.outer_axes
        busy = len(shape.slots()) * len(stage.reductions)
        inside = (axis.extent for axis in stage.reduce_axes[self.outer :])
        self.written = own.unrolling.writes_out(inside, busy)
        self.parts = parts_of_block(stage, own.unrolling, len(shape.slots()))
        self._turn = 0

    def fetch(self, tile: Tile) -> None:
        """Fetch what a later block, of this panel or the next, reads of constants.

        A panel's blocks lie one behind the other, and so do panels.
        """
        if not self.schedule.prefetch.ahead:
            return
        tile.begin_step()
        inside = self.stage.reduce_axes[self.outer :]
        for axis in inside:
            tile.advance(axis.name, 0)
        found = []
        for operand in contraction_of(self.stage).common(tile.shape.vector, tile.shape.row):
            address, load = tile.addresses.get(id(operand.load)), operand.load
            steps = [axis.extent for axis in inside if operand.along(axis.name)]
            if address is not None and address.vector == 1 and not address.looked:
                span = math.prod(n for n in steps if isinstance(n, int))
                span *= self.schedule.tile.width * load.dtype.bytes
                found.append((tile.point(address, load.dtype, (0, 0)), span))
        longest = max((span for _, span in found), default=1)
        blocks = -(-self.schedule.prefetch.ahead // longest)
        for here, span in found:
            for start in range(0, span, CACHE_LINE):
                tile.e.prefetch(here, blocks * span + start, self.schedule.prefetch.level)
        tile.begin_step()

    def step(
        self, sums: list[ir.Value], accumulate: Callable[[list[ir.Value]], list[ir.Value]]
    ) -> list[ir.Value]:
        """One step of a block, added to the part whose turn it is."""
        count = len(sums) // self.parts
        start = self._turn % self.parts * count
        self._turn += 1
        return [*sums[:start], *accumulate(sums[start : start + count]), *sums[start + count :]]

    def joined(self, sums: list[ir.Value], tile: Tile) -> list[ir.Value]:
        """The sums of all parts, which were added up in turns."""
        count, slots = len(sums) // self.parts, len(tile.shape.slots())
        result = sums[:count]
        for place, part in enumerate(sums[count:]):
            reduction = self.stage.reductions[place % count // slots]
            before, dtype = result[place % count], reduction.body.dtype
            result[place % count] = scalar.combine(tile.e, reduction.kind, before, part, dtype)
        return result

    def scaled(self, tile: Tile, totals: list[ir.Value], sums: list[ir.Value]) -> list[ir.Value]:
        """The totals with a block's sums, times its factors, added."""
        tile.begin_step()
        slots, result = tile.shape.slots(), []
        for place, (total, whole) in enumerate(zip(totals, self.joined(sums, tile), strict=True)):
            reduction = self.stage.reductions[place // len(slots)]
            assert reduction.factor is not None
            factor = tile.vector_value(reduction.factor, slots[place % len(slots)])
            result.append(tile.e.fma(whole, factor, total))
        return result
