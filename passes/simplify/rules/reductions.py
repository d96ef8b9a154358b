"""Simplification of reductions and poolings."""

from __future__ import annotations

from ....compiler.ir.graph import Node
from ....compiler.ir.ops.registry import Trait
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules

RULES = Rules()
_POOL_AS_REDUCTION = {"avg_pool": "reduce_mean", "max_pool": "reduce_max"}


@RULES.on(Trait.REDUCTION)
def reduce_single_elements(node: Node, rw: Rewriter) -> Replacement:
    """Reducing axes of size 1 is a reshape (a reduction over no axes: nothing)."""
    if "axes" not in node.attrs:
        return None
    x, axes = node.inputs[0], node.attrs["axes"]
    left = tuple(axis for axis in axes if x.shape[axis] != 1)
    if left == axes and axes:
        return None
    if not left:
        return rw.emit("reshape", [x], {"shape": node.output.shape})
    kept = rw.emit(node.op, [x], {"axes": left, "keepdims": True})
    return rw.emit("reshape", [kept], {"shape": node.output.shape})


@RULES.on(Trait.REDUCTION)
def reduce_reduction(node: Node, rw: Rewriter) -> Replacement:
    """max(max(x)) over other axes is one reduction, for every reduction over `axes`."""
    inner = rw.sole(node.inputs[0], node.op)
    if inner is None or "axes" not in node.attrs or not inner.attrs["keepdims"]:
        return None
    axes = tuple(sorted({*inner.attrs["axes"], *node.attrs["axes"]}))
    repeated = set(inner.attrs["axes"]) & set(node.attrs["axes"])
    if repeated or not inner.output.dtype.is_float:
        return None
    merged = rw.emit(node.op, inner.inputs, {"axes": axes, "keepdims": True})
    if node.attrs["keepdims"]:
        return merged
    return rw.emit("reshape", [merged], {"shape": node.output.shape})


@RULES.on(*_POOL_AS_REDUCTION)
def trimmed_pool(node: Node, rw: Rewriter) -> Replacement:
    """The only window of an axis reaches no further than the axis does."""
    x, attrs = node.inputs[0], node.attrs
    first = 2 if attrs["layout"] == "NCHW" else 1
    kernel = list(attrs["kernel"])
    half = len(kernel)
    for axis, taps in enumerate(kernel):
        size = x.shape[first + axis]
        alone = node.output.shape[first + axis] == 1 and attrs["dilations"][axis] == 1
        padded = attrs["pads"][axis] != 0 or attrs["pads"][half + axis] != 0
        if alone and not padded and isinstance(size, int) and isinstance(taps, int):
            kernel[axis] = max(1, min(taps, size))
    if kernel == list(attrs["kernel"]):
        return None
    return rw.emit(node.op, [x], {**attrs, "kernel": tuple(kernel)})


@RULES.on(*_POOL_AS_REDUCTION)
def global_pool(node: Node, rw: Rewriter) -> Replacement:
    """One window over everything is a reduction."""
    x, rank = node.inputs[0], node.inputs[0].type.rank
    first = 2 if node.attrs["layout"] == "NCHW" else 1
    axes = tuple(range(first, first + rank - 2))
    whole = tuple(x.shape[axis] for axis in axes)
    if tuple(node.attrs["kernel"]) != whole or any(pad != 0 for pad in node.attrs["pads"]):
        return None
    if any(node.output.shape[axis] != 1 for axis in axes):
        return None
    return rw.emit(_POOL_AS_REDUCTION[node.op], [x], {"axes": axes, "keepdims": True})


@RULES.on("conv", "conv_transpose", *_POOL_AS_REDUCTION)
def two_spatial_axes(node: Node, rw: Rewriter) -> Replacement:
    """A window along one spatial axis is a two-dimensional one of height 1."""
    x = node.inputs[0]
    if x.type.rank != 3:
        return None
    channels_first = node.attrs["layout"] == "NCHW"

    def widened(shape: tuple[object, ...], axis: int) -> tuple[object, ...]:
        return (*shape[:axis], 1, *shape[axis:])

    axis = 2 if channels_first else 1
    attrs = dict(node.attrs)
    low, high = attrs["pads"]
    attrs["pads"] = (0, low, 0, high)
    neutral = {"strides": 1, "dilations": 1, "kernel": 1, "output_padding": 0}
    for key, value in neutral.items():
        if key in attrs:
            attrs[key] = (value, *attrs[key])
    inputs = [rw.emit("reshape", [x], {"shape": widened(x.shape, axis)})]
    if len(node.inputs) > 1:
        w = node.inputs[1]
        shape = widened(w.shape, 2 if channels_first else 0)
        inputs += [rw.emit("reshape", [w], {"shape": shape}), *node.inputs[2:]]
    wide = rw.emit(node.op, inputs, attrs)
    return rw.emit("reshape", [wide], {"shape": node.output.shape})
