"""Windows taken apart and put together: Col2Im, the places of maxima, MaxUnpool, MaxRoiPool."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product as combinations

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import AT_MOST, EQUAL
from .....compiler.ir.dims import floordiv, product
from ...site import Site
from ...table import lowers
from .math import lowest
from .movement import pad_value
from .sampling import number

_MOST_TAPS = 64  # of a block, whose elements are added as whole planes


def _line(s: Site, size: Dim, axis: int, rank: int) -> Value:
    """0, 1, 2, ... as i64 along one of `rank` axes."""
    return s.iota([size if a == axis else 1 for a in range(rank)], axis, DType.I64)


def _flat_places(
    s: Site, sizes: Sequence[Dim], places: Sequence[Value], column_major: bool = False
) -> Value:
    """The place in an image of the given sizes of one coordinate per axis."""
    order = range(len(sizes))
    flat: Value | None = None
    for axis in reversed(order) if column_major else order:
        if flat is None:
            flat = places[axis]
        else:
            scaled = s.op_("mul", flat, number(s, sizes[axis], DType.I64))
            flat = s.op_("add", scaled, places[axis])
    assert flat is not None
    return flat


def _within(s: Site, places: Sequence[Value], sizes: Sequence[Dim]) -> Value:
    inside: Value | None = None
    for place, size in zip(places, sizes, strict=True):
        edge = number(s, size, DType.I64)
        here = s.op_("and", s.op_("ge", place, 0), s.op_("lt", place, edge))
        inside = here if inside is None else s.op_("and", inside, here)
    assert inside is not None
    return inside


def _clamped(s: Site, places: Sequence[Value], sizes: Sequence[Dim]) -> list[Value]:
    return [
        s.op_("max", s.op_("min", place, number(s, size - 1, DType.I64)), 0)
        for place, size in zip(places, sizes, strict=True)
    ]


@lowers("Col2Im")
def columns_to_image(s: Site) -> Value:
    """Add the elements of every block where they came from."""
    x, declared = s.input(0), s.declared_rank()
    known = None if declared is None else declared - 2
    for value in (s.input(1), s.input(2)):
        known = value.type.static_shape[0] if value.type.is_static and value.type.rank else known
    sizes, block = (s.dims(s.counted(s.input(i), known)) for i in (1, 2))
    rank = len(sizes)
    strides, dilations = s.ints("strides", [1] * rank), s.ints("dilations", [1] * rank)
    pads = s.ints("pads", [0] * (2 * rank))
    counts, places = [], []
    for axis in range(rank):
        span = dilations[axis] * (block[axis] - 1) + 1
        whole = sizes[axis] + pads[axis] + pads[rank + axis]
        s.require(span, AT_MOST, whole, f"blocks that span {span} in an image of {whole}")
        counts.append(floordiv(whole - span, strides[axis]) + 1)
        tap = s.op_("mul", _line(s, block[axis], axis, 2 * rank), dilations[axis])
        window = s.op_("mul", _line(s, counts[axis], rank + axis, 2 * rank), strides[axis])
        places.append(s.op_("sub", s.op_("add", tap, window), pads[axis]))
    inside = _within(s, places, sizes)
    flat = _flat_places(s, sizes, _clamped(s, places, sizes))
    n, channels = x.shape[0], floordiv(x.shape[1], product(block))
    taps = product(block)
    if all(isinstance(d, int) for d in sizes) and isinstance(taps, int) and taps <= _MOST_TAPS:
        offsets = [
            [tap * dilations[axis] - pads[axis] for tap in range(size)]
            for axis, size in enumerate(block)
            if isinstance(size, int)
        ]
        planes = s.reshape(x, (n, channels, *block, *counts))
        return _added_planes(s, planes, offsets, strides, sizes)
    shape = (n, channels, *block, *counts)
    values = s.op_("where", inside, s.reshape(x, shape), 0)
    line = (n, channels, product(block) * product(counts))
    image = s.expand(s.scalar(0, x.dtype), (n, channels, product(sizes)))
    total = s.emit(
        "scatter_elements",
        [image, s.reshape(s.expand(flat, shape), line), s.reshape(values, line)],
        axis=2,
        reduction="add",
    )
    return s.reshape(total, (n, channels, *sizes))


def _added_planes(
    s: Site,
    x: Value,
    offsets: Sequence[Sequence[int]],
    strides: Sequence[int],
    sizes: Sequence[Dim],
) -> Value:
    """The sum of planes x[n, channels, taps..., counts...] in images of the given sizes.

    offsets: of every axis, where the first element of the planes of a tap lies; strides: how far
    the elements of a plane lie apart.
    """
    counts = x.shape[2 + len(sizes) :]
    total: Value | None = None
    for taps in combinations(*(range(len(places)) for places in offsets)):
        plane = x
        for tap in taps:
            plane = s.take(plane, 2, tap)
        for axis, stride in enumerate(strides):
            if stride > 1:
                plane = _spread(s, plane, 2 + axis, stride)
        before = [offsets[axis][tap] for axis, tap in enumerate(taps)]
        behind = [
            size - first - ((count - 1) * stride + 1)
            for size, first, count, stride in zip(sizes, before, counts, strides, strict=True)
        ]
        whole = pad_value(s, plane, [0, 0, *before, 0, 0, *behind], "constant")
        total = whole if total is None else s.op_("add", total, whole)
    assert total is not None
    return total


def _spread(s: Site, x: Value, axis: int, stride: int) -> Value:
    """The elements along an axis with stride - 1 zeros between them."""
    shape, rank = x.shape, x.type.rank
    wide = s.reshape(x, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    pads: list[Dim] = [0] * (2 * (rank + 1))
    pads[rank + 1 + axis + 1] = stride - 1
    wide = pad_value(s, wide, pads, "constant")
    long = s.reshape(wide, (*shape[:axis], shape[axis] * stride, *shape[axis + 1 :]))
    return s.slice(long, axis, 0, shape[axis] * stride - stride + 1)


def _number(s: Site, dim: Dim) -> Value:
    return s.reshape(s.emitter.virtual([dim]), ())


def places_of_maxima(
    s: Site, x: Value, kernel: Sequence[int], window: dict[str, tuple[Dim, ...]], out: Value
) -> Value:
    """For every element of a max pooling's result, where in x (as a flat place) it comes from."""
    sizes, counts, rank = x.shape[2:], out.shape[2:], len(kernel)
    places = []
    for axis in range(rank):
        stride, dilation, pad = (
            _number(s, window[name][axis]) for name in ("strides", "dilations", "pads")
        )
        start = s.op_("mul", _line(s, counts[axis], axis, 2 * rank), stride)
        tap = s.op_("mul", _line(s, kernel[axis], rank + axis, 2 * rank), dilation)
        places.append(s.op_("sub", s.op_("add", start, tap), pad))
    inside = _within(s, places, sizes)
    kept = _clamped(s, places, sizes)
    lead, taps = x.shape[:2], product(kernel)
    spots = (product(counts), taps)
    grid = (*counts, *kernel)
    flat = s.reshape(s.expand(_flat_places(s, sizes, kept), grid), (1, 1, product(spots)))
    rows = s.reshape(x, (*lead, product(sizes)))
    found = s.emit("gather_elements", [rows, s.expand(flat, (*lead, product(spots)))], axis=2)
    inside = s.reshape(s.expand(inside, grid), (1, 1, *spots))
    values = s.op_("where", inside, s.reshape(found, (*lead, *spots)), lowest(s, x.dtype))
    top = s.op_("eq", values, s.reduce("max", values, [3]))
    rank_of = s.op_("add", s.cast(s.op_("and", top, inside), DType.U8), s.cast(inside, DType.U8))
    best = s.emit("argmax", [rank_of], axis=3, keepdims=False)  # never in the padding
    column_major = bool(s.integer("storage_order", 0))
    stored = _flat_places(s, sizes, kept, column_major)
    chosen = s.reshape(s.expand(stored, grid), (product(spots),))
    spot = s.op_("mul", _line(s, spots[0], 2, 3), number(s, taps, DType.I64))
    place = s.emit("gather", [chosen, s.op_("add", best, spot)], axis=0)
    image = s.op_("add", s.op_("mul", _line(s, lead[0], 0, 3), number(
        s, lead[1], DType.I64)), _line(s, lead[1], 1, 3))  # fmt: skip
    offset = s.op_("mul", image, number(s, product(sizes), DType.I64))
    return s.reshape(s.op_("add", place, offset), out.shape)


