"""Operators that move elements: shapes, axes, concatenation, slices, padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .....compiler.ir import Dim, DType, Value, constant
from .....compiler.ir.assumptions import AT_MOST, EQUAL, ONE_OR_EQUAL, OTHER, Assumption
from .....compiler.ir.dims import dmax, floordiv, is_never_one, product
from ...broadcasting import common_shape
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.run_time import (
    TOO_MUCH,
    axes_of_rank,
    is_known,
    shape_at_run_time,
    signed_dims,
    spread_pads,
    with_axes,
    without_axes,
)


@lowers("Shape")
def shape(s: Site) -> Value:
    dims = s.input(0).shape
    start, stop = s.integer("start", 0), s.integer("end", len(dims))
    return s.emitter.virtual(list(dims[slice(start, stop)]))


@lowers("Size")
def size(s: Site) -> Value:
    return s.emitter.virtual(product(s.input(0).shape))


@lowers("Reshape")
def reshape(s: Site) -> Value:
    x = s.input(0)
    keep_zero = bool(s.integer("allowzero", 0))
    if s.opset >= 5 and s.known(s.input(1)) is None:
        given = s.counted(s.input(1), s.declared_rank())
        return s.reshape(x, shape_at_run_time(s, x, given, keep_zero))
    wanted = s.ints("shape") if s.opset < 5 else s.dims(s.input(1))
    return s.reshape(x, resolve_shape(x.shape, wanted, keep_zero))


def resolve_shape(shape: Sequence[Dim], wanted: Sequence[Dim], keep_zero: bool) -> tuple[Dim, ...]:
    """The target of Reshape with its 0 (copy a dim) and -1 (what is left) filled in.

    Raises ValueError when it cannot hold the elements.
    """
    out: list[Dim] = []
    for axis, dim in enumerate(wanted):
        if dim == 0 and not keep_zero:
            if axis >= len(shape):
                raise ValueError(f"0 at axis {axis} copies a dimension that is not there")
            dim = shape[axis]
        out.append(dim)
    holes = [axis for axis, dim in enumerate(out) if dim == -1]
    if len(holes) > 1 or any(isinstance(dim, int) and dim < -1 for dim in out):
        raise ValueError(f"the shape {list(map(str, wanted))} is not valid")
    if holes:
        rest = product(dim for dim in out if dim != -1)
        total = product(shape)
        if rest == 0:
            raise ValueError("-1 beside a dimension of 0 can be anything")
        hole = _divided(shape, [dim for dim in out if dim != -1])
        if isinstance(hole, int) and isinstance(rest, int) and hole * rest != total:
            raise ValueError(f"{total} elements do not divide into {rest}")
        out[holes[0]] = hole
    return tuple(out)


def _divided(numerator: Sequence[Dim], denominator: Sequence[Dim]) -> Dim:
    """The quotient of two products; factors that are on both sides go first."""
    top, bottom = list(numerator), []
    for dim in denominator:
        if dim in top:
            top.remove(dim)
        else:
            bottom.append(dim)
    return floordiv(product(top), product(bottom))


@lowers("Flatten")
def flatten(s: Site) -> Value:
    x = s.input(0)
    axis = s.integer("axis", 1)
    if not -x.type.rank <= axis <= x.type.rank:
        raise ValueError(f"axis {axis} is out of range for {x.type.rank} dimensions")
    axis = axis + x.type.rank if axis < 0 else axis
    return s.reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))


@lowers("Squeeze")
def squeeze(s: Site) -> Value:
    x = s.input(0)
    rank = x.type.rank
    given = s.optional(1)
    if s.opset >= 13 and given is not None:
        if not is_known(s, given):
            return s.reshape(x, without_axes(s, x, axes_of_rank(s, given, rank)))
        chosen = s.numbers(given, "axes")
        axes = s.axes(chosen, rank) if chosen else _axes_of_one(s, x)
    elif s.opset < 13 and s.has("axes"):
        axes = s.axes(s.ints("axes"), rank)
    else:
        axes = _axes_of_one(s, x)
    for axis in axes:
        if isinstance(x.shape[axis], int) and x.shape[axis] != 1:
            raise ValueError(f"axis {axis} of {x.type} is not 1")
    return s.reshape(x, [dim for axis, dim in enumerate(x.shape) if axis not in axes])


def _axes_of_one(s: Site, x: Value) -> list[int]:
    """All axes of size 1.

    The rank is fixed at import: sizes that only a run knows are other than 1, unless the rank that
    the model declares says that they all are; a run in which that does not hold ends.
    """
    ones = [axis for axis, dim in enumerate(x.shape) if dim == 1]
    open_ = [axis for axis, dim in enumerate(x.shape) if not is_never_one(dim) and dim != 1]
    declared = s.declared_rank()
    if open_ and declared == x.type.rank - len(ones) - len(open_):
        return sorted(ones + open_)
    for axis in open_:
        dim = x.shape[axis]
        what = (
            f"node '{s.emitter.name}' (Squeeze) is compiled for sizes other than 1 where the model "
            f"does not say them, and {dim} decides how many dimensions remain; pin it with --shape"
        )
        attrs = {"relation": OTHER, "left": dim, "right": 1, "what": what}
        s.emitter.emit_node("check_dims", [], attrs)
    return ones


@lowers("Unsqueeze")
def unsqueeze(s: Site) -> Value:
    x = s.input(0)
    if s.opset >= 13 and not is_known(s, s.input(1)):
        given = axes_of_rank(s, s.input(1), x.type.rank, added=True)
        return s.reshape(x, with_axes(s, x, given))
    axes = s.numbers(s.input(1), "axes") if s.opset >= 13 else s.ints("axes")
    rank = x.type.rank + len(axes)
    places = s.axes(axes, rank)
    rest = iter(x.shape)
    return s.reshape(x, [1 if axis in places else next(rest) for axis in range(rank)])


@lowers("Transpose")
def transpose(s: Site) -> Value:
    x = s.input(0)
    perm = s.ints("perm", range(x.type.rank)[::-1])
    if sorted(perm) != list(range(x.type.rank)):
        raise ValueError(f"perm {perm} is no permutation of {x.type.rank} axes")
    return s.transpose(x, perm)


@lowers("Concat")
def concat(s: Site) -> Value:
    values = [s.input(i) for i in range(len(s.inputs))]
    axis = s.integer("axis", 1) if s.opset < 4 else s.integer("axis")
    axis = s.axis(axis, values[0].type.rank)
    return s.emit("concat", values, axis=axis)


@lowers("Expand")
def expand(s: Site) -> Value:
    x = s.input(0)
    wanted = _wanted_dims(s, s.input(1), x.type.rank)
    if any(isinstance(dim, int) and dim < 0 for dim in wanted):
        raise ValueError(f"the shape {list(map(str, wanted))} has negative dimensions")
    shape = common_shape(x.shape, wanted)
    for size, dim in zip(reversed(wanted), reversed(shape), strict=False):
        if size not in (1, dim):
            _check_wanted(s, size, dim)
    return s.expand(x, shape)


def _wanted_dims(s: Site, shape: Value, rank: int) -> tuple[Dim, ...]:
    """The shape that a tensor of a rank is to be expanded to.

    Where its length is left open the result has as many dimensions as the model declares, if these
    are more than the tensor has, or else as the tensor: a shorter shape is that of the last ones.
    """
    declared = s.declared_rank() or 0
    if shape.type.rank != 1 or shape.type.is_static or declared > rank:
        return s.dims(s.counted(shape, declared))
    length = shape.shape[0]
    why = f"its result is compiled for {rank} dimensions; declare its shape in the model for more"
    s.require(length, AT_MOST, rank, why)
    ones = constant(np.ones(rank, np.int64))
    filled = s.emit("concat", [ones, s.cast(shape, DType.I64)], axis=0)
    return s.dims(s.slice(filled, 0, length, length + rank))


def _check_wanted(s: Site, size: Dim, dim: Dim) -> None:
    """The wanted size may be 1 where the operand's dim stays."""
    needed = Assumption(ONE_OR_EQUAL, size, dim)
    what = f"node '{s.emitter.name}' (Expand) needs {needed}"
    attrs = {"relation": ONE_OR_EQUAL, "left": size, "right": dim, "what": what}
    s.emitter.emit_node("check_dims", [], attrs)


