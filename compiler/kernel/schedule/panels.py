"""Panels of the operand that all rows of a product share: how they are fetched and divided."""

from __future__ import annotations

import math
from dataclasses import replace

from ...target import CpuTarget
from .. import expr as ex
from ..axis_names import band_of
from ..contraction import Contraction, extent_of
from .register_tile import PANEL_SHARE
from .schedule import Blocks, Prefetch, RegisterTile, StageSchedule

MIN_PREFETCH_BYTES = 8 << 10  # panels that are used up sooner come by the hardware's prefetching
# measured with panels of 49 to 98 KiB: one Zen 5 core (48 KiB) multiplies 10 % faster when they
# come to the first level, one Zen 4 core (32 KiB) 5 % faster when they come to the second
ROOMY_L1_BYTES = 48 << 10
# measured on one Zen 3 core: products of 16 rows by weights from memory take 20 % less in blocks,
# of 32 rows 10 % less, of 48 rows as long
FEW_TILES = 8  # that share a panel: they wait for weights, and rows from afar would wait as well
BLOCK_SHARE = 0.5  # of the first-level cache
STREAMS = 4  # panels that are read at the same time where nothing else hides memory's latency
UNKNOWN_TURNS = 8  # row tiles that share the fetching of a panel where rows are not counted yet
# measured on one Zen 5 core: products of one row by weights of 4 bits read 38 GB/s, without 27;
# memory delivers 41
BLOCKS_AHEAD = 12 << 10  # bytes of packed weights
MIN_BAND_TILES = 4  # fewer row tiles are not worth a block's partial sums


