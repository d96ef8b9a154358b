"""Loads and stores of a tile whose rows, not its lanes, lie next to each other in memory."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Buffer
from .builder import I1, I32, Emitter, scalar_type
from .constants import undefined
from .indices import Int
from .shape import Shape

UNSIGNED = {1: DType.U8, 2: DType.U16, 4: DType.U32, 8: DType.U64}
MOST_WHOLE_ROWS = 8  # that are stored without gaps between the lanes


def piece_of(row: int, rows: int, most: int) -> tuple[int, int]:
    """(first row, number of rows) of those that are moved together with one of a tile's rows.

    Numbers are powers of two, at most `most`, which is one.
    """
    first = row // most * most
    while first + (count := min(most, 1 << ((rows - first).bit_length() - 1))) <= row:
        first += count
    return first, count


def lanes_read(e: Emitter, shape: Shape, v: int) -> list[Int | None]:
    """Where each lane of a tile's vector v is read: dead ones where the last live one is.

    None: nowhere, as is known now.
    """
    left = shape.left_of(v)
    if left is None or isinstance(left, int):
        live = shape.lanes if left is None else left
        return [lane if lane < live else None for lane in range(shape.lanes)]
    last = e.sub(left, 1)
    return [e.minmax("min", lane, last) for lane in range(shape.lanes)]


def load_rows(
    e: Emitter, start: ir.Value, stride: Int, buffer: Buffer, rows: int, lanes: Sequence[Int | None]
) -> list[ir.Value]:
    """One vector for each of so many rows, which are neighbours in memory.

    start: address of the first lane. stride: elements from lane to lane. lanes: where each is read.
    Vectors of pieces as far from each other as there are rows are transposed, block by block.
    """
    dtype = buffer.dtype
    bits = UNSIGNED[dtype.bytes]
    kind = scalar_type(bits)
    pieces = [e.constant(0, kind if rows == 1 else ir.VectorType(kind, rows))] * len(lanes)
    for number, lane in enumerate(lanes):
        if lane is not None:
            pointer = e.pointer(start, e.mul(stride, lane), dtype)
            pieces[number] = e.load(pointer, bits, rows, buffer=buffer.name)
    if rows == 1:
        return [_from_bits(e, _vector_of(e, pieces), dtype)]
    vectors = _interleaved(e, [e.joined(pieces[i::rows]) for i in range(rows)], rows)
    return [_from_bits(e, vector, dtype) for vector in vectors]


def is_without_gaps(rows: int, lanes: int, stride: Int) -> bool:
    """Whether a few rows are all there is between the lanes, so that vectors are stored whole."""
    power_of_two = rows & (rows - 1) == 0
    return rows == stride and rows <= min(lanes, MOST_WHOLE_ROWS) and (power_of_two or rows == 3)


def store_rows(
    e: Emitter, start: ir.Value, stride: Int, buffer: Buffer, rows: Sequence[ir.Value], live: int
) -> None:
    """Store the live lanes of vectors, one for each row, that are neighbours in memory.

    start: address of the first lane. stride: elements from lane to lane.
    """
    bits, lanes, count = UNSIGNED[buffer.dtype.bytes], rows[0].type.count, len(rows)
    vectors = [_to_bits(e, row, buffer.dtype) for row in rows]
    if live == lanes and is_without_gaps(count, lanes, stride):
        for number, vector in enumerate(_rows_together(e, vectors)):
            e.store(vector, e.pointer(start, number * lanes, bits), bits, buffer=buffer.name)
        return
    vectors = _interleaved(e, vectors, count)
    for lane in range(live):
        piece = e.parts(vectors[lane % count], lanes // count)[lane // count]
        e.store(piece, e.pointer(start, e.mul(stride, lane), bits), bits, buffer=buffer.name)


def _from_bits(e: Emitter, vector: ir.Value, dtype: DType) -> ir.Value:
    """Elements, of which the vector has what is in memory as integers."""
    if dtype is DType.BOOL:
        return e.b.icmp_unsigned("!=", vector, e.constant(0, vector.type))
    return e.b.bitcast(vector, ir.VectorType(scalar_type(dtype), vector.type.count))


def _to_bits(e: Emitter, vector: ir.Value, dtype: DType) -> ir.Value:
    kind = ir.VectorType(scalar_type(UNSIGNED[dtype.bytes]), vector.type.count)
    return e.b.zext(vector, kind) if vector.type.element == I1 else e.b.bitcast(vector, kind)


def _vector_of(e: Emitter, scalars: Sequence[ir.Value]) -> ir.Value:
    vector: ir.Value = undefined(ir.VectorType(scalars[0].type, len(scalars)))
    for lane, value in enumerate(scalars):
        vector = e.b.insert_element(vector, value, ir.Constant(I32, lane))
    return vector


def _rows_together(e: Emitter, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    """The elements of equally long vectors, lane by lane: a0 b0 c0 .. a1 b1 c1 .., in as many
    vectors.
    """
    if len(vectors) == 3:
        return _three(e, vectors)
    return _interleaved(e, vectors, vectors[0].type.count)


def _interleaved(e: Emitter, vectors: Sequence[ir.Value], block: int) -> list[ir.Value]:
    """Within blocks of so many lanes, the elements of vectors, lane by lane.

    Powers of two: perfect shuffles, halving the distance of the vectors in every round.
    """
    rows, half = list(vectors), len(vectors) // 2
    for _ in range(half.bit_length()):
        rows = [part for i in range(half) for part in _zip(e, rows[i], rows[i + half], block)]
    return rows


def _shuffle(e: Emitter, a: ir.Value, b: ir.Value, numbers: Sequence[int]) -> ir.Value:
    return e.b.shuffle_vector(a, b, ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers)))


def _zip(e: Emitter, a: ir.Value, b: ir.Value, block: int) -> tuple[ir.Value, ir.Value]:
    """a0 b0 a1 b1 .. of every block in two vectors."""
    lanes, half = a.type.count, block // 2
    blocks, sides = range(0, lanes, block), (0, lanes)
    low = [first + i + side for first in blocks for i in range(half) for side in sides]
    return _shuffle(e, a, b, low), _shuffle(e, a, b, [number + half for number in low])


def _three(e: Emitter, vectors: Sequence[ir.Value]) -> list[ir.Value]:
    a, b, c = vectors
    lanes = a.type.count
    ab = e.joined([a, b])
    wide_c = e.joined([c, undefined(c.type)])
    order = [lane + row * lanes for lane in range(lanes) for row in range(3)]
    return [_shuffle(e, ab, wide_c, order[k * lanes : (k + 1) * lanes]) for k in range(3)]
