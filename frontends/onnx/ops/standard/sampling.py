"""Reading images between their elements: GridSample, AffineGrid, RoiAlign, deformable convolution.

Coordinates and weights are computed in f32 (f64 for f64 data), as in the ONNX standard.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.dims import floordiv, product
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers

_CUBIC = -0.75  # the coefficient of Keys' convolution that the standard uses


def number(s: Site, dim: Dim, dtype: DType) -> Value:
    """A dim as a scalar of an element type."""
    return s.cast(s.reshape(s.emitter.virtual([dim]), ()), dtype)


def picked(s: Site, x: Value, places: Sequence[Value]) -> Value:
    """x[n, c, places...] for i64 places [n, points] that are in range: [n, c, points]."""
    spatial = x.shape[2:]
    flat: Value | None = None
    for place, size in zip(places, spatial, strict=True):
        if flat is None:
            flat = place
        else:
            flat = s.op_("add", s.op_("mul", flat, number(s, size, DType.I64)), place)
    assert flat is not None
    points = flat.shape[-1]
    rows = s.reshape(x, (*x.shape[:2], product(spatial)))
    wide = s.expand(s.reshape(flat, (flat.shape[0], 1, points)), (*x.shape[:2], points))
    return s.emit("gather_elements", [rows, wide], axis=2)


class _Image:
    """x[n, c, ...] with what lies outside of it: zeros, border or reflection."""

    def __init__(self, s: Site, x: Value, outside: str, align: bool) -> None:
        self.s, self.x, self.outside, self.align = s, x, outside, align

    def folded(self, at: Value, axis: int) -> Value:
        """A coordinate moved into the image, if that is how its outside is defined."""
        s, size = self.s, number(self.s, self.x.shape[2 + axis], at.dtype)
        if self.outside == "border":
            return s.op_("min", s.op_("max", at, 0.0), s.op_("sub", size, 1.0))
        if self.outside != "reflection":
            return at
        low = 0.0 if self.align else -0.5
        span = s.op_("sub", size, 1.0) if self.align else size
        period = s.op_("max", s.op_("mul", span, 2.0), 1e-6)
        distance = s.op_("abs", s.op_("sub", at, low))
        turns = s.op_("floor", s.op_("div", distance, period))
        rest = s.op_("sub", distance, s.op_("mul", turns, period))
        folded = s.op_("where", s.op_("gt", rest, span), s.op_("sub", period, rest), rest)
        return s.op_("add", folded, low)

    def pixels(self, at: Sequence[Value]) -> Value:
        """The elements at whole coordinates [n, points] of every axis: [n, c, points]."""
        s, places, inside = self.s, [], None
        for axis, coordinate in enumerate(at):
            size = number(s, self.x.shape[2 + axis], coordinate.dtype)
            if self.outside == "zeros":
                within = s.op_("and", s.op_("ge", coordinate, 0.0), s.op_("lt", coordinate, size))
                inside = within if inside is None else s.op_("and", inside, within)
            else:
                coordinate = self.folded(coordinate, axis)
            last = s.op_("sub", size, 1.0)
            kept = s.op_("min", s.op_("max", coordinate, 0.0), last)
            places.append(s.cast(s.op_("where", s.op_("isnan", kept), 0.0, kept), DType.I64))
        found = picked(s, self.x, places)
        if inside is None:
            return found
        flags = s.reshape(inside, (inside.shape[0], 1, inside.shape[1]))
        return s.op_("where", flags, found, 0)


def _taps(s: Site, at: Value, mode: str) -> list[tuple[Value, Value | None]]:
    """(coordinate, weight) of the elements that make up one coordinate."""
    if mode == "nearest":
        return [(s.op_("round", at), None)]
    low = s.op_("floor", at)
    t = s.op_("sub", at, low)
    if mode == "linear":
        return [(low, s.op_("sub", 1.0, t)), (s.op_("add", low, 1.0), t)]
    a = _CUBIC

    def polynomial(x: Value, *factors: float) -> Value:
        total = s.op_("add", s.op_("mul", x, factors[0]), factors[1])
        for factor in factors[2:]:
            total = s.op_("add", s.op_("mul", total, x), factor)
        return total

    rest = s.op_("sub", 1.0, t)
    near, far = (a + 2, -(a + 3), 0.0, 1.0), (a, -5 * a, 8 * a, -4 * a)
    weights = [
        polynomial(s.op_("add", t, 1.0), *far),
        polynomial(t, *near),
        polynomial(rest, *near),
        polynomial(s.op_("add", rest, 1.0), *far),
    ]
    return [(s.op_("add", low, float(i - 1)), weight) for i, weight in enumerate(weights)]


def interpolated(s: Site, image: _Image, at: Sequence[Value], mode: str) -> Value:
    """The image at coordinates [n, points] of every axis: [n, c, points]."""
    total: Value | None = None
    for taps in combinations(*(_taps(s, coordinate, mode) for coordinate in at)):
        value = image.pixels([place for place, _ in taps])
        for _, weight in taps:
            if weight is not None:
                factor = s.reshape(weight, (weight.shape[0], 1, weight.shape[1]))
                value = s.op_("mul", value, s.cast(factor, value.dtype))
        total = value if total is None else s.op_("add", total, value)
    assert total is not None
    return total


@lowers("GridSample")
@lowers("GridSample", domain=MICROSOFT)
def grid_sample(s: Site) -> Value:
    x, grid = s.input(0), s.input(1)
    rank = x.type.rank - 2
    if grid.type.rank != x.type.rank or rank < 1:
        raise ValueError(f"a grid {grid.type} does not sample {x.type}")
    grid = s.sized(grid, -1, rank)
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(s.text("mode", "linear"))
    mode = mode or s.text("mode", "linear")
    outside, align = s.text("padding_mode", "zeros"), bool(s.integer("align_corners", 0))
    if mode not in ("linear", "cubic", "nearest") or outside not in (
        "zeros", "border", "reflection"):  # fmt: skip
        raise ValueError(f"mode '{mode}' or padding_mode '{outside}' does not exist")
    wide = DType.F64 if grid.dtype is DType.F64 else DType.F32
    points = product(grid.shape[1:-1])
    lines = s.reshape(s.cast(grid, wide), (grid.shape[0], points, rank))
    image = _Image(s, s.cast(x, wide) if x.dtype.is_float else x, outside, align)
    at = []
    for axis in range(rank):
        line, size = s.take(lines, 2, rank - 1 - axis), number(s, x.shape[2 + axis], wide)
        up = s.op_("add", line, 1.0)
        if align:
            place = s.op_("mul", s.op_("mul", up, 0.5), s.op_("sub", size, 1.0))
        else:
            place = s.op_("mul", s.op_("sub", s.op_("mul", up, size), 1.0), 0.5)
        place = s.op_("round", place) if mode == "nearest" else place
        at.append(place if mode == "cubic" else image.folded(place, axis))
    found = interpolated(s, image, at, mode)
    return s.reshape(s.cast(found, x.dtype), (*x.shape[:2], *grid.shape[1:-1]))


@lowers("AffineGrid")
def affine_grid(s: Site) -> Value:
    theta, sizes = s.input(0), s.dims(s.input(1))
    rank = len(sizes) - 2
    if rank not in (2, 3) or theta.type.rank != 3:
        raise ValueError(f"{theta.type} with {len(sizes)} sizes is no affine grid")
    shape = sizes[2:]
    rows = []
    for axis in reversed(range(rank)):
        line = [shape[a] if a == axis else 1 for a in range(rank)]
        place, size = s.iota(line, axis, DType.F32), number(s, shape[axis], DType.F32)
        if s.integer("align_corners", 0):
            last = s.op_("sub", size, 1.0)
            at = s.op_("sub", s.op_("div", s.op_("mul", place, 2.0), last), 1.0)
            at = s.op_("where", s.op_("gt", last, 0.0), at, 1.0)  # as ONNX Runtime's linspace
        else:
            odd = s.op_("add", s.op_("mul", place, 2.0), 1.0)
            at = s.op_("sub", s.op_("div", odd, size), 1.0)
        rows.append(s.reshape(s.expand(at, shape), (1, product(shape))))
    rows.append(s.expand(s.scalar(1.0, DType.F32), (1, product(shape))))
    homogeneous = s.cast(s.emit("concat", rows, axis=0), theta.dtype)
    moved = s.transpose(s.emit("matmul", [theta, homogeneous]), (0, 2, 1))
    return s.reshape(moved, (theta.shape[0], *shape, rank))


@lowers("RoiAlign")
def roi_align(s: Site) -> Value:
    """Every bin is the mean (or maximum) of bilinear samples, of which each region may have its
    own number: there is room for the most that any has.
    """
    x, rois, batch = s.input(0), s.input(1), s.input(2)
    mode = s.text("mode", "avg")
    if mode not in ("avg", "max"):
        raise ValueError(f"mode '{mode}' does not exist")
    default = "half_pixel" if s.opset >= 16 else "output_half_pixel"
    half = s.text("coordinate_transformation_mode", default) == "half_pixel"
    bins = (s.integer("output_height", 1), s.integer("output_width", 1))
    scaled = s.op_("mul", s.cast(rois, DType.F32), s.real("spatial_scale", 1.0))
    scaled = s.op_("sub", scaled, 0.5) if half else scaled
    at, inside, counts = [], [], []
    for axis, first in enumerate((1, 0)):  # regions are (x1, y1, x2, y2)
        low = s.take(scaled, 1, first)
        extent = s.op_("sub", s.take(scaled, 1, first + 2), low)
        if not half:
            extent = s.op_("max", extent, 1.0)
        places, used, count = _samples(s, low, extent, bins[axis])
        size = number(s, x.shape[2 + axis], DType.F32)
        within = s.op_("and", s.op_("ge", places, -1.0), s.op_("le", places, size))
        inside.append(s.op_("and", within, used))
        at.append(s.op_("min", s.op_("max", places, 0.0), s.op_("sub", size, 1.0)))
        counts.append(count)
    rows = s.reshape(s.transpose(s.cast(x, DType.F32), (0, 2, 3, 1)), (
        x.shape[0], x.shape[2] * x.shape[3], x.shape[1]))  # fmt: skip
    images = s.emit("gather", [rows, batch], axis=0)
    out = _pooled_samples(s, images, x.shape[2:], at, inside, counts, mode)
    return s.cast(out, x.dtype)


def _samples(s: Site, low: Value, extent: Value, bins: int) -> tuple[Value, Value, Value]:
    """Sample coordinates [rois, bins, samples], which of them are used, and how many in a bin."""
    size = s.op_("div", extent, float(bins))
    ratio = s.integer("sampling_ratio", 0)
    samples: Dim = ratio
    if ratio > 0:
        count = s.op_("add", s.op_("mul", size, 0.0), float(ratio))
    else:
        count = s.op_("max", s.op_("ceil", size), 0.0)
        most = s.op_("max", s.reduce("max", count, [0], keepdims=True), 1.0)
        (samples,) = s.dims(s.cast(most, DType.I64))
    rois = low.shape[0]

    def column(value: Value) -> Value:
        return s.reshape(value, (rois, 1, 1))

    step = s.op_("div", size, s.op_("max", count, 1.0))
    line = s.iota((1, 1, samples), 2, DType.F32)
    start = s.op_("add", column(low), s.op_(
        "mul", s.iota((1, bins, 1), 1, DType.F32), column(size)))  # fmt: skip
    places = s.op_("add", start, s.op_("mul", s.op_("add", line, 0.5), column(step)))
    used = s.op_("lt", line, column(count))
    return places, used, count


def _pooled_samples(
    s: Site,
    rows: Value,
    sizes: Sequence[Dim],
    at: list[Value],
    inside: list[Value],
    counts: list[Value],
    mode: str,
) -> Value:
    """Bilinear samples of images of some sizes, rows[rois, h * w, c], pooled over the samples of
    every bin: [rois, c, height, width]."""
    rois = rows.shape[0]
    (_, height, down), (_, width, across) = (value.shape for value in at)

    def spread(value: Value, axis: int) -> Value:
        mid = (rois, height, down, 1, 1, 1) if axis == 0 else (rois, 1, 1, width, across, 1)
        return s.reshape(value, mid)

    flags = s.op_("and", spread(inside[0], 0), spread(inside[1], 1))
    values: list[Value] = []
    lines = [_taps(s, value, "linear") for value in at]
    for taps in combinations(*lines):
        places, weights = [], []
        for axis, (place, weight) in enumerate(taps):
            assert weight is not None
            last = number(s, sizes[axis] - 1, place.dtype)
            kept = s.op_("min", s.op_("max", place, 0.0), last)
            kept = s.op_("where", s.op_("isnan", kept), 0.0, kept)
            places.append(spread(s.cast(kept, DType.I64), axis))
            weights.append(spread(weight, axis))
        flat = s.op_("add", s.op_("mul", places[0], number(s, sizes[1], DType.I64)), places[1])
        pixel = s.emit("gather_nd", [rows, flat], batch_dims=1)
        values.append(s.op_("mul", pixel, s.op_("mul", *weights)))
    total = values[0]
    for value in values[1:]:
        total = s.op_("add" if mode == "avg" else "max", total, value)
    masked = s.op_("where", flags, total, 0.0)
    if mode == "max":
        line = [s.iota((1, 1, n), 2, DType.F32) for n in (down, across)]
        live = s.op_("and", *(
            spread(s.op_("lt", line[axis], s.expand(s.reshape(counts[axis], (rois, 1, 1)), (
                rois, bins, 1))), axis) for axis, bins in enumerate((height, width))))  # fmt: skip
        masked = s.op_("where", live, masked, float("-inf"))
        pooled = s.reduce("max", masked, [2, 4], keepdims=False)
        pooled = s.op_("where", s.op_("isinf", pooled), 0.0, pooled)  # a region of no size
    else:
        amount = s.op_("max", s.op_("mul", counts[0], counts[1]), 1.0)
        pooled = s.reduce("sum", masked, [2, 4], keepdims=False)
        pooled = s.op_("div", pooled, s.reshape(amount, (rois, 1, 1, 1)))
    return s.transpose(pooled, (0, 3, 1, 2))


@lowers("DeformConv")
def deformable_convolution(s: Site) -> Value:
    """Sample every tap of every window where its offset says, then multiply by the filters."""
    x, w, offset = s.input(0), s.input(1), s.input(2)
    bias, mask = s.optional(3), s.optional(4)
    rank, groups, shared = x.type.rank - 2, s.integer("group", 1), s.integer("offset_group", 1)
    n, channels = x.shape[:2]
    kernel, spatial = w.shape[2:], offset.shape[2:]
    strides, dilations = s.ints("strides", [1] * rank), s.ints("dilations", [1] * rank)
    pads = s.ints("pads", [0] * (2 * rank))
    if any(not isinstance(size, int) for size in kernel):
        raise NotSupported("the size of its filters is known at run time only")
    taps = product(kernel)
    lead = (n, shared, *kernel)
    moves = s.reshape(offset, (*lead, rank, *spatial))
    at = []
    for axis in range(rank):
        base = s.op_("sub", s.op_("mul", s.iota(
            [spatial[a] if a == axis else 1 for a in range(rank)], axis, DType.F32),
            float(strides[axis])), float(pads[axis]))  # fmt: skip
        tap = s.iota([kernel[a] if a == axis else 1 for a in range(rank)], axis, DType.F32)
        tap = s.op_("mul", tap, float(dilations[axis]))
        whole = s.op_("add", s.reshape(tap, (*tap.shape, *(1,) * rank)), base)
        place = s.op_("add", s.cast(s.take(moves, 2 + rank, axis), DType.F32), whole)
        at.append(s.reshape(place, (n * shared, taps * product(spatial))))
    per_offset = floordiv(channels, shared)
    images = s.reshape(s.cast(x, DType.F32), (n * shared, per_offset, *x.shape[2:]))
    found = interpolated(s, _Image(s, images, "zeros", True), at, "linear")
    columns = s.reshape(found, (n, shared, per_offset, taps, product(spatial)))
    if mask is not None:
        weights = s.reshape(s.cast(mask, DType.F32), (n, shared, 1, taps, product(spatial)))
        columns = s.op_("mul", columns, weights)
    inner = floordiv(channels, groups) * taps
    columns = s.reshape(columns, (n, groups, inner, product(spatial)))
    filters = s.reshape(s.cast(w, DType.F32), (1, groups, floordiv(w.shape[0], groups), inner))
    out = s.reshape(s.emit("matmul", [filters, columns]), (n, w.shape[0], *spatial))
    if bias is not None:
        out = s.op_("add", out, s.reshape(s.cast(bias, DType.F32), (*bias.shape, *(1,) * rank)))
    return s.cast(out, x.dtype)
