"""DynamicTimeWarping of com.microsoft: which tokens were spoken when, of Whisper's attention.

Sakoe and Chiba, Dynamic programming algorithm optimization for spoken word recognition (1978). A
diagonal of the table depends on the two before it alone, so that it is one step of a scan. Which
of equal costs counts is as in ONNX Runtime's kernel.
"""

from __future__ import annotations

import math

from .....compiler.ir import Dim, DType, Graph, TensorType, Value
from .....compiler.ir.dims import dmax
from ...site import Site
from ...table import MICROSOFT, lowers
from ..standard.sampling import number

_BOTH, _ROW, _COLUMN = 0, 1, 2  # what is one less in the place that a path comes from


@lowers("DynamicTimeWarping", domain=MICROSOFT)
def dynamic_time_warping(s: Site) -> Value:
    """The cheapest path through costs [rows, columns] (or [1, rows, columns]): i32 [2, length]."""
    x = s.input(0)
    if x.type.rank == 3:
        x = s.reshape(s.sized(x, 0, 1), x.shape[1:])
    if x.type.rank != 2:
        raise ValueError(f"costs {x.type} have neither 2 dimensions nor 3")
    rows, columns = x.shape
    diagonals = dmax(rows + columns - 1, 0)
    sources = _sources(s, _skewed(s, x, diagonals), rows, diagonals)
    places, counted = _path_back(s, sources, rows, columns, diagonals)
    (length,) = s.dims(s.reduce("sum", counted, [0]))
    path = s.slice(places, 0, 0, length)
    turned = s.emit("slice", [path], starts=(length - 1, 0), stops=(-1, 2), steps=(-1, 1))
    return s.cast(s.transpose(turned, (1, 0)), DType.I32)


def _skewed(s: Site, x: Value, diagonals: Dim) -> Value:
    """[diagonals, rows]: x[row, diagonal - row], and infinity where there is no such column."""
    rows, columns = x.shape
    bordered = s.emit("pad", [x, s.scalar(math.inf, x.dtype)], pads=(0, 0, 0, 1), mode="constant")
    row = s.iota((1, rows), 1, DType.I64)
    column = s.op_("sub", s.iota((diagonals, 1), 0, DType.I64), row)
    width = number(s, columns, DType.I64)
    inside = s.op_("and", s.op_("ge", column, 0), s.op_("lt", column, width))
    place = s.op_("add", s.op_("mul", row, number(s, columns + 1, DType.I64)),
                  s.op_("where", inside, column, width))  # fmt: skip
    return s.emit("gather", [s.reshape(bordered, (rows * (columns + 1),)), place], axis=0)


def _sources(s: Site, costs: Value, rows: Dim, diagonals: Dim) -> Value:
    """Where the cheapest path to each place comes from: i64 [diagonals, rows]."""
    wide = TensorType(costs.dtype, (rows + 1,))  # above the first row is a border
    before, last = Value(wide), Value(wide)
    cost = Value(TensorType(costs.dtype, (rows,)))
    border = s.scalar(math.inf, costs.dtype)
    outside = s.expand(border, (rows + 1,))
    corner = s.op_("where", s.op_("eq", s.iota((rows + 1,), 0, DType.I64), 0), 0.0, outside)
    s.emitter.enter()
    both, row = (s.slice(value, 0, 0, rows) for value in (before, last))
    column = s.slice(last, 0, 1, rows + 1)
    is_both = s.op_("and", s.op_("lt", both, row), s.op_("lt", both, column))
    is_row = s.op_("and", s.op_("lt", row, both), s.op_("lt", row, column))
    least = s.op_("where", is_both, both, s.op_("where", is_row, row, column))
    other = s.op_("where", is_row, s.scalar(_ROW, DType.I64), s.scalar(_COLUMN, DType.I64))
    source = s.emitter.real(s.op_("where", is_both, s.scalar(_BOTH, DType.I64), other))
    reached = s.op_("add", least, cost)
    after = s.emitter.real(s.emit("concat", [s.reshape(border, (1,)), reached], axis=0))
    nodes, _ = s.emitter.leave()
    region = Graph([before, last, cost], [last, after, source], nodes, "warping_costs")
    attributes = {
        "num_state": 2,
        "reverse_in": (False,),
        "reverse_out": (False,),
        "trip": diagonals,
    }
    return s.emitter.emit_node("scan", [corner, outside, costs], attributes, regions=[region])[2]


def _path_back(
    s: Site, sources: Value, rows: Dim, columns: Dim, diagonals: Dim
) -> tuple[Value, Value]:
    """The places [diagonals, 2] of the path from its end on, and which of them it has."""
    flat = s.reshape(sources, (diagonals * rows,))
    flat = s.emit("concat", [flat, s.reshape(s.scalar(_BOTH, DType.I64), (1,))], axis=0)
    ends = [s.op_("sub", number(s, dim, DType.I64), 1) for dim in (rows, columns)]
    width = number(s, rows, DType.I64)
    row, column = (Value(TensorType(DType.I64, ())) for _ in range(2))
    s.emitter.enter()
    inside = s.op_("and", s.op_("ge", row, 0), s.op_("ge", column, 0))
    diagonal = s.op_("add", row, column)
    place = s.op_("add", s.op_("mul", diagonal, width), row)
    source = s.emit("gather", [flat, s.op_("where", inside, place, 0)], axis=0)
    less = [
        s.op_("where", s.op_("eq", source, kept), at, s.op_("sub", at, 1))
        for at, kept in ((row, _COLUMN), (column, _ROW))
    ]
    after = [
        s.emitter.real(s.op_("where", inside, to, at))
        for to, at in zip(less, (row, column), strict=True)
    ]
    both = [s.reshape(at, (1,)) for at in (row, column)]
    here = s.emitter.real(s.emit("concat", both, axis=0))
    counts = s.emitter.real(s.cast(inside, DType.I64))
    nodes, _ = s.emitter.leave()
    region = Graph([row, column], [*after, here, counts], nodes, "warping_path")
    attributes = {
        "num_state": 2,
        "reverse_in": (),
        "reverse_out": (False, False),
        "trip": diagonals,
    }
    _, _, places, counted = s.emitter.emit_node("scan", ends, attributes, regions=[region])
    return places, counted
