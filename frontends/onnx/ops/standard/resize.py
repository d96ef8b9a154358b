"""Resize and Upsample, one axis at a time: gathers, or a matrix where antialiasing needs one.

Coordinates are computed in f32 in the order of ONNX Runtime's implementation, so that a sample
which falls between two elements falls to the same side.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import numpy as np

from .....compiler.ir import Dim, DType, Value, ceildiv, constant
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import dmax, dmin, floordiv
from ...emitter import pieces
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.windows import along_axis, row_sums
from .bilinear import KERNELS, SampledLine, along, bilinear, bilinear_axes, saturated
from .repeats import repeated, repeats

_F = DType.F32
_MODES = ("nearest", "linear", "cubic")
_CROP = "tf_crop_and_resize"


@dataclass
class Line:
    """One axis to resize: sizes, scale (f32 scalar), and the crop of tf_crop_and_resize.

    whole: `out` is the size that was asked for, not one that was rounded down from a scale.
    """

    axis: int
    size: Dim
    out: Dim
    scale: Value
    whole: bool = True
    crop: tuple[Value, Value] | None = None


@lowers("Upsample")
def upsample(s: Site) -> Value:
    x = s.input(0)
    if s.opset < 7:
        raise NotSupported("Upsample of opset 1 is not supported", "convert the model to opset 7")
    scales = constant(np.array(s.floats("scales"), np.float32)) if s.opset < 9 else s.input(1)
    return _resize(s, x, _scaled(s, x, scales, list(range(x.type.rank))), "asymmetric", "floor")


@lowers("Resize")
def resize(s: Site) -> Value:
    x = s.input(0)
    if s.opset < 11:
        lines = _scaled(s, x, s.input(1), list(range(x.type.rank)))
        return _resize(s, x, lines, "asymmetric", "by scale")
    axes = list(range(x.type.rank))
    if s.has("axes"):
        axes = s.axes(s.ints("axes"), x.type.rank)
    scales, sizes = s.optional(2), s.optional(3)
    if scales is not None and scales.type.elements != 0:
        lines = _scaled(s, x, scales, axes)
    elif sizes is not None:
        lines = _sized(s, x, sizes, axes)
    else:
        raise ValueError("neither scales nor sizes are given")
    mode = s.text("coordinate_transformation_mode", "half_pixel")
    if mode == _CROP:
        count = len(axes)
        roi = s.cast(s.counted(s.input(1), 2 * count), _F)
        for line in lines:
            place = axes.index(line.axis)
            line.crop = (s.take(roi, 0, place), s.take(roi, 0, count + place))
    return _resize(s, x, lines, mode, s.text("nearest_mode", "round_prefer_floor"))


def elements_of(s: Site, vector: Value) -> list[Value]:
    """The elements of a vector as scalars; those that a concat put there as constants stay so."""
    parts = pieces(vector)
    if len(parts) > 1:
        return [item for part in parts for item in elements_of(s, part)]
    size = vector.shape[0]
    if not isinstance(size, int):
        raise ValueError(f"{vector.type} is not a vector of known length")
    return [s.take(vector, 0, index) for index in range(size)]


def _scaled(s: Site, x: Value, scales: Value, axes: list[int]) -> list[Line]:
    parts = elements_of(s, s.cast(s.counted(scales, len(axes)), _F))
    if len(parts) != len(axes):
        raise ValueError(f"{len(parts)} scales for {len(axes)} axes")
    return [
        Line(axis, x.shape[axis], _scaled_size(s, x.shape[axis], scale), scale, False)
        for axis, scale in zip(axes, parts, strict=True)
    ]


def _scaled_size(s: Site, size: Dim, scale: Value) -> Dim:
    """floor(size * scale) in f32."""
    if scale.data is not None:
        factor = float(scale.data)
        if not 0 < factor < 1e9:
            raise ValueError(f"a scale is {factor}")
        if isinstance(size, int):
            return int(np.float32(size) * np.float32(factor))
        if factor.is_integer():
            return size * int(factor)
        if (1 / factor).is_integer():
            return floordiv(size, int(1 / factor))
    else:
        s.require_nonzero(s.op_("gt", scale, 0.0), "a scale is not positive")
    real = s.op_("mul", s.cast(_dim(s, size), _F), scale)
    whole = s.cast(s.op_("floor", real), DType.I64)
    return s.dims(s.reshape(whole, (1,)))[0]


def _dim(s: Site, dim: Dim) -> Value:
    return s.reshape(s.emitter.virtual([dim]), ())


def _sized(s: Site, x: Value, sizes: Value, axes: list[int]) -> list[Line]:
    wanted = s.dims(s.counted(sizes, len(axes)))
    if len(wanted) != len(axes):
        raise ValueError(f"{len(wanted)} sizes for {len(axes)} axes")
    for axis, out in zip(axes, wanted, strict=True):
        size = x.shape[axis]
        s.require(dmin(size, 1), AT_MOST, out, f"a size of {out}, which is not positive")
        s.require(dmin(out, 1), AT_MOST, size, f"a size of {out} from {size} elements")
    policy = s.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        return _same_ratio(s, x, wanted, axes, policy)
    lines = []
    for axis, out in zip(axes, wanted, strict=True):
        size = x.shape[axis]
        lines.append(Line(axis, size, out, _ratio(s, out, size)))
    return lines


def _ratio(s: Site, out: Dim, size: Dim) -> Value:
    """out / size in f32; 1 for an axis without elements, which stays as it is."""
    above, below = (s.cast(_dim(s, dmax(dim, 1)), _F) for dim in (out, size))
    return s.op_("div", above, below)


def _same_ratio(
    s: Site, x: Value, wanted: tuple[Dim, ...], axes: list[int], policy: str
) -> list[Line]:
    sizes = [x.shape[axis] for axis in axes]
    ratios = [_ratio(s, out, n) for out, n in zip(wanted, sizes, strict=True)]
    op = "min" if policy == "not_larger" else "max"
    ratio = reduce(lambda a, b: s.op_(op, a, b), ratios)
    lines = []
    for axis, n in zip(axes, sizes, strict=True):
        scaled = s.op_("add", s.op_("mul", ratio, s.cast(_dim(s, n), _F)), 0.5)
        whole = s.cast(s.op_("floor", scaled), DType.I64)
        lines.append(Line(axis, n, s.dims(s.reshape(whole, (1,)))[0], ratio))
    return lines


def _resize(s: Site, x: Value, lines: list[Line], mode: str, rounding: str) -> Value:
    kind = s.text("mode", "nearest")
    kind = {"bilinear": "linear"}.get(kind, kind)
    if kind not in _MODES:
        raise ValueError(f"mode '{kind}' does not exist")
    lines = [line for line in lines if not _unchanged(line)]
    if not lines:
        return x
    if kind == "nearest":
        way = (mode, rounding)
        factors = {e.axis: repeats(e.size, e.out, e.scale, way) for e in lines}
        x = repeated(s, x, factors)
        for line in lines:
            x = x if factors[line.axis] else _nearest(s, x, line, mode, rounding)
        return x
    # the last axis first, as ONNX Runtime does: it rounds between the axes of integer pictures
    lines.reverse()
    antialias, known = s.integer("antialias", 0), x.dtype in KERNELS
    if antialias and known:
        for line in lines:
            x = _antialiased(s, x, line, mode, kind)
        return x
    here = {line.axis: line for line in lines}
    axes = (
        bilinear_axes(x, list(here)) if kind == "linear" and mode != _CROP and not antialias else ()
    )
    if axes:
        return bilinear(s, x, [_samples(s, x, axis, here.get(axis), mode) for axis in axes])
    wide = x if x.dtype is DType.F64 else s.cast(x, _F)
    for line in lines:
        if antialias:
            matrix = s.cast(_filter_matrix(s, line, mode, kind), wide.dtype)
            wide = along_axis(s, matrix, wide, line.axis)
        else:
            wide = (_linear if kind == "linear" else _cubic)(s, wide, line, mode)
    truncates = known and kind == "linear"
    return s.cast(wide if truncates else saturated(s, wide, x.dtype), x.dtype)


def _samples(s: Site, x: Value, axis: int, line: Line | None, mode: str) -> SampledLine:
    """Of an axis that is resized, or stays as it is."""
    if line is None:
        line, mode = Line(axis, x.shape[axis], x.shape[axis], s.scalar(1.0, _F)), "asymmetric"
    last = s.cast(_dim(s, line.size - 1), _F)
    at = s.op_("min", s.op_("max", coordinates(s, line, mode), 0.0), last)
    low = s.op_("floor", at)
    places = (_position(s, low, line), _position(s, s.op_("add", low, 1.0), line))
    return SampledLine(axis, at, *places)


def _unchanged(line: Line) -> bool:
    one = line.scale.data is not None and float(line.scale.data) == 1.0
    return line.crop is None and line.size == line.out and (one or line.scale.data is None)


def coordinates(s: Site, line: Line, mode: str) -> Value:
    """Where the output elements lie on the input axis: f32[out]."""
    at = s.iota((line.out,), 0, _F)
    half = s.op_("sub", s.op_("div", s.op_("add", at, 0.5), line.scale), 0.5)
    size, out = (s.cast(_dim(s, dim), _F) for dim in (line.size, line.out))
    several = s.op_("gt", out, 1.0)
    if mode == "half_pixel":
        return half
    if mode == "pytorch_half_pixel":
        return s.op_("where", several, half, 0.0)
    if mode == "asymmetric":
        return s.op_("div", at, line.scale)
    if mode == "tf_half_pixel_for_nn":
        return s.op_("div", s.op_("add", at, 0.5), line.scale)
    steps = s.op_("max", s.op_("sub", out, 1.0), 1.0)
    last = s.op_("sub", size, 1.0)
    if mode == "align_corners":
        if not line.whole:  # the standard's own implementation does not round the length here
            steps = s.op_("sub", s.op_("mul", line.scale, size), 1.0)
        return s.op_("where", several, s.op_("div", s.op_("mul", at, last), steps), 0.0)
    if mode == "half_pixel_symmetric":
        adjusted = s.op_("div", out, s.op_("mul", line.scale, size))
        offset = s.op_("mul", s.op_("div", size, 2.0), s.op_("sub", 1.0, adjusted))
        return s.op_("add", offset, half)
    if mode == _CROP and line.crop is not None:
        start, end = line.crop
        span = s.op_("mul", s.op_("sub", end, start), last)
        many = s.op_("add", s.op_("mul", start, last), s.op_("div", s.op_("mul", at, span), steps))
        one = s.op_("mul", s.op_("mul", s.op_("add", start, end), 0.5), last)
        return s.op_("where", several, many, one)
    raise ValueError(f"coordinate_transformation_mode '{mode}' does not exist")


def _outside(s: Site, x: Value, line: Line, where: Value, mode: str) -> Value:
    """tf_crop_and_resize: the extrapolation value for samples that are outside of the input."""
    if mode != _CROP:
        return x
    last = s.cast(_dim(s, line.size - 1), _F)
    out = s.op_("or", s.op_("lt", where, 0.0), s.op_("gt", where, last))
    fill = s.scalar(s.real("extrapolation_value", 0.0), x.dtype)
    return s.op_("where", along(s, out, line.axis, x.type.rank), fill, x)


def _position(s: Site, real: Value, line: Line) -> Value:
    """Whole coordinates as indices that are inside of the axis."""
    last = s.cast(_dim(s, line.size - 1), _F)
    return s.cast(s.op_("min", s.op_("max", real, 0.0), last), DType.I64)


def _nearest(s: Site, x: Value, line: Line, mode: str, rounding: str) -> Value:
    where = coordinates(s, line, mode)
    if rounding == "round_prefer_floor":
        whole = s.op_("ceil", s.op_("sub", where, 0.5))
    elif rounding == "round_prefer_ceil":
        whole = s.op_("floor", s.op_("add", where, 0.5))
    elif rounding in ("floor", "ceil"):
        whole = s.op_(rounding, where)
    elif rounding == "by scale":  # before opset 11, in ONNX Runtime: up where an axis shrinks
        up, down = s.op_("ceil", where), s.op_("floor", where)
        whole = s.op_("where", s.op_("lt", line.scale, 1.0), up, down)
    else:
        raise ValueError(f"nearest_mode '{rounding}' does not exist")
    out = s.emit("gather", [x, _position(s, whole, line)], axis=line.axis)
    return _outside(s, out, line, where, mode)


def _linear(s: Site, x: Value, line: Line, mode: str) -> Value:
    where = coordinates(s, line, mode)
    last = s.cast(_dim(s, line.size - 1), _F)
    inside = s.op_("min", s.op_("max", where, 0.0), last)
    low = s.op_("floor", inside)
    weight = s.cast(along(s, s.op_("sub", inside, low), line.axis, x.type.rank), x.dtype)
    first = s.emit("gather", [x, _position(s, low, line)], axis=line.axis)
    second = s.emit("gather", [x, _position(s, s.op_("add", low, 1.0), line)], axis=line.axis)
    kept = s.op_("mul", first, s.op_("sub", 1.0, weight))
    out = s.op_("add", kept, s.op_("mul", second, weight))
    return _outside(s, out, line, where, mode)


def _cubic_filter(s: Site, distance: Value, a: float) -> Value:
    """Keys' cubic convolution kernel of |distance| with parameter a; 0 from 2 on."""
    d = s.op_("abs", distance)
    near = s.op_("mul", s.op_("sub", s.op_("mul", d, a + 2), a + 3), d)
    near = s.op_("add", s.op_("mul", near, d), 1.0)
    far = s.op_("add", s.op_("mul", s.op_("sub", d, 5.0), d), 8.0)
    far = s.op_("mul", s.op_("sub", s.op_("mul", far, d), 4.0), a)
    outer = s.op_("where", s.op_("lt", d, 2.0), far, 0.0)
    return s.op_("where", s.op_("le", d, 1.0), near, outer)


