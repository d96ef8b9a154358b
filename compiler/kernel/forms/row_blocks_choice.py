"""Where attention is computed in blocks of rows, and of how many."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import Node
from ...ir.types import DType
from .form import RowBlocksForm
from .row_blocks import row_stride

BLOCK_BYTES = 128 << 10  # of the scores of one block
MIN_BLOCK_ROWS = 12  # fewer read keys and values too few times


def row_blocks_form(nodes: Sequence[Node]) -> RowBlocksForm | None:
    """How three fused nodes are computed in blocks of rows; None where they are not."""
    if len(nodes) != 3 or any(n.op != "fused" or len(n.outputs) != 1 for n in nodes):
        return None
    scores, softmax, result = nodes
    matrix, weights = scores.output, softmax.output
    if matrix not in softmax.inputs or weights not in result.inputs:
        return None
    if not matrix.type.is_static or not weights.type.is_static or weights.type.rank < 3:
        return None
    *rows_shape, _ = weights.type.static_shape
    shape = matrix.type.static_shape
    plain = not matrix.type.layout.border and not matrix.type.layout.parent
    if not plain or weights.type.layout != matrix.type.layout:
        return None
    if matrix.dtype is not DType.F32 or weights.dtype is not DType.F32:
        return None
    if list(shape[: len(rows_shape)]) != rows_shape:
        return None
    rows = _block_rows(rows_shape[-1], row_stride(matrix, weights) * matrix.dtype.bytes)
    return RowBlocksForm(rows) if rows else None


def _block_rows(rows: int, row_bytes: int) -> int:
    """Rows of a block: a divisor of their number, 0 where none is good."""
    if rows < MIN_BLOCK_ROWS:
        return 0
    divisors = [n for n in range(MIN_BLOCK_ROWS, rows + 1) if rows % n == 0]
    fitting = [n for n in divisors if n * row_bytes <= BLOCK_BYTES]
    if fitting:
        return fitting[-1]
    return divisors[0] if divisors[0] * row_bytes <= 2 * BLOCK_BYTES else 0
