"""Simplification of operators that move elements."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....compiler.ir.dims import Dim
from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar

RULES = Rules()
SMALL = 4096  # elements: constants up to this size are joined and indexed at compile time


def without_ones(shape: Sequence[Dim], perm: Sequence[int]) -> list[int]:
    """The permuted axes that are not of size 1."""
    return [axis for axis in perm if shape[axis] != 1]


def keeps_order(shape: Sequence[Dim], perm: Sequence[int]) -> bool:
    """Whether a transpose moves axes of size 1 only, so that elements stay in order."""
    moved = without_ones(shape, perm)
    return moved == sorted(moved)


@RULES.on("transpose")
def transpose(node: Node, rw: Rewriter) -> Replacement:
    """Transposes of transposes are composed; what keeps the elements in order is a reshape."""
    x, perm = node.inputs[0], node.attrs["perm"]
    if list(perm) == list(range(len(perm))):
        return x
    if x.data is not None:
        return constant(np.transpose(x.data, perm), x.name)  # a view: nothing is copied
    if keeps_order(x.shape, perm):
        return rw.emit("reshape", [x], {"shape": node.output.shape})
    inner = rw.producer(x, "transpose")
    if inner is None:
        return None
    first = inner.attrs["perm"]
    composed = tuple(first[axis] for axis in perm)
    return rw.emit("transpose", [inner.inputs[0]], {"perm": composed})


@RULES.on("reshape")
def reshape(node: Node, rw: Rewriter) -> Replacement:
    """A reshape to the same shape goes; only the last of a chain stays."""
    x = node.inputs[0]
    if x.shape == node.output.shape:
        return x
    inner = rw.producer(x, "reshape")
    if inner is None:
        return None
    return rw.emit("reshape", [inner.inputs[0]], {"shape": node.attrs["shape"]})


@RULES.on("broadcast_to")
def broadcast(node: Node, rw: Rewriter) -> Replacement:
    """A broadcast to the same elements goes; of a chain only the last stays."""
    x, shape = node.inputs[0], node.output.shape
    if x.shape == shape:
        return x
    extra = len(shape) - x.type.rank
    if all(dim == 1 for dim in shape[:extra]) and x.shape == shape[extra:]:
        return rw.emit("reshape", [x], {"shape": shape})
    inner = rw.producer(x, "broadcast_to")
    if inner is None:
        return None
    source = inner.inputs[0]
    offset = len(shape) - source.type.rank
    if any(dim not in (1, shape[offset + axis]) for axis, dim in enumerate(source.shape)):
        return None
    return rw.emit("broadcast_to", [source], {"shape": shape})


@RULES.on("expand")
def expand(node: Node, rw: Rewriter) -> Replacement:
    """What is known to be of the shape or to broadcast to it is no expansion; chains are one."""
    x, shape = node.inputs[0], node.attrs["shape"]
    pairs = list(zip(x.shape, shape, strict=True))
    if all(dim in (1, size) for dim, size in pairs):
        return rw.emit("broadcast_to", [x], {"shape": shape})
    inner = rw.producer(x, "expand")
    return rw.emit("expand", inner.inputs, node.attrs) if inner is not None else None


@RULES.on("concat")
def concat(node: Node, rw: Rewriter) -> Replacement:
    """Empty and nested operands go, neighbouring small constants are joined."""
    axis = node.attrs["axis"]
    parts = [value for value in node.inputs if value.shape[axis] != 0] or node.inputs[:1]
    flat: list[Value] = []
    for value in parts:
        inner = rw.sole(value, "concat")
        nested = inner is not None and inner.attrs["axis"] == axis
        flat.extend(inner.inputs if inner is not None and nested else [value])
    joined = _join_constants(flat, axis)
    if len(joined) == 1:
        return joined[0]
    if len(joined) == len(node.inputs):
        return None
    return rw.emit("concat", joined, {"axis": axis})


def _join_constants(values: Sequence[Value], axis: int) -> list[Value]:
    out: list[Value] = []
    for value in values:
        last = out[-1].data if out else None
        if last is not None and value.data is not None and last.size + value.data.size <= SMALL:
            out[-1] = constant(np.concatenate([last, value.data], axis=axis))
        else:
            out.append(value)
    return out


@RULES.on("slice")
def whole_slice(node: Node, rw: Rewriter) -> Replacement:
    """A slice of everything goes."""
    x = node.inputs[0]
    forward = all(step > 0 for step in node.attrs["steps"])
    return x if forward and x.shape == node.output.shape else None


@RULES.on("slice")
def slice_of_slice(node: Node, rw: Rewriter) -> Replacement:
    """Slices with positive steps are composed."""
    inner = rw.producer(node.inputs[0], "slice")
    if inner is None or any(step < 1 for step in (*node.attrs["steps"], *inner.attrs["steps"])):
        return None
    starts, stops, steps = [], [], []
    for axis, size in enumerate(node.output.shape):
        start, step = inner.attrs["starts"][axis], inner.attrs["steps"][axis]
        if step > 1 and (not isinstance(size, int) or size == 0):
            return None
        starts.append(start + node.attrs["starts"][axis] * step)
        stops.append(start + (node.attrs["stops"][axis] - 1) * step + 1)
        steps.append(step * node.attrs["steps"][axis])
    attrs = {"starts": tuple(starts), "stops": tuple(stops), "steps": tuple(steps)}
    return rw.emit("slice", [inner.inputs[0]], attrs)


@RULES.on("slice")
def slice_of_concat(node: Node, rw: Rewriter) -> Replacement:
    """A slice that lies in one operand of a concat is a slice of that operand."""
    inner = rw.producer(node.inputs[0], "concat")
    if inner is None:
        return None
    axis = inner.attrs["axis"]
    start, stop, step = (node.attrs[key][axis] for key in ("starts", "stops", "steps"))
    sizes = [value.shape[axis] for value in inner.inputs]
    if step < 1 or not all(isinstance(item, int) for item in (start, stop, *sizes)):
        return None
    offset = 0
    for value, size in zip(inner.inputs, sizes, strict=True):
        if offset <= start and stop <= offset + size and start < stop:
            attrs = dict(node.attrs)
            attrs["starts"] = _with(attrs["starts"], axis, start - offset)
            attrs["stops"] = _with(attrs["stops"], axis, stop - offset)
            return rw.emit("slice", [value], attrs)
        offset += size
    return None


def _with(items: Sequence[Dim], index: int, item: Dim) -> tuple[Dim, ...]:
    return (*items[:index], item, *items[index + 1 :])


@RULES.on("pad")
def no_padding(node: Node, rw: Rewriter) -> Replacement:
    """A pad by nothing goes."""
    return node.inputs[0] if all(pad == 0 for pad in node.attrs["pads"]) else None


@RULES.on("gather")
def gather_range(node: Node, rw: Rewriter) -> Replacement:
    """gather by constant, evenly spaced, ascending indices -> slice (and reshape)"""
    x, indices = node.inputs
    axis = node.attrs["axis"]
    size = x.shape[axis]
    if indices.data is None or not 0 < indices.data.size <= SMALL or not isinstance(size, int):
        return None
    if not bool(np.all((indices.data >= -size) & (indices.data < size))):
        return None
    flat = [int(index) % size for index in indices.data.ravel()]
    step = flat[1] - flat[0] if len(flat) > 1 else 1
    if step < 1 or flat != list(range(flat[0], flat[0] + step * len(flat), step)):
        return None
    rank = x.type.rank
    attrs = {
        "starts": _with((0,) * rank, axis, flat[0]),
        "stops": _with(x.shape, axis, flat[-1] + 1),
        "steps": (1,) * axis + (step,) + (1,) * (rank - axis - 1),
    }
    part = rw.emit("slice", [x], attrs)
    return rw.emit("reshape", [part], {"shape": node.output.shape})


@RULES.on("conv")
def pad_into_conv(node: Node, rw: Rewriter) -> Replacement:
    """A convolution pads by itself, with one number on all sides."""
    inner = rw.sole(node.inputs[0], "pad")
    if inner is None or inner.attrs["mode"] != "constant":
        return None
    number = scalar(inner.inputs[1]) if len(inner.inputs) == 2 else 0
    if number is None or (number != 0 and inner.output.dtype.is_float):
        return None
    if any(node.attrs["pads"]) and number != node.attrs["pad_value"]:
        return None
    rank = inner.output.type.rank
    first = 2 if node.attrs["layout"] == "NCHW" else 1
    spatial = range(first, first + rank - 2)
    before, after = inner.attrs["pads"][:rank], inner.attrs["pads"][rank:]
    others = [axis for axis in range(rank) if axis not in spatial]
    pads = [before[axis] for axis in spatial] + [after[axis] for axis in spatial]
    fits = all(isinstance(pad, int) and pad >= 0 for pad in (*pads, *node.attrs["pads"]))
    if not fits or any(before[axis] != 0 or after[axis] != 0 for axis in others):
        return None
    total = tuple(a + b for a, b in zip(node.attrs["pads"], pads, strict=True))
    return rw.emit(
        "conv",
        [inner.inputs[0], *node.inputs[1:]],
        {**node.attrs, "pads": total, "pad_value": int(number)},
    )