def _cubic(s: Site, x: Value, line: Line, mode: str) -> Value:
    where = coordinates(s, line, mode)
    low = s.op_("floor", where)
    a = s.real("cubic_coeff_a", -0.75)
    last = s.cast(_dim(s, line.size - 1), _F)
    places = [s.op_("add", low, float(offset)) for offset in (-1, 0, 1, 2)]
    weights = [_cubic_filter(s, s.op_("sub", where, place), a) for place in places]
    if s.integer("exclude_outside", 0):
        for i, place in enumerate(places):
            inside = s.op_("and", s.op_("ge", place, 0.0), s.op_("le", place, last))
            weights[i] = s.op_("where", inside, weights[i], 0.0)
        total = weights[0]
        for weight in weights[1:]:
            total = s.op_("add", total, weight)
        weights = [s.op_("div", weight, total) for weight in weights]
    out: Value | None = None
    for place, weight in zip(places, weights, strict=True):
        tap = s.emit("gather", [x, _position(s, place, line)], axis=line.axis)
        factor = s.cast(along(s, weight, line.axis, x.type.rank), x.dtype)
        term = s.op_("mul", tap, factor)
        out = term if out is None else s.op_("add", out, term)
    assert out is not None
    return _outside(s, out, line, where, mode)


def _antialiased(s: Site, x: Value, line: Line, mode: str, kind: str) -> Value:
    """Integers, rounded after each axis as ONNX Runtime does."""
    if x.dtype is DType.I32:
        out = along_axis(s, _filter_matrix(s, line, mode, kind), s.cast(x, _F), line.axis)
        return s.cast(saturated(s, out, x.dtype, away=True), x.dtype)
    # ONNX Runtime's (and Pillow's) integers: 22 fractional bits, sums rounded half up
    matrix = s.op_("mul", _filter_matrix(s, line, mode, kind), float(1 << 22))
    matrix = s.cast(saturated(s, matrix, DType.I32, away=True), DType.I32)
    total = along_axis(s, matrix, s.cast(x, DType.I32), line.axis)
    whole = s.op_("shr", s.op_("add", total, 1 << 21), 22)
    info = np.iinfo(x.dtype.numpy)
    return s.cast(s.op_("min", s.op_("max", whole, int(info.min)), int(info.max)), x.dtype)