def with_panels(own: StageSchedule, product: Contraction, target: CpuTarget) -> StageSchedule:
    """The schedule with prefetching, and in blocks where a panel of the shared operand is large.

    A panel and the next one that is fetched meanwhile share the second-level cache; where few rows
    use a panel, and the first level is small, its blocks and the rows' share the first level.
    """
    if product.reads_packed:
        return with_blocks_ahead(own, product, target)
    if not product.static_depth:
        return own
    size = product.depth * own.tile.width * product.accumulate.bytes
    if size < MIN_PREFETCH_BYTES:
        return own
    inside = own.order[own.order.index(own.tile.vector) + 1 :]
    few = _rows_inside(own.tile, product, inside) <= FEW_TILES * own.tile.rows
    if few and target.l1_bytes < ROOMY_L1_BYTES and size > target.l1_bytes // 2:
        near = _in_blocks(
            own, product, target, -(-size // int(target.l1_bytes * BLOCK_SHARE)), size
        )
        if near is not own:
            return near
    most = int(target.l2_bytes * PANEL_SHARE) // product.beside
    if size <= most:
        return _fetching(own, size, target)
    return _in_blocks(own, product, target, -(-size // most), size)


def with_blocks_ahead(own: StageSchedule, product: Contraction, target: CpuTarget) -> StageSchedule:
    """The schedule with fetching, where packed weights come from memory."""
    axes = (*product.stage.axes, *product.stage.reduce_axes)
    shared = [o for o in product.operands if own.tile.vector and o.along(own.tile.vector)]
    sizes = [
        math.prod(extent_of(axis) for axis in axes if operand.along(axis.name))
        * operand.load.dtype.bytes
        for operand in shared
    ]
    largest = max(sizes, default=0)
    return own if largest < target.l2_bytes else replace(own, prefetch=Prefetch(BLOCKS_AHEAD))


def _in_blocks(
    own: StageSchedule, product: Contraction, target: CpuTarget, least: int, size: int
) -> StageSchedule:
    """The schedule with panels of `size` bytes in `least` blocks or a few more, if that can be."""
    stage, blocks = product.stage, _blocks(own, product, least)
    if not blocks:
        return own
    first = stage.reduce_axes[0].name
    place = own.order.index(own.tile.vector) + 1
    head, inside = own.order[:place], own.order[place:]
    band, most_rows = 0, _most_rows(own, product, target)
    if most_rows < _rows_inside(own.tile, product, inside):
        band = most_rows // (2 * own.tile.rows) * own.tile.rows
        row = next(axis for axis in stage.axes if axis.name == own.tile.row)
        if min(band, extent_of(row)) < MIN_BAND_TILES * own.tile.rows:
            return own  # partial sums would come and go for little
        head, inside = (*head, *inside[:-1], band_of(own.tile.row)), (own.tile.row,)
    block = extent_of(stage.reduce_axes[0]) // blocks
    own = replace(own, order=(*head, first, *inside), blocks=Blocks(first, block, band))
    return _fetching(own, size // blocks, target)


def _fetching(own: StageSchedule, ahead: int, target: CpuTarget) -> StageSchedule:
    """The schedule with panels, or blocks of them, fetched `ahead` bytes before they are read."""
    level = 1 if target.l1_bytes >= ROOMY_L1_BYTES or ahead <= target.l1_bytes else 2
    return replace(own, prefetch=Prefetch(ahead, level))


def fetched(
    product: Contraction, tile: RegisterTile, order: tuple[str, ...], blocks: Blocks
) -> tuple[int, int]:
    """(bytes of a panel, or of a block of one, how many row tiles share its fetching)."""
    ahead = product.depth * tile.width * product.accumulate.bytes
    if blocks.axis:
        ahead //= extent_of(product.stage.reduce_axes[0]) // blocks.steps
    inside = order[order.index(blocks.axis or tile.vector) + 1 :]
    rows = blocks.band or _rows_inside(tile, product, inside)
    tiles = rows // tile.rows if rows < math.inf else UNKNOWN_TURNS
    step = tile.width * product.accumulate.bytes
    return ahead, math.gcd(step, 1 << (max(1, int(tiles)).bit_length() - 1))


def of_one_row(own: StageSchedule, product: Contraction, target: CpuTarget) -> StageSchedule:
    """The schedule, without rows, with what has memory answer faster."""
    if product.reads_packed:
        return with_blocks_ahead(own, product, target)
    return replace(own, panel=streams(own, product))


def streams(own: StageSchedule, contraction: Contraction) -> int:
    """Vectors per panel where nothing is used twice, as in products of one row; 0: no panels.

    Such an operand comes from memory, and hardware that prefetches follows several streams at once
    faster than one: measured on one Zen 3 core, 17 GB/s against 13.
    """
    stage = contraction.stage
    body = stage.reductions[0].body if stage.reductions else None
    if len(stage.reduce_axes) != 1 or not isinstance(body, ex.Apply):
        return 0  # not a product
    count = max(1, STREAMS // len(stage.reductions))  # side by side each is a stream of its own
    if count == 1 or own.tile.vectors % count:
        return 0
    panel = own.tile.vectors // count
    size = extent_of(stage.reduce_axes[0]) * panel * own.tile.lanes * body.dtype.bytes
    return panel if size >= MIN_PREFETCH_BYTES else 0


def _most_rows(own: StageSchedule, product: Contraction, target: CpuTarget) -> int:
    """Rows whose partial sums fit the stack."""
    width = own.tile.width * product.accumulate.bytes
    return target.stack_bytes // width


def _rows_inside(tile: RegisterTile, product: Contraction, inside: tuple[str, ...]) -> float:
    """Rows that loops go over, edge tiles counted whole; infinite where that is not known."""
    axes = [axis for axis in product.stage.axes if axis.name in inside]
    if not all(isinstance(axis.extent, int) for axis in axes):
        return math.inf
    steps = (tile.rows if axis.name == tile.row else 1 for axis in axes)
    return math.prod(-(-extent_of(a) // s) * s for a, s in zip(axes, steps, strict=True))


def _blocks(own: StageSchedule, product: Contraction, least: int) -> int:
    """Into how many equal blocks the first reduction axis is split; 0 where it cannot be."""
    stage = product.stage
    columns = next(axis.extent for axis in stage.axes if axis.name == own.tile.vector)
    plain = product.products[0] is not None and product.products[0].plain
    if product.beside > 1 or not isinstance(columns, int) or not plain:
        return 0
    extent = extent_of(stage.reduce_axes[0])
    step = own.unrolling.unroll if len(stage.reduce_axes) == 1 else 1
    fitting = (n for n in range(least, 4 * least) if extent % (n * step) == 0)
    return next(fitting, 0)
