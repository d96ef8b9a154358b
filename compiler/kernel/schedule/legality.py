"""Which schedules a kernel can have: what code generation relies on."""

from __future__ import annotations

import math
from collections.abc import Iterator

from ...errors import ScheduleError
from ...ir.dims import symbols_of
from ..axis_names import band_of
from ..contraction import contraction_of
from ..instruction import MATRICES, MATRIX_REGISTERS, MATRIX_ROWS, PAIRS
from ..kernel import Kernel, Stage, has_factors
from . import pair_tiles
from .matrix_tiles import LANES, plain_operands
from .schedule import Schedule, StageSchedule
from .slices import slice_axis

MAX_LANES = 64  # of a vector of bytes in the widest registers
MAX_TILE = 64  # registers that a tile's results fill: more only spill, and take long to compile
MAX_UNROLL = 32


def check_schedule(kernel: Kernel, schedule: Schedule) -> None:
    """Raise ScheduleError, with every reason, unless the kernel can be emitted so.

    Any CPU can run any legal schedule: where vectors are wider than its registers, in parts.
    """
    reasons = list(_threads(kernel, schedule))
    for number, (stage, own) in enumerate(zip(kernel.stages, schedule.stages, strict=True)):
        reasons += [f"stage {number}: {text}" for text in _stage(stage, own, kernel)]
    if reasons:
        raise ScheduleError(
            f"the kernel '{'+'.join(kernel.operators)}' cannot be scheduled so",
            why="; ".join(reasons),
            remedy="change these fields, or leave them out: the heuristic fills them",
        )


def _threads(kernel: Kernel, schedule: Schedule) -> Iterator[str]:
    if kernel.shared:
        if (schedule.parallel, schedule.ahead) != (kernel.shared, 0):
            yield f"threads divide all {kernel.shared} axes that stages share, and none else"
        return
    if len(kernel.stages) > 1 or kernel.stages[0].sequential:
        if schedule.parallel or schedule.ahead:
            yield "stages that only follow each other, or go in order, are not divided"
        return
    order = schedule.stages[0].order
    inner = [n for n, name in enumerate(order) if name in _serial(schedule.stages[0])]
    most = min(inner, default=len(order))
    if min(schedule.ahead, schedule.parallel) < 0 or schedule.ahead + schedule.parallel > most:
        yield f"threads can divide {most} loops, not {schedule.parallel} behind {schedule.ahead}"
    if schedule.ahead and not schedule.parallel:
        yield "no loop is divided behind those that every thread goes through"


def _serial(own: StageSchedule) -> set[str]:
    """Loops whose rounds need each other's sums."""
    return {own.blocks.axis, band_of(own.tile.row)} if own.blocks.axis else set()


def _stage(stage: Stage, own: StageSchedule, kernel: Kernel) -> Iterator[str]:
    tile, names = own.tile, [axis.name for axis in stage.axes[kernel.shared :]]
    loops = [*names, *_loops_of_blocks(own)]
    if sorted(own.order) != sorted(loops):
        yield f"the order has {len(own.order)} loops that are not the stage's {len(loops)}"
        return
    in_order = stage.sequential or any(r.kind.startswith("arg") for r in stage.reductions)
    apart = slice_axis(stage)
    along_slices = apart is not None and tile.vector == apart.name
    if in_order and ((tile.vector and not along_slices) or tile.row or list(own.order) != names):
        yield "it goes in the written order, element by element, or slice by slice"
    yield from _tile(stage, own, names)
    yield from _unrolling(own)
    if own.blocks.axis or own.blocks.steps or own.blocks.band:
        yield from _blocks(stage, own, kernel.most_stack)
    if own.instruction in MATRICES:
        yield from _matrices(stage, own)
    if own.instruction in PAIRS:
        yield from _pairs(stage, own)
    if own.prefetch.ahead and own.prefetch.level not in (1, 2):
        yield f"there is no cache level {own.prefetch.level} to fetch to"
    if own.panel and (own.panel < 0 or tile.vectors % own.panel or not stage.reductions):
        yield f"panels of {own.panel} vectors do not make up a tile of {tile.vectors}"


