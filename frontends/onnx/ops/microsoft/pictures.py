"""Operators of com.microsoft that cut pictures and signals into parts, or pool them by masks.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md and, where that is silent, its kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .....compiler.ir import Dim, DType, Value
from .....compiler.ir.assumptions import AT_MOST
from .....compiler.ir.dims import floordiv
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.run_time import signed_dims
from ..standard.nn import spread
from ..standard.pooling import pool_of
from ..standard.sampling import number, picked


@lowers("ConvTransposeWithDynamicPads", domain=MICROSOFT)
def conv_transpose_with_pads(s: Site) -> Value:
    """A transposed convolution whose pads are an input."""
    given = s.optional(2)
    pads = None if given is None else signed_dims(s, given)
    for pad in pads or ():
        s.require(0, AT_MOST, pad, f"a padding of {pad} is negative: give 0, and Pad the result")
    return spread(s, s.input(0), s.input(1), s.optional(3), pads)


@lowers("UnfoldTensor", domain=MICROSOFT)
def unfold(s: Site) -> Value:
    """Windows along an axis; their elements become the last axis."""
    x, size, step = s.input(0), s.integer("size"), s.integer("step", 1)
    axis = s.axis(s.integer("dim", -1), x.type.rank)
    if size < 0 or step < 1:
        raise ValueError(f"windows of {size} elements, {step} apart, do not exist")
    length = x.shape[axis]
    s.require(size, AT_MOST, length, f"windows of {size} elements in an axis of {length}")
    count = floordiv(length - size, step) + 1
    first = s.op_("mul", s.iota((count, 1), 0, DType.I64), step)
    places = s.op_("add", first, s.iota((1, size), 1, DType.I64))
    framed = s.emit("gather", [x, places], axis=axis)
    order = [at for at in range(framed.type.rank) if at != axis + 1]
    return s.transpose(framed, (*order, axis + 1))


@lowers("CropAndResize", domain=MICROSOFT)
def crop_and_resize(s: Site) -> Value:
    """Regions (y1, x1, y2, x2), in shares of a picture, resized to one size."""
    x, rois, batch = s.input(0), s.input(1), s.input(2)
    mode, outside = s.text("mode", "bilinear"), s.real("extrapolation_value", 0.0)
    if mode not in ("bilinear", "nearest"):
        raise ValueError(f"mode '{mode}' is neither bilinear nor nearest")
    if x.type.rank != 4 or rois.type.rank != 2:
        raise ValueError(f"pictures {x.type} and regions {rois.type} need 4 and 2 dimensions")
    rois = s.sized(rois, 1, 4)
    sizes = s.dims(s.counted(s.input(3), 2))
    count, images = rois.shape[0], s.emit("gather", [x, batch], axis=0)
    lines = [_line(s, rois, axis, x.shape[2 + axis], sizes[axis]) for axis in range(2)]
    grid = (count, *sizes)
    at = [
        s.reshape(s.expand(s.reshape(line, shape), grid), (count, sizes[0] * sizes[1]))
        for line, shape in zip(lines, ((count, sizes[0], 1), (count, 1, sizes[1])), strict=True)
    ]
    inside: Value | None = None
    for axis, place in enumerate(at):
        last = number(s, x.shape[2 + axis] - 1, DType.F32)
        here = s.op_("and", s.op_("ge", place, 0.0), s.op_("le", place, last))
        inside = here if inside is None else s.op_("and", inside, here)
    assert inside is not None
    at = [s.op_("where", inside, place, 0.0) for place in at]
    found = _resized(s, images, at, mode)
    flags = s.reshape(inside, (count, 1, inside.shape[1]))
    found = s.op_("where", flags, found, s.scalar(outside, found.dtype))
    return s.reshape(found, (count, x.shape[1], *sizes))


def _line(s: Site, rois: Value, axis: int, length: Dim, size: Dim) -> Value:
    """The coordinates [regions, size] along one axis: both ends of a region, and evenly between;
    its middle where there is one."""
    low, high = (s.slice(rois, 1, axis + end, axis + end + 1) for end in (0, 2))
    last = number(s, length - 1, DType.F32)
    steps = number(s, size - 1, DType.F32)
    step = s.iota((1, size), 1, DType.F32)
    start, end = s.op_("mul", low, last), s.op_("mul", high, last)
    scale = s.op_("div", s.op_("mul", s.op_("sub", high, low), last), s.op_("max", steps, 1.0))
    between = s.op_("add", start, s.op_("mul", step, scale))
    middle = s.op_("mul", s.op_("mul", s.op_("add", low, high), 0.5), last)
    ended = s.op_("where", s.op_("eq", step, steps), end, between)
    begun = s.op_("where", s.op_("eq", step, 0.0), start, ended)
    return s.op_("where", s.op_("eq", steps, 0.0), middle, begun)


def _resized(s: Site, images: Value, at: Sequence[Value], mode: str) -> Value:
    """The pictures [regions, c, h, w] at coordinates [regions, points] in them."""
    if mode == "nearest":  # halves go away from zero
        at = [_rounded(s, place) for place in at]
        return picked(s, images, _places(s, images, at))
    low = [s.op_("floor", place) for place in at]
    high = [s.op_("ceil", place) for place in at]
    shares = [
        s.reshape(s.op_("sub", place, floor), (place.shape[0], 1, place.shape[1]))
        for place, floor in zip(at, low, strict=True)
    ]
    rows = []
    for y in (low[0], high[0]):
        left, right = (picked(s, images, _places(s, images, (y, x))) for x in (low[1], high[1]))
        rows.append(s.op_("add", left, s.op_("mul", s.op_("sub", right, left), shares[1])))
    return s.op_("add", rows[0], s.op_("mul", s.op_("sub", rows[1], rows[0]), shares[0]))


def _rounded(s: Site, place: Value) -> Value:
    """The nearest whole number of one that is not negative; a half goes up."""
    low = s.op_("floor", place)
    return s.op_("where", s.op_("ge", s.op_("sub", place, low), 0.5), s.op_("add", low, 1.0), low)


def _places(s: Site, images: Value, at: Sequence[Value]) -> list[Value]:
    """Whole coordinates as indices, within a picture also where it has no elements."""
    return [
        s.op_("max", s.op_("min", s.cast(place, DType.I64), number(s, size - 1, DType.I64)), 0)
        for place, size in zip(at, images.shape[2:], strict=True)
    ]


@lowers("MaxpoolWithMask", domain=MICROSOFT)
def max_pool_with_mask(s: Site) -> Value:
    """The maximum of a window, whose every row ends before its first element that is masked out.

    The mask is that of one picture of one channel, which all share.
    """
    x, mask = s.input(0), s.input(1)
    rank = x.type.rank
    pool = pool_of(s, x)
    if mask.type.rank != rank:
        raise ValueError(f"a mask {mask.type} does not fit {x.type}")
    if mask.shape[:2] != (1, 1):
        raise NotSupported(
            "every picture or channel has a mask of its own", "give one mask, of shape [1, 1, ...]"
        )
    if pool.ceil_mode or any(size != 1 for size in pool.window["dilations"]):
        raise NotSupported(
            "windows with dilations, or counted upwards, are not supported",
            "give dilations of 1 and ceil_mode 0",
        )
    if pool.empty:
        return pool.nothing(s, x.dtype)
    for axis in range(2, rank):
        s.require(mask.shape[axis], "==", x.shape[axis], f"the mask {mask.type} does not fit")
    kept = _unmasked(s, mask)
    spatial, pads = rank - 2, pool.window["pads"]
    around = (0, 0, *pads[:spatial], 0, 0, *pads[spatial:])
    least = s.scalar(float(np.finfo(np.float32).min), x.dtype)
    wide = s.emit("pad", [x, least], pads=around, mode="constant")
    # padding ends no row
    shown = s.emit("pad", [kept, s.scalar(1, kept.dtype)], pads=around, mode="constant")
    shown = s.op_("ne", shown, 0)
    part = s.op_("where", shown, wide, least)
    part = s.op_("where", s.op_("gt", part, least), part, least)  # neither NaN nor -inf counts
    rows = _maxima_of_rows(s, shown, part, pool.kernel[-1])
    stride = int(pool.window["strides"][-1])  # type: ignore[arg-type]
    rows = s.slice(rows, rank - 1, 0, (pool.dims[-1] - 1) * stride + 1, stride)
    if spatial == 1:
        return rows
    return s.emit(
        "max_pool",
        [rows],
        kernel=(*pool.kernel[:-1], 1),
        strides=(*pool.window["strides"][:-1], 1),
        dilations=(1,) * spatial,
        pads=(0,) * (2 * spatial),
        ceil_mode=False,
    )


def _maxima_of_rows(s: Site, open_: Value, maxima: Value, size: int) -> Value:
    """The maxima of `size` elements of the last axis, up to the first that is not open.

    Two rows one behind the other are one of both lengths: the second counts where all of the first
    is open. So they double.
    """
    axis = maxima.type.rank - 1
    length = maxima.shape[axis]
    whole: tuple[int, Value, Value] | None = None
    one = (1, open_, maxima)

    def joined(
        a: tuple[int, Value, Value], b: tuple[int, Value, Value]
    ) -> tuple[int, Value, Value]:
        count, both = length - a[0] - b[0] + 1, a[0] + b[0]
        first, best = (s.slice(part, axis, 0, count) for part in a[1:])
        second, next_ = (s.slice(part, axis, a[0], a[0] + count) for part in b[1:])
        larger = s.op_("where", first, s.op_("max", best, next_), best)
        return both, s.op_("and", first, second), larger

    while True:
        if size & one[0]:
            whole = one if whole is None else joined(whole, one)
        if 2 * one[0] > size:
            break
        one = joined(one, one)
    assert whole is not None
    return whole[2]


def _unmasked(s: Site, mask: Value) -> Value:
    """Which elements count: the first of a picture of two or three axes does in any case."""
    kept = s.cast(s.op_("ne", mask, 0), DType.U8)
    if mask.type.rank == 3:
        return kept
    first: Value | None = None
    for axis in range(2, mask.type.rank):
        shape = [mask.shape[axis] if at == axis else 1 for at in range(mask.type.rank)]
        here = s.op_("eq", s.iota(shape, axis, DType.I64), 0)
        first = here if first is None else s.op_("and", first, here)
    assert first is not None
    return s.op_("where", first, s.scalar(1, DType.U8), kept)