@lowers("MaxUnpool")
def max_unpool(s: Site) -> Value:
    """Maxima back where they came from.

    Places are in the smallest output; a larger output shape adds zeros behind. Those of a MaxPool
    are in its input, which is the output of that shape: so ONNX Runtime takes them.
    """
    x, places = s.input(0), s.input(1)
    kernel, rank = s.ints("kernel_shape"), x.type.rank - 2
    strides, pads = s.ints("strides", [1] * rank), s.ints("pads", [0] * (2 * rank))
    sizes = tuple(
        (x.shape[2 + i] - 1) * strides[i] - pads[i] - pads[rank + i] + kernel[i]
        for i in range(rank)
    )
    shape = (*x.shape[:2], *sizes)
    if s.optional(2) is None:
        return _scattered(s, x, places, shape)
    wanted = s.dims(s.input(2))
    for size, dim in zip(wanted, shape, strict=True):
        s.require(dim, AT_MOST, size, f"an output of {size} for what needs {dim}")
    pooled = s.emitter.places_in.get(places, shape)
    if pooled != shape:
        for size, dim in zip(wanted, pooled, strict=True):
            why = f"an output of {size} for places in an input of a pool of {dim}: give its shape"
            s.require(size, EQUAL, dim, why)
        return _scattered(s, x, places, pooled)
    behind = [w - d for w, d in zip(wanted, shape, strict=True)]
    image = _scattered(s, x, places, shape)
    return s.reshape(pad_value(s, image, [0] * len(shape) + behind, "constant"), wanted)


