"""Where attention is computed in blocks of rows, and of how many."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import Node
from ...ir.groups import is_fused
from ...ir.types import DType
from .form import RowBlocksForm
from .row_blocks import row_stride

BLOCK_BYTES = 128 << 10  # of the scores of one block
MIN_BLOCK_ROWS = 12  # fewer read keys and values too few times


def row_blocks_form(nodes: Sequence[Node]) -> RowBlocksForm | None:
    """How three fused nodes are computed in blocks of rows; None where they are not."""
    if not _possible(nodes):
        return None
    matrix, weights = nodes[0].output, nodes[1].output
    row_bytes = row_stride(matrix, weights) * matrix.dtype.bytes
    rows = _block_rows(weights.type.static_shape[-2], row_bytes)
    return RowBlocksForm(rows) if rows else None


def row_blocks_forms(nodes: Sequence[Node]) -> list[RowBlocksForm]:
    """Blocks of rows that three fused nodes could be computed in."""
    if not _possible(nodes):
        return []
    rows = nodes[1].output.type.static_shape[-2]
    least = min(rows, MIN_BLOCK_ROWS // 2)
    return [RowBlocksForm(n) for n in range(least, rows + 1) if rows % n == 0]


def row_blocks_illegal(nodes: Sequence[Node], form: RowBlocksForm) -> str:
    """Why three fused nodes cannot take a form; empty where they can."""
    if not _possible(nodes):
        return "it is no attention of known sizes in f32"
    rows = nodes[1].output.type.static_shape[-2]
    return f"blocks divide {rows} rows" if form.rows < 1 or rows % form.rows else ""


def _possible(nodes: Sequence[Node]) -> bool:
    """Whether fused nodes are scores, their softmax and what it weighs, row by row."""
    if len(nodes) != 3 or any(not is_fused(n) or len(n.outputs) != 1 for n in nodes):
        return False
    scores, softmax, result = nodes
    matrix, weights = scores.output, softmax.output
    if matrix not in softmax.inputs or weights not in result.inputs:
        return False
    if not matrix.type.is_static or not weights.type.is_static or weights.type.rank < 3:
        return False
    *rows_shape, _ = weights.type.static_shape
    shape = matrix.type.static_shape
    plain = not matrix.type.layout.border and not matrix.type.layout.parent
    if not plain or weights.type.layout != matrix.type.layout:
        return False
    if matrix.dtype is not DType.F32 or weights.dtype is not DType.F32:
        return False
    return list(shape[: len(rows_shape)]) == rows_shape


def _block_rows(rows: int, row_bytes: int) -> int:
    """Rows of a block: a divisor of their number, 0 where none is good."""
    if rows < MIN_BLOCK_ROWS:
        return 0
    divisors = [n for n in range(MIN_BLOCK_ROWS, rows + 1) if rows % n == 0]
    fitting = [n for n in divisors if n * row_bytes <= BLOCK_BYTES]
    if fitting:
        return fitting[-1]
    return divisors[0] if divisors[0] * row_bytes <= 2 * BLOCK_BYTES else 0
