"""How resized integers are rounded: as ONNX Runtime does, where it has kernels for them.

A linear result along two axes is truncated, so that every sum which is a whole number hangs on how
its parts are rounded: in floats the weights of both axes are multiplied first, and bytes with
channels last have weights of ten fractional bits (UpsampleBilinear and
NhwcUpsampleBilinearInteger in ONNX Runtime's `upsample.cc`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as combinations

import numpy as np

from .....compiler.ir import Dim, DType, Value
from ...site import Site

_BITS = 10  # of the weights of bytes with channels last
_BYTES = (DType.U8, DType.I8)
# Integers of which ONNX Runtime has kernels. Its antialiasing of signed bytes takes a table for
# unsigned ones: what is negative comes out wrong there, and differs from what is computed here.
KERNELS = (*_BYTES, DType.I32)


@dataclass(frozen=True)
class SampledLine:
    """Where the results along an axis of x are sampled: f32[out], clipped to the axis.

    low, high: the places of the elements beside them, i64[out].
    """

    axis: int
    at: Value
    low: Value
    high: Value


def bilinear_axes(x: Value, axes: Sequence[int]) -> tuple[int, ...]:
    """The axes along which integers are sampled at once where these ones are resized.

    In floats both of the picture, of which one may stay as it is. (): one after the other.
    """
    rank, first, last = x.type.rank, min(axes), max(axes)
    if x.dtype not in KERNELS:
        return ()
    if rank == 2:
        return (0, 1)
    if rank != 4 or not first or last - first > 1:
        return ()
    if x.dtype in _BYTES and first == 1:
        return tuple(axes)
    return (1, 2) if first == 1 else (2, 3)


def bilinear(s: Site, x: Value, lines: Sequence[SampledLine]) -> Value:
    """x[..., size, ...] of integers at samples of the axes that `bilinear_axes` says."""
    lines = sorted(lines, key=lambda line: line.axis)
    fixed = x.dtype in _BYTES and x.type.rank == 4 and lines[0].axis == 1
    return _in_fixed_point(s, x, lines) if fixed else _in_floats(s, x, *lines)


def _in_fixed_point(s: Site, x: Value, lines: Sequence[SampledLine]) -> Value:
    """Bytes along one or two axes: i32 sums of weights of 10 bits, divided once, truncating."""
    dtype, total = x.dtype, s.cast(x, DType.I32)
    for line in lines:
        scaled = s.cast(s.op_("mul", line.at, float(1 << _BITS)), DType.I32)
        weights = [
            s.op_("abs", s.op_("sub", scaled, s.op_("shl", s.cast(place, DType.I32), _BITS)))
            for place in (line.high, line.low)
        ]
        alone = s.op_("eq", line.low, line.high)
        first = s.op_("where", alone, 1 << _BITS, weights[0])  # at the end of the axis
        terms = [
            s.op_("mul", s.emit("gather", [total, place], axis=line.axis),
                  along(s, weight, line.axis, x.type.rank))
            for place, weight in ((line.low, first), (line.high, weights[1]))
        ]  # fmt: skip
        total = _sum(s, terms)
    return s.cast(s.op_("div", total, 1 << (_BITS * len(lines))), dtype)


def _in_floats(s: Site, x: Value, rows: SampledLine, columns: SampledLine) -> Value:
    """Integers along two axes: f32 sums of four elements, truncated."""
    rank, dtype = x.type.rank, x.dtype
    wide = s.cast(x, DType.F32)
    terms = []
    for (row, down), (column, right) in combinations(_weighed(s, rows), _weighed(s, columns)):
        corner = s.emit("gather", [wide, row], axis=rows.axis)
        corner = s.emit("gather", [corner, column], axis=columns.axis)
        weight = s.op_("mul", along(s, right, columns.axis, rank), along(s, down, rows.axis, rank))
        terms.append(s.op_("mul", weight, corner))
    return s.cast(_sum(s, terms), dtype)


def _weighed(s: Site, line: SampledLine) -> list[tuple[Value, Value]]:
    """The places beside the samples, each with its weight; half of it at the end of the axis."""
    below, above = (
        s.op_("abs", s.op_("sub", line.at, s.cast(place, DType.F32)))
        for place in (line.low, line.high)
    )
    alone = s.op_("eq", line.low, line.high)
    first, second = (s.op_("where", alone, 0.5, weight) for weight in (above, below))
    return [(line.low, first), (line.high, second)]


def _sum(s: Site, terms: Sequence[Value]) -> Value:
    total = terms[0]
    for term in terms[1:]:
        total = s.op_("add", total, term)
    return total


def saturated(s: Site, x: Value, dtype: DType, away: bool = False) -> Value:
    """Of an integer type: rounded, and kept within its range, as the standard says.

    away: of two nearest numbers to the one away from 0, not the even one.
    """
    if dtype.is_float or dtype is DType.BOOL:
        return x
    info = np.iinfo(dtype.numpy)
    whole = s.op_("round", x)
    if away:
        whole = s.op_("mul", s.op_("sign", x), s.op_("floor", s.op_("add", s.op_("abs", x), 0.5)))
    most = np.float32(info.max)
    most = np.nextafter(most, np.float32(0)) if int(most) > info.max else most
    return s.op_("min", s.op_("max", whole, float(info.min)), float(most))


def along(s: Site, vector: Value, axis: int, rank: int) -> Value:
    """A vector as a tensor of `rank` axes, of which all others are 1."""
    shape: list[Dim] = [1] * rank
    shape[axis] = vector.shape[0]
    return s.reshape(vector, shape)