def _scattered(s: Site, x: Value, places: Value, shape: Sequence[Dim]) -> Value:
    """Elements at places that count through all of a tensor of zeros."""
    empty = s.expand(s.scalar(0, x.dtype), (product(shape),))
    flat = [s.reshape(value, (product(x.shape),)) for value in (places, x)]
    filled = s.emit("scatter_elements", [empty, *flat], axis=0, reduction="none")
    return s.reshape(filled, shape)


def _rounded_away(s: Site, x: Value) -> Value:
    """To the nearest whole numbers, of two the one further from 0: C's round."""
    nearest = s.op_("floor", s.op_("add", s.op_("abs", x), 0.5))
    return s.op_("mul", s.op_("sign", x), nearest)


@lowers("MaxRoiPool")
def max_roi_pool(s: Site) -> Value:
    """The largest element of every bin of regions (batch, x1, y1, x2, y2), ends included."""
    x, rois = s.input(0), s.input(1)
    bins, scale = s.ints("pooled_shape"), s.real("spatial_scale", 1.0)
    count = rois.shape[0]
    batch = s.cast(s.take(rois, 1, 0), DType.I64)
    hits = []
    for axis, first in enumerate((2, 1)):
        ends = [
            _rounded_away(s, s.op_("mul", s.take(rois, 1, column), scale))
            for column in (first, first + 2)
        ]
        size = number(s, x.shape[2 + axis], rois.dtype)
        extent = s.op_("max", s.op_("add", s.op_("sub", ends[1], ends[0]), 1.0), 1.0)
        step = s.reshape(s.op_("div", extent, float(bins[axis])), (count, 1))
        line = s.iota((1, bins[axis]), 1, rois.dtype)
        origin = s.reshape(ends[0], (count, 1))
        low = s.op_("add", s.op_("floor", s.op_("mul", line, step)), origin)
        high = s.op_("mul", s.op_("add", line, 1.0), step)
        high = s.op_("add", s.op_("ceil", high), origin)
        low, high = (s.op_("min", s.op_("max", v, 0.0), size) for v in (low, high))
        at = s.iota((1, 1, x.shape[2 + axis]), 2, rois.dtype)
        low, high = (s.reshape(v, (count, bins[axis], 1)) for v in (low, high))
        hits.append(s.op_("and", s.op_("ge", at, low), s.op_("lt", at, high)))
    images = s.emit("gather", [x, batch], axis=0)
    n, c, h, w = images.shape
    # rows of a bin first, in vectors along them; then what is left of its columns
    down = s.reshape(hits[0], (n, 1, bins[0], h, 1))
    least = lowest(s, x.dtype)
    rows = s.op_("where", down, s.reshape(images, (n, c, 1, h, w)), least)
    rows = s.reduce("max", rows, [3], keepdims=False)
    across = s.reshape(hits[1], (n, 1, 1, bins[1], w))
    best = s.op_("where", across, s.reshape(rows, (n, c, bins[0], 1, w)), least)
    best = s.reduce("max", best, [4], keepdims=False)
    some = s.op_(
        "and",
        s.reshape(s.reduce("max", hits[0], [2], keepdims=False), (n, 1, bins[0], 1)),
        s.reshape(s.reduce("max", hits[1], [2], keepdims=False), (n, 1, 1, bins[1])),
    )
    return s.op_("where", some, best, 0)