@lowers("Tile")
def tile(s: Site) -> Value:
    x = s.input(0)
    if s.opset < 6:
        raise NotSupported("Tile of opset 1 is not supported", "convert the model to opset 7")
    repeats = s.dims(s.counted(s.input(1), x.type.rank))
    if len(repeats) != x.type.rank:
        raise ValueError(f"{len(repeats)} repeats for {x.type.rank} dimensions")
    if any(isinstance(count, int) and count < 0 for count in repeats):
        raise ValueError(f"repeats {list(map(str, repeats))} are negative")
    apart: list[Dim] = []
    spread: list[Dim] = []
    for dim, count in zip(x.shape, repeats, strict=True):
        apart += [dim] if count == 1 else [1, dim]
        spread += [dim] if count == 1 else [count, dim]
    wide = s.expand(s.reshape(x, apart), spread)
    return s.reshape(wide, [d * r for d, r in zip(x.shape, repeats, strict=True)])


@lowers("Split")
def split(s: Site) -> list[Value]:
    x = s.input(0)
    axis = s.axis(s.integer("axis", 0), x.type.rank)
    total, count = x.shape[axis], len(s.node.output)
    given = s.optional(1)
    sizes: Sequence[Dim]
    if s.opset >= 13 and given is not None:
        sizes = s.dims(s.counted(given, count))
    elif s.opset < 13 and s.has("split"):
        sizes = s.ints("split")
    else:
        if s.integer("num_outputs", count) != count:
            raise ValueError(f"num_outputs is not {count}")
        part = -floordiv(-total, count) if s.opset >= 18 else floordiv(total, count)
        last = total - part * (count - 1)
        if s.opset < 18:
            s.require(last, EQUAL, part, f"{total} elements in {count} equal parts")
        s.require(0, AT_MOST, last, f"{total} elements in {count} parts")
        sizes = [part] * (count - 1) + [last]
    if len(sizes) != count or any(isinstance(n, int) and n < 0 for n in sizes):
        raise ValueError(f"the sizes {list(map(str, sizes))} do not make {count} outputs")
    s.require(sum(sizes), EQUAL, total, f"sizes {', '.join(map(str, sizes))} of {total} elements")
    parts, start = [], 0
    for n in sizes:
        parts.append(s.slice(x, axis, start, start + n))
        start = start + n  # type: ignore[assignment]
    return parts


