"""Tables of few bits whose rows are looked up: rows are taken first, and made floats then.

A table of embeddings stays as it is stored, packed where several numbers lie in a byte; a run
unpacks the rows that it looks up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.packed import FEWEST_PACKED, PACKED_BITS
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType

RULES = Rules()


@dataclass(frozen=True)
class PackedTables:
    """The pass: afterwards no large constant table is made floats, or unpacked, as a whole."""

    name: str = "packed_tables"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        return rewrite(graph, RULES)


def _is_table(value: Value, axis: int) -> bool:
    """Whether rows are taken of a large matrix."""
    if axis != 0 or value.type.rank != 2 or not value.type.is_static:
        return False
    rows, columns = value.type.static_shape
    return rows * columns >= FEWEST_PACKED


@RULES.on("gather")
def rows_first(node: Node, rw: Rewriter) -> Replacement:
    """gather(dequantize(table)) -> dequantize(gather(table)), blocks along rows included"""
    table, indices = node.inputs
    if not _is_table(table, node.attrs["axis"]):
        return None
    made = rw.producer(table, "dequantize", "reshape")
    if made is not None and made.op == "reshape":  # of blocks
        made = rw.producer(made.inputs[0], "dequantize")
    if made is None or made.output.type.rank not in (2, 3):
        return None
    stored = _stored(made.inputs[0])
    if stored is None or stored.shape != table.shape or made.output.shape[0] != table.shape[0]:
        return None
    shape = (*indices.shape, *made.output.shape[1:])
    numbers = rw.emit("reshape", [_rows(stored, indices, rw)], {"shape": shape})
    parameters = [_rows_of(value, made, indices, rw) for value in made.inputs[1:]]
    real = rw.emit("dequantize", [numbers, *parameters])
    return rw.emit("reshape", [real], {"shape": node.output.shape})


def _stored(value: Value) -> Value | None:
    """The constant matrix of integers that a value is a view of."""
    while value.producer is not None and value.producer.op == "reshape":
        value = value.producer.inputs[0]
    node = value.producer
    packed = node is not None and node.op == "unpack" and node.inputs[0].is_constant
    return value if packed or (value.is_constant and value.dtype in (DType.I8, DType.U8)) else None


def _rows(table: Value, indices: Value, rw: Rewriter) -> Value:
    return rw.emit("gather", [table, indices], {"axis": 0})


def _rows_of(parameter: Value, made: Node, indices: Value, rw: Rewriter) -> Value:
    """A scale or zero point of the rows that are taken."""
    rank = made.output.type.rank
    if parameter.type.rank < rank:
        return parameter
    if parameter.shape[0] == 1:
        return rw.emit("reshape", [parameter], {"shape": parameter.shape[1:]})
    return _rows(parameter, indices, rw)


@RULES.on("gather")
def unpacked_rows(node: Node, rw: Rewriter) -> Replacement:
    """gather(unpack(bytes)) -> the numbers of gather(bytes)"""
    table, indices = node.inputs
    made = rw.producer(table, "unpack")
    if made is None or not made.inputs[0].is_constant or not _is_table(table, node.attrs["axis"]):
        return None
    bits, (rows, columns) = PACKED_BITS[table.dtype], table.type.static_shape
    if columns * bits % 8:
        return None
    packed = rw.emit("reshape", [made.inputs[0]], {"shape": (rows, columns * bits // 8)})
    taken = _rows(packed, indices, rw)
    apart = rw.emit("reshape", [taken], {"shape": (*taken.shape, 1)})
    moved = rw.emit("shr", [apart, _bytes(range(0, 8, bits))])
    numbers = rw.emit("bitand", [moved, constant(np.uint8((1 << bits) - 1))])
    flat = rw.emit("reshape", [numbers], {"shape": node.output.shape})
    return rw.emit("cast", [flat], {"dtype": table.dtype})


def _bytes(numbers: Sequence[int]) -> Value:
    return constant(np.array(numbers, np.uint8))
