"""What com.microsoft had before the standard, or has in a simpler form.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md. Those that are as in the standard are
registered with its operators.
"""

from __future__ import annotations

from .....compiler.ir import DType, Value
from .....compiler.ir.dims import product
from ...site import Site
from ...table import MICROSOFT, lowers
from ..shared.run_time import signed_dims
from ..standard.generators import span
from ..standard.movement import pad_value
from ..standard.selection import square, unique_rows


@lowers("Pad", domain=MICROSOFT)
def pad(s: Site) -> Value:
    """All axes, by a vector of pads, which may be [1, 2 * rank]."""
    x, given = s.input(0), s.input(1)
    pads = signed_dims(s, s.reshape(given, (product(given.shape),)))
    if len(pads) != 2 * x.type.rank:
        raise ValueError(f"{len(pads)} pads for {x.type.rank} axes")
    return pad_value(s, x, pads, s.text("mode", "constant"), s.optional(2))


@lowers("Range", domain=MICROSOFT)
def range_(s: Site) -> Value:
    """The step may be left out."""
    start, limit, step = s.input(0), s.input(1), s.optional(2)
    return span(s, start, limit, s.scalar(1, start.dtype) if step is None else step)


@lowers("Unique", domain=MICROSOFT)
def unique(s: Site) -> list[Value]:
    """The elements of a vector in the order in which they occur first, places, counts."""
    x = s.input(0)
    if x.type.rank != 1:
        raise ValueError(f"{x.type} is no vector")
    found, inverse, counts = unique_rows(s, s.reshape(x, (x.shape[0], 1)), False)
    return [s.emit("gather", [x, found], axis=0), inverse, counts]


@lowers("ExpandDims", domain=MICROSOFT)
def expand_dims(s: Site) -> Value:
    x = s.input(0)
    (axis,) = s.numbers(s.reshape(s.input(1), (1,)), "axis")
    place = s.axis(axis, x.type.rank + 1)
    return s.reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


@lowers("MatMulInteger16", domain=MICROSOFT)
def matmul_of_16_bits(s: Site) -> Value:
    """Sums are of 32 bits, and wrap."""
    a, b = (s.cast(s.input(i), DType.I32) for i in range(2))
    unsigned = s.input(0).dtype is DType.U16 and s.input(1).dtype is DType.U16
    return s.cast(s.emit("matmul", [a, b]), DType.U32 if unsigned else DType.I32)


@lowers("Inverse", domain=MICROSOFT)
def inverse(s: Site) -> Value:
    return s.emit("inverse", [square(s, s.input(0))])


@lowers("CDist", domain=MICROSOFT)
def distances(s: Site) -> Value:
    """Between every row of a and every row of b: |a|^2 - 2 ab + |b|^2, or its root."""
    a, b = s.input(0), s.input(1)
    metric = s.text("metric", "sqeuclidean")
    if metric not in ("sqeuclidean", "euclidean"):
        raise ValueError(f"metric '{metric}' does not exist")
    lengths = [s.reduce("sum", s.op_("mul", rows, rows), [1]) for rows in (a, b)]
    both = s.op_("add", lengths[0], s.transpose(lengths[1], (1, 0)))
    cross = s.emit("matmul", [a, s.transpose(b, (1, 0))])
    squares = s.op_("max", s.op_("sub", both, s.op_("mul", cross, 2.0)), 0.0)
    return s.op_("sqrt", squares) if metric == "euclidean" else squares