def _filter_matrix(s: Site, line: Line, mode: str, kind: str) -> Value:
    """Interpolation weights f32[out, size].

    The filter is widened by the shrinking factor. What it weighs outside of the axis counts for
    the border elements, unless exclude_outside.
    """
    reach = 1.0 if kind == "linear" else 2.0
    shrink = s.op_("max", s.op_("div", 1.0, line.scale), 1.0)
    where = s.reshape(coordinates(s, line, mode), (line.out, 1))
    centre = s.op_("add", where, 0.5)
    if s.integer("exclude_outside", 0):
        margin: Dim = 0
    elif line.scale.data is not None:
        margin = int(np.ceil(reach * max(1.0, 1.0 / float(line.scale.data)))) + 1
    elif isinstance(line.size, int) and isinstance(line.out, int):
        margin = int(reach) * ceildiv(line.size, line.out) + 1
    else:
        whole = s.op_("add", s.op_("ceil", s.op_("mul", shrink, reach)), 1.0)
        margin = s.dims(s.reshape(s.cast(whole, DType.I64), (1,)))[0]
    columns = line.size + 2 * margin
    first = s.cast(_dim(s, margin), _F)
    place = s.op_("sub", s.iota((1, columns), 1, _F), first)
    distance = s.op_("add", s.op_("sub", place, centre), 0.5)
    distance = s.op_("mul", distance, s.op_("div", 1.0, shrink))
    if kind == "linear":
        weights = s.op_("max", s.op_("sub", 1.0, s.op_("abs", distance)), 0.0)
    else:
        weights = _cubic_filter(s, distance, s.real("cubic_coeff_a", -0.75))
    support = s.op_("mul", shrink, reach)  # rounding leaves more than 0 beyond it now and then
    ends = [s.op_("floor", s.op_("add", s.op_(op, centre, support), 0.5)) for op in ("sub", "add")]
    inside = s.op_("and", s.op_("ge", place, ends[0]), s.op_("lt", place, ends[1]))
    weights = s.op_("where", inside, weights, 0.0)
    total = s.op_("div", 1.0, row_sums(s, weights))
    if margin == 0:
        return s.op_("mul", weights, total)
    end = margin + line.size
    edge, below = s.slice(weights, 1, margin, margin + 1), s.slice(weights, 1, 0, margin)
    lower = row_sums(s, s.emit("concat", [edge, below], axis=1))
    weights = s.op_("where", s.op_("eq", place, 0.0), lower, weights)
    upper = row_sums(s, s.slice(weights, 1, end - 1, columns))
    last = s.cast(_dim(s, line.size - 1), _F)
    weights = s.op_("where", s.op_("eq", place, last), upper, weights)
    return s.op_("mul", s.slice(weights, 1, margin, end), total)
