"""Fetching of an operand that all rows of a product share, a panel ahead of its use."""

from __future__ import annotations

from dataclasses import dataclass

from ....compiler.ir.types import DType
from ....compiler.kernel import expr as ex
from ....compiler.kernel.contraction import contraction_of
from ....compiler.kernel.kernel import CACHE_LINE, Stage
from ....compiler.kernel.schedule.schedule import StageSchedule
from .indices import Int
from .shape import Address
from .tile import Tile


@dataclass(frozen=True)
class PanelPrefetch:
    """What a tile fetches of the panel, or the block of one, that follows its own.

    The row tiles that read one panel fetch equal parts of the next, and a tile's steps go through
    its part evenly: lines come at the pace that they are used at, one after the other.

    start: bytes from where the tile's first step reads to its part. per_step: how much slower,
    in bytes, the fetching moves on along each reduction axis than the reading. lines: that a group
    of unrolled steps fetches.
    """

    address: Address
    dtype: DType
    start: Int
    per_step: tuple[tuple[str, int], ...]
    lines: int
    level: int

    def emit(self, tile: Tile) -> None:
        """Fetch a group's lines at the present reduction axes."""
        e = tile.e
        here = tile.point(self.address, self.dtype, (0, 0))
        offset = self.start
        for name, slower in self.per_step:
            offset = e.sub(offset, e.mul(tile.moved[name], slower))
        for line in range(self.lines):
            e.prefetch(here, e.add(offset, line * CACHE_LINE), self.level)


def panel_prefetches(stage: Stage, own: StageSchedule, tile: Tile) -> list[PanelPrefetch]:
    """The tile's part in fetching the next panel of each reduction; nothing where the schedule
    wants none, or the operand is not in panels. The tile's addresses are prepared."""
    if not own.prefetch.ahead or not tile.shape.vector:
        return []
    found = []
    contraction = contraction_of(stage)
    common = contraction.common(tile.shape.vector, tile.shape.row)
    for number in range(contraction.beside):
        operand = next((o for o in common if o.reduction == number), None)
        address = tile.addresses.get(id(operand.load)) if operand else None
        if operand is None or address is None or address.looked:
            continue
        shared = operand.load
        size = shared.dtype.bytes
        steps = {name: n * size for name, n in address.steps if isinstance(n, int)}
        width = own.tile.width * size
        axes = stage.reduce_axes
        inside = shared.dtype is DType.U32 and axes[-1].name not in steps  # of a word
        moving = axes[:-1] if inside else axes
        if len(steps) < len(moving) or min(steps.values(), default=0) != width:
            continue
        part = own.prefetch.ahead // own.prefetch.turns
        start = tile.e.add(_turn(stage, own, tile, shared, part), own.prefetch.ahead)
        slower = tuple((name, step - step // own.prefetch.turns) for name, step in steps.items())
        group = 1 if inside else own.unrolling.unroll
        lines = -(-group * width // own.prefetch.turns // CACHE_LINE)
        found.append(PanelPrefetch(address, shared.dtype, start, slower, lines, own.prefetch.level))
    return found


def _turn(stage: Stage, own: StageSchedule, tile: Tile, load: ex.Load, part: int) -> Int:
    """Where the part of the present row tile begins in the panel, in bytes."""
    e = tile.e
    turn: Int = 0
    inside = own.order[own.order.index(own.tile.vector) + 1 :]
    extents = {axis.name: axis.extent for axis in stage.axes}
    for name in inside:
        if name not in extents or ex.depends_on(load, name):
            continue
        step = own.tile.span(name)
        extent = extents[name]
        tiles = -(-extent // step) if isinstance(extent, int) else own.prefetch.turns
        turn = e.add(e.mul(turn, tiles), e.floordiv(tile.env[name], step))
    return e.mul(e.mod(turn, own.prefetch.turns), part)