@lowers("Pad")
def pad(s: Site) -> Value:
    x = s.input(0)
    rank = x.type.rank
    mode = s.text("mode", "constant")
    value: Value | None = None
    axes = list(range(rank))
    if s.opset < 11:
        pads: Sequence[Dim] = s.ints("paddings" if s.opset < 2 else "pads")
        value = s.scalar(s.real("value", 0.0), x.dtype)
    else:
        value, given = s.optional(2), s.optional(3)
        if given is not None and not is_known(s, given):
            pads = signed_dims(s, spread_pads(s, s.input(1), given, rank))
        else:
            axes = axes if given is None else s.axes(s.numbers(given, "axes"), rank)
            pads = signed_dims(s, s.counted(s.input(1), 2 * len(axes)))
    if len(pads) != 2 * len(axes):
        raise ValueError(f"{len(pads)} pads for {len(axes)} axes")
    full: list[Dim] = [0] * (2 * rank)
    for place, axis in enumerate(axes):
        full[axis], full[rank + axis] = pads[place], pads[len(axes) + place]
    return pad_value(s, x, full, mode, value)


def pad_value(
    s: Site, x: Value, pads: Sequence[Dim], mode: str, value: Value | None = None
) -> Value:
    """x padded (begins, then ends); negative pads crop, in all modes but "constant" before others
    pad.
    """
    rank = x.type.rank
    widths = list(pads)
    for axis in range(rank):
        low, high = pads[axis], pads[rank + axis]
        if mode == "constant" and not (_crops(low) and _crops(high)):
            continue
        cut_low, cut_high = dmax(-low, 0), dmax(-high, 0)
        size = x.shape[axis] - cut_high
        if isinstance(size, int) and isinstance(cut_low, int) and size < cut_low:
            raise ValueError(f"axis {axis} of {x.type} cannot be cropped that much")
        x = s.slice(x, axis, cut_low, size)
        widths[axis], widths[rank + axis] = dmax(low, 0), dmax(high, 0)
    if all(width == 0 for width in widths):
        return x
    if mode != "constant":
        return s.emit("pad", [x], pads=tuple(widths), mode=mode)
    fill = s.scalar(0, x.dtype) if value is None else s.reshape(value, ())
    return s.emit("pad", [x, fill], pads=tuple(widths), mode="constant")