def _matrices(stage: Stage, own: StageSchedule) -> Iterator[str]:
    """Why a tile cannot be made of matrices."""
    tile = own.tile
    high = max(1, -(-tile.rows // MATRIX_ROWS))
    if tile.lanes != LANES or not tile.row or len(stage.reductions) != 1:
        yield f"matrices have {LANES} columns, and rows along an axis"
    elif not plain_operands(stage, tile.vector, tile.row):
        yield "what rows or columns of matrices read does not lie in rows"
    if tile.rows % high or high * tile.vectors + high + 1 > MATRIX_REGISTERS:
        yield f"{tile.rows} x {tile.vectors} vectors are not made of whole matrices in registers"
    if own.blocks.axis:
        yield "matrices add up whole sums, not blocks"


def _pairs(stage: Stage, own: StageSchedule) -> Iterator[str]:
    """Why a tile cannot be made of pairs of rows and columns."""
    tile = own.tile
    if tile.lanes != pair_tiles.LANES or not tile.row:
        yield f"pairs have vectors of {pair_tiles.LANES} columns, and rows along an axis"
    else:
        yield from pair_tiles.reasons_against(stage, tile.vector, tile.row)
    if own.blocks.axis:
        yield "pairs add up whole sums, not blocks"


def _loops_of_blocks(own: StageSchedule) -> Iterator[str]:
    if own.blocks.axis:
        yield own.blocks.axis
    if own.blocks.band:
        yield band_of(own.tile.row)


def _tile(stage: Stage, own: StageSchedule, names: list[str]) -> Iterator[str]:
    tile = own.tile
    beside = max(1, len(stage.reductions))
    if tile.lanes not in (1, 2, 4, 8, 16, 32, MAX_LANES):
        yield f"vectors have no {tile.lanes} lanes"
    if min(tile.vectors, tile.rows) < 1 or tile.vectors * tile.rows * beside > MAX_TILE:
        yield f"a tile has 1 to {MAX_TILE} registers, not {tile.rows} x {tile.vectors} x {beside}"
    if not tile.vector and (tile.lanes > 1 or tile.vectors > 1):
        yield "lanes run along no axis"
    if not tile.row and tile.rows > 1:
        yield "rows run along no axis"
    if tile.row and (tile.row == tile.vector or tile.row not in names):
        yield "rows run along an axis of the result, another than lanes"
    if tile.vector and tile.vector not in names:
        yield from _along_sum(stage, own)


def _along_sum(stage: Stage, own: StageSchedule) -> Iterator[str]:
    tile = own.tile
    if tile.vector not in [axis.name for axis in stage.reduce_axes]:
        yield "lanes run along no axis of the stage"
    if has_factors(stage):
        yield "lanes along the sum, parts of which have factors of their own"
    if tile.row:
        yield "lanes along the sum leave no rows to tile"
    for store in stage.stores:
        if store.buffer.local is None and tile.vector in symbols_of(store.offset):
            yield "lanes along the sum, which decides where results lie"


def _unrolling(own: StageSchedule) -> Iterator[str]:
    if not 1 <= own.unrolling.unroll <= MAX_UNROLL:
        yield f"1 to {MAX_UNROLL} steps can be written out, not {own.unrolling.unroll}"


def _blocks(stage: Stage, own: StageSchedule, most_stack: int) -> Iterator[str]:
    """Why a sum cannot be done in such blocks."""
    blocks, tile = own.blocks, own.tile
    contraction = contraction_of(stage)
    product = contraction.products[0] if contraction.products else None
    if contraction.beside != 1 or product is None or not product.plain or not stage.reduce_axes:
        yield "only a single plain product is summed in blocks"
        return
    extent = stage.reduce_axes[0].extent
    columns = {axis.name: axis.extent for axis in stage.axes}.get(tile.vector)
    if not isinstance(extent, int) or not isinstance(columns, int) or not contraction.static_depth:
        yield "only sums and columns of known size are done in blocks"
        return
    if not blocks.axis or blocks.steps < 1 or extent % blocks.steps:
        yield f"blocks of {blocks.steps} steps do not divide a sum of {extent}"
    if blocks.band and (blocks.band < 0 or not tile.row or blocks.band % tile.rows):
        yield f"bands of {blocks.band} rows are no multiple of the tile's {tile.rows}"
        return
    if own.order.index(blocks.axis) < own.order.index(tile.vector):
        yield "the loop over blocks is inside that over columns"
        return
    inside = own.order[own.order.index(blocks.axis) + 1 :]
    if blocks.band and own.order.index(band_of(tile.row)) > own.order.index(blocks.axis):
        yield "the loop over bands is around that over blocks"
    if tile.row and tile.row not in inside:
        yield "the loop over rows is inside that over blocks"
    extents = [axis.extent for axis in stage.axes if axis.name in inside and axis.name != tile.row]
    rows = next((a.extent for a in stage.axes if a.name == tile.row and a.name in inside), 1)
    held = [n for n in (blocks.band or rows, *extents) if isinstance(n, int)]
    if len(held) <= len(extents):
        yield "partial sums need loops of known size inside the blocks"
        return
    count = -(-held[0] // tile.rows) * tile.rows * math.prod(held[1:])
    if count * tile.width * contraction.accumulate.bytes > most_stack:
        yield f"partial sums of {count} rows do not fit {most_stack} bytes"
