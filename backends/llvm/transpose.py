"""Stores of a tile whose rows, not its lanes, lie next to each other in memory."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from .builder import I32, Emitter
from .constants import undefined


def can_transpose(rows: int, lanes: int, stride: object) -> bool:
    """Whether vectors of so many lanes, one for each row, can be stored row by row.

    stride: elements between lanes in memory. Rows are a power of two, or all there is between the
    lanes.
    """
    power_of_two = rows & (rows - 1) == 0
    return 1 < rows <= lanes and lanes % 2 == 0 and (power_of_two or (rows == 3 and stride == 3))


def rows_together(e: Emitter, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    """The elements of equally long vectors, lane by lane: a0 b0 c0 .. a1 b1 c1 .., in as many
    vectors.

    Powers of two: perfect shuffles, halving the distance of the rows in every round.
    """
    if len(vectors) == 3:
        return _three(e, vectors)
    rows = list(vectors)
    distance = len(rows) // 2
    while distance:
        halves: list[ir.Value] = [None] * len(rows)
        pairs = range(len(rows) // 2)
        for i in pairs:
            halves[2 * i], halves[2 * i + 1] = _zip(e, rows[i], rows[i + len(rows) // 2])
        rows = halves
        distance //= 2
    return rows


def _shuffle(e: Emitter, a: ir.Value, b: ir.Value, numbers: Sequence[int]) -> ir.Value:
    return e.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers)))


def _zip(e: Emitter, a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
    """a0 b0 a1 b1 .. in two vectors."""
    lanes = a.type.count
    order = [lane + side * lanes for lane in range(lanes) for side in (0, 1)]
    return _shuffle(e, a, b, order[:lanes]), _shuffle(e, a, b, order[lanes:])


def _three(e: Emitter, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    a, b, c = vectors
    lanes = a.type.count
    ab = e.joined([a, b])
    wide_c = e.joined([c, undefined(c.type)])
    order = [lane + row * lanes for lane in range(lanes) for row in range(3)]
    return [_shuffle(e, ab, wide_c, order[k * lanes : (k + 1) * lanes]) for k in range(3)]