def _crops(pad: Dim) -> bool:
    return isinstance(pad, int) and pad <= 0


@lowers("DepthToSpace")
def depth_to_space(s: Site) -> Value:
    x, block = s.input(0), s.integer("blocksize")
    n, c, h, w = _picture(x, block)
    if isinstance(c, int) and c % (block * block):
        raise ValueError(f"{c} channels do not divide into blocks of {block} x {block}")
    depth = floordiv(c, block * block)
    if s.text("mode", "DCR") == "DCR":
        apart = s.reshape(x, (n, block, block, depth, h, w))
        moved = s.transpose(apart, (0, 3, 4, 1, 5, 2))
    else:
        apart = s.reshape(x, (n, depth, block, block, h, w))
        moved = s.transpose(apart, (0, 1, 4, 2, 5, 3))
    return s.reshape(moved, (n, depth, h * block, w * block))


@lowers("SpaceToDepth")
def space_to_depth(s: Site) -> Value:
    x, block = s.input(0), s.integer("blocksize")
    n, c, h, w = _picture(x, block)
    apart = s.reshape(x, (n, c, floordiv(h, block), block, floordiv(w, block), block))
    # DCR: the block's position varies slowest in the channels; CRD: the channel does
    blocks_first = s.text("mode", "DCR") == "DCR"
    moved = s.transpose(apart, (0, 3, 5, 1, 2, 4) if blocks_first else (0, 1, 3, 5, 2, 4))
    return s.reshape(moved, (n, c * block * block, floordiv(h, block), floordiv(w, block)))


def _picture(x: Value, block: int) -> tuple[Dim, ...]:
    if x.type.rank != 4 or block < 1:
        raise ValueError(f"{x.type} cannot be cut into blocks of size {block}")
    return x.shape


@lowers("Trilu")
@lowers("Trilu", domain=MICROSOFT)
def triangle(s: Site) -> Value:
    x = s.input(0)
    if x.type.rank < 2:
        raise ValueError(f"{x.type} is no matrix")
    given = s.optional(1)
    k = s.scalar(0, DType.I64) if given is None else s.reshape(given, ())
    k = s.op_("min", s.op_("max", k, -TOO_MUCH), TOO_MUCH)
    grid = x.shape[-2:]
    edge = s.op_("add", s.iota((grid[0], 1), 0, DType.I64), k)
    column = s.iota((1, grid[1]), 1, DType.I64)
    keep = s.op_("ge" if s.integer("upper", 1) else "le", column, edge)
    return s.op_("where", keep, x, False if x.dtype is DType.BOOL else 0)
