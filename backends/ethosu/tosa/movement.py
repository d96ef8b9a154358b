"""Movement, poolings and reductions in TOSA."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ....compiler.ir.graph import Node
from ....compiler.ir.rewrite import scalar
from ....compiler.ir.types import DType
from .contractions import fitted, steps_of
from .graph import Array, Tensor
from .lowering import Lowering, lowers
from .schema import ElementType, Op

_REDUCTIONS = {"reduce_sum": Op.REDUCE_SUM, "reduce_max": Op.REDUCE_MAX}
_INVERTED = np.arange(-128, 128)[::-1]  # of all bytes from -128 on


@lowers("reshape")
def reshape(low: Lowering, node: Node) -> Tensor:
    """The same elements in another shape."""
    return low.graph.reshape(low.tensor(node.inputs[0]), node.output.shape)


@lowers("transpose")
def transpose(low: Lowering, node: Node) -> Tensor:
    """Axes in another order."""
    x = low.tensor(node.inputs[0])
    return low.graph.emit(
        Op.TRANSPOSE, [x], node.output.shape, x.type, perms=list(node.attrs["perm"])
    )


@lowers("concat")
def concat(low: Lowering, node: Node) -> Tensor:
    """Tensors behind each other along an axis."""
    parts = [low.tensor(value) for value in node.inputs]
    axis = node.attrs["axis"]
    return low.graph.emit(Op.CONCAT, parts, node.output.shape, parts[0].type, axis=axis)


@lowers("slice")
def cut(low: Lowering, node: Node) -> Tensor:
    """A part; every nth element is the first of n, where an axis is whole groups of these."""
    x, attrs = low.tensor(node.inputs[0]), node.attrs
    graph = low.graph
    if min(attrs["steps"], default=1) < 0:
        return _moved(low, node)
    for axis, step in enumerate(attrs["steps"]):
        start, count = attrs["starts"][axis], int(node.output.shape[axis])
        if (start, count) == (0, x.shape[axis]):
            continue
        rows = step if start + step * count <= x.shape[axis] else 1
        x = _part(low, x, axis, start, (count - 1) * step + rows)
        if step > 1:
            if rows == 1:
                x = _padded(low, x, axis, step - 1)
            whole = (*x.shape[:axis], count, step, *x.shape[axis + 1 :])
            x = _part(low, graph.reshape(x, whole), axis + 1, 0, 1)
            x = graph.reshape(x, (*whole[: axis + 1], *whole[axis + 2 :]))
    return x


def _moved(low: Lowering, node: Node) -> Tensor:
    x = low.tensor(node.inputs[0])
    for axis, places in moved_places(node) or ():
        x = _at_places(low, x, axis, places)
    return x


def _part(low: Lowering, x: Tensor, axis: int, start: int, size: int) -> Tensor:
    if size == x.shape[axis]:
        return x
    starts, sizes = [0] * len(x.shape), list(x.shape)
    starts[axis], sizes[axis] = start, size
    return low.graph.emit(
        Op.SLICE, [x, low.graph.sizes(starts), low.graph.sizes(sizes)], sizes, x.type
    )


def _padded(low: Lowering, x: Tensor, axis: int, count: int) -> Tensor:
    margins = [0] * (2 * len(x.shape))
    margins[2 * axis + 1] = count
    return _pad(low, x, margins, 0)


def _pad(low: Lowering, x: Tensor, margins: Sequence[int], value: int) -> Tensor:
    sizes = [size + margins[2 * axis] + margins[2 * axis + 1] for axis, size in enumerate(x.shape)]
    filler = low.graph.number(value, x.type)
    return low.graph.emit(Op.PAD, [x, low.graph.sizes(margins), filler], sizes, x.type)


@lowers("pad")
def pad(low: Lowering, node: Node) -> Tensor:
    """Margins of one number; negative ones crop."""
    if node.attrs["mode"] != "constant":
        return _moved(low, node)
    x, pads = low.tensor(node.inputs[0]), node.attrs["pads"]
    rank = len(x.shape)
    for axis in range(rank):
        first, last = min(0, pads[axis]), min(0, pads[rank + axis])
        x = _part(low, x, axis, -first, x.shape[axis] + first + last)
    margins = [max(0, pads[axis + side * rank]) for axis in range(rank) for side in (0, 1)]
    value = scalar(node.inputs[1]) if len(node.inputs) > 1 else 0
    return _pad(low, x, margins, int(value or 0)) if any(margins) else x


@lowers("gather")
def picked(low: Lowering, node: Node) -> Tensor:
    """Elements at constant places along an axis: all of them several times, or parts in a row."""
    places = constant_places(node)
    assert places is not None
    x = _at_places(low, low.tensor(node.inputs[0]), node.attrs["axis"], places)
    return low.graph.reshape(x, node.output.shape)


def _at_places(low: Lowering, x: Tensor, axis: int, places: Array) -> Tensor:
    whole = (*x.shape[:axis], len(places), *x.shape[axis + 1 :])
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    count = x.shape[axis]
    x = low.graph.reshape(x, (outer, count, inner))
    if times := repeated(places, count):
        x = low.graph.reshape(x, (outer, count, 1, inner))
        x = _joined(low, [x] * times, 2)
    else:
        x = _joined(low, [_part(low, x, 1, start, size) for start, size in runs(places)], 1)
    return low.graph.reshape(x, whole)


def moved_places(node: Node) -> list[tuple[int, Array]] | None:
    """(axis, places that are read) of a `pad` that repeats elements, and of a `slice`, for the axes
    that change; None where sizes are not known."""
    source, attrs = node.inputs[0].type, node.attrs
    if not source.is_static:
        return None
    found = []
    for axis, size in enumerate(source.static_shape):
        every = np.arange(size)
        if node.op == "slice":
            start, step = attrs["starts"][axis], attrs["steps"][axis]
            places = start + step * np.arange(int(node.output.shape[axis]))
        else:
            first, last = attrs["pads"][axis], attrs["pads"][source.rank + axis]
            kept = every[max(0, -first) : size + min(0, last)]
            places = np.pad(kept, (max(0, first), max(0, last)), mode=attrs["mode"])
        if len(places) != size or (places != every).any():
            found.append((axis, places))
    return found


def _joined(low: Lowering, parts: list[Tensor], axis: int) -> Tensor:
    if len(parts) == 1:
        return parts[0]
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    return low.graph.emit(Op.CONCAT, parts, shape, parts[0].type, axis=axis)


def constant_places(node: Node) -> Array | None:
    """Where a gather reads along its axis, if that is constant."""
    places = node.inputs[1].data
    size = node.inputs[0].shape[node.attrs["axis"]]
    if places is None or not isinstance(size, int):
        return None
    places = places.reshape(-1).astype(np.int64)
    return np.where(places < 0, places + size, places)


def repeated(places: Array, count: int) -> int:
    """How many times each of so many elements is read before the next one; 0: otherwise."""
    times = len(places) // count
    whole = times * count == len(places)
    return times if whole and (places == np.arange(len(places)) // max(times, 1)).all() else 0


def runs(places: Array) -> list[tuple[int, int]]:
    """(first place, how many) of parts whose places follow each other."""
    ends = np.flatnonzero(np.diff(places) != 1) + 1
    return [(int(part[0]), len(part)) for part in np.split(places, ends)]


@lowers("broadcast_to")
def broadcast(low: Lowering, node: Node) -> Tensor:
    """Repeated along axes of one element."""
    x, shape = low.tensor(node.inputs[0]), [int(n) for n in node.output.shape]
    x = low.graph.reshape(x, (*(1,) * (len(shape) - len(x.shape)), *x.shape))
    times = [whole // size for whole, size in zip(shape, x.shape, strict=True)]
    return low.graph.emit(Op.TILE, [x, low.graph.sizes(times)], shape, x.type)


@lowers("max_pool")
def max_pool(low: Lowering, node: Node) -> Tensor:
    """The greatest of every window."""
    attrs = node.attrs
    x, pads = fitted(low, low.tensor(node.inputs[0]), node, attrs["kernel"])
    return low.emit(
        Op.MAX_POOL2D, [x], node.output.shape, DType.I8,
        kernel=list(attrs["kernel"]), stride=steps_of(node), pad=pads,
    )  # fmt: skip


@lowers("reduce_sum", "reduce_max")
def reduction(low: Lowering, node: Node) -> Tensor:
    """One axis behind the other, the last ones first."""
    return _reduced(low, low.tensor(node.inputs[0]), node, _REDUCTIONS[node.op])


@lowers("reduce_min")
def least(low: Lowering, node: Node) -> Tensor:
    """The greatest of inverted bytes, inverted: Vela 5.2 gives others for U55 and U65 else."""
    table = low.graph.constant(_INVERTED, ElementType.INT8)
    x = low.tensor(node.inputs[0])
    inverted = low.graph.emit(Op.TABLE, [x, table], x.shape, x.type)
    greatest = _reduced(low, inverted, node, Op.REDUCE_MAX)
    return low.graph.emit(Op.TABLE, [greatest, table], greatest.shape, x.type)


def _reduced(low: Lowering, x: Tensor, node: Node, op: Op) -> Tensor:
    for axis in sorted(node.attrs["axes"], reverse=True):
        shape = tuple(1 if n == axis else size for n, size in enumerate(x.shape))
        if shape != x.shape:
            x = low.graph.emit(op, [x], shape, x.type, axis=axis)
    return low.graph.reshape(x, tuple(int(n) for n in np.atleast_1d(node.output.shape)))
