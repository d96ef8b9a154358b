"""Schedules of pointwise stages whose operands and results lie along two different axes.

What is contiguous along the lanes' axis is moved as it is; what is contiguous along the other one
comes and goes in pieces of a few rows, and is transposed in registers. A tile is about as long
and as high as a cache line, so that every line is used as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...ir.dims import Dim, coefficient
from ...target import CpuTarget
from .. import expr as ex
from ..contraction import extent_of
from ..kernel import CACHE_LINE, Axis, Stage
from .schedule import RegisterTile, StageSchedule

PIECE_BYTES = 16  # shuffles within so many are fast, others take longer
LEAST_LANES = 16  # of a shorter axis along which results are contiguous, lanes go the other way
ROWS = 16  # of a tile; their pieces of a line are transposed a few rows at a time
LEAST_ROWS = 4
MOST_WRITTEN = 1024  # operations of a tile: more are written out for fewer rows
# of rows that are contiguous in an operand: hardware fetches longer runs ahead, beside shorter ones
# it is better to write in long runs (measured on one core each of Sapphire Rapids)
SHORT_RUN_BYTES = 1024


def transposing_schedule(
    stage: Stage, own: tuple[Axis, ...], target: CpuTarget, lanes: int
) -> StageSchedule | None:
    """Tiles of rows and vectors for a stage that needs transposes; None for others.

    own: the axes of the stage's own loops. lanes: of the widest element in a register.
    """
    found = _axes(stage, own) if lanes > 1 else None
    if found is None:
        return None
    vector, row = found
    size = target.vector_bits // 8 // lanes
    lanes = min(lanes, 1 << (extent_of(vector) - 1).bit_length())
    vectors = min(max(1, CACHE_LINE // (lanes * size)), -(-extent_of(vector) // lanes))
    others = (axis.name for axis in own if axis not in found)
    short = isinstance(row.extent, int) and row.extent * size <= SHORT_RUN_BYTES
    inner = (row, vector) if short and extent_of(vector) > extent_of(row) else (vector, row)
    rows, operations = min(ROWS, extent_of(row)), sum(map(ex.cost, stage.expressions()))
    while rows > LEAST_ROWS and rows * vectors * operations > MOST_WRITTEN:
        rows = max(LEAST_ROWS, rows // 2)
    order = (*others, *(axis.name for axis in inner))
    return StageSchedule(RegisterTile(vector.name, lanes, vectors, row.name, rows), order)


def rows_of_piece(size: int) -> int:
    """Rows, of elements of so many bytes, that are loaded and transposed together."""
    return max(1, PIECE_BYTES // size)


def is_transposed(offset: Dim, tile: RegisterTile) -> bool:
    """Whether an access of a stage without reductions goes along the rows of its tiles."""
    across = coefficient(offset, tile.vector) if tile.vector else 0
    return tile.rows > 1 and across not in (0, 1, None) and coefficient(offset, tile.row) == 1


def _axes(stage: Stage, own: tuple[Axis, ...]) -> tuple[Axis, Axis] | None:
    """(axis of the lanes, axis of the rows)."""
    if stage.reductions or any(store.dynamic for store in stage.stores):
        return None
    stored = [axis for store in stage.stores if (axis := _contiguous(store.offset, own))]
    if not stored:
        return None
    vector = max(stored, key=stored.count)
    accesses = [found for value in stage.expressions() for found in _loads(value)]
    accesses += [(store.offset, False) for store in stage.stores]
    across = [
        (axis, guarded)
        for offset, guarded in accesses
        if coefficient(offset, vector.name) not in (0, 1, None)
        and (axis := _contiguous(offset, own))
    ]
    if not across:
        return None
    rows = [axis for axis, _ in across]
    row = max(rows, key=rows.count)
    # only stores come in pieces where loads must not touch all of a tile
    masked = any(guarded for axis, guarded in across if axis == row)
    if masked or (extent_of(vector) < LEAST_LANES and extent_of(row) >= LEAST_LANES):
        vector, row = row, vector
    return (vector, row) if extent_of(row) > 1 else None


def _contiguous(offset: Dim, own: tuple[Axis, ...]) -> Axis | None:
    """The axis along which an access goes from element to element."""
    found = [axis for axis in own if coefficient(offset, axis.name) == 1]
    return found[0] if len(found) == 1 else None


def _loads(expression: ex.Expr, guarded: bool = False) -> Iterator[tuple[Dim, bool]]:
    """(offset, whether only some elements may be read) of loads at places that no data decide."""
    if isinstance(expression, ex.Load) and not expression.dynamic:
        yield expression.offset, guarded
    for child in ex.children(expression):
        yield from _loads(child, guarded or isinstance(expression, ex.Guarded))
