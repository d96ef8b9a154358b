"""Rows in blocks, and before them what one row is scaled by, which every program finds anew."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ....compiler.ir.dims import Dim, product, symbol
from ....compiler.kernel import expr as ex
from ....compiler.kernel.expr import Expr, Load
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.schedule.tiles import Tiles
from ..tiles import MAX_STEP, is_normalised_row, main_of, power_of_two
from .rows import RowStage, RowTile, emit_rows
from .text import Lines
from .values import Pointers


def emit_row_blocks(
    lines: Lines,
    kernel: Kernel,
    tiles: Tiles,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
) -> Dim:
    """Emit a kernel of rows, or of products of one row that is normalised; how many programs it
    takes."""
    prepare = partial(_scale, kernel) if is_normalised_row(kernel) else None
    return emit_rows(lines, main_of(kernel), tiles, index, pointers, names, prepare)


def _scale(kernel: Kernel, tile: RowTile) -> None:
    """Emit the reductions of the row; the tile then has its elements. Their results are one number
    along the tile's rows, whatever their count."""
    *scales, elements, last = kernel.stages
    width = product(axis.extent for axis in scales[0].reduce_axes)
    assert isinstance(width, int)  # norms of other rows are launches of their own
    shape = {"r": 1, "c": min(MAX_STEP, power_of_two(width))}
    own = RowTile(tile.lines, shape, tile.index, tile.pointers, dict(tile.env), whole=False)
    for stage in scales:
        own.columns = stage.reduce_axes
        RowStage(own, stage, product(axis.extent for axis in stage.reduce_axes)).emit()
    (column,), (depth,) = elements.axes, last.reduce_axes
    (store,) = elements.stores
    value = ex.substitute_indices(store.value, {column.name: symbol(depth.name)})

    def element(_: Load) -> Expr:
        return value

    tile.registers |= own.registers
    tile.inlined = {store.buffer.name: element}
