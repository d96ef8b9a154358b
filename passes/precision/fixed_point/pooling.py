"""Rules: averages and sums along axes."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.ops.fixed_point import mean_scale
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from .operands import FixedPoint, QuantisedResult, centred, given, operand_of, rescaled, result_of

RULES = Rules()
_IMAGE_RANK = 4
_MOST_TAPS = 1 << 12  # of one convolution
_LEAST_MEANS = 3  # of columns, whose roundings average out
_COUNT_BITS = 14  # behind the point, of one divided by how many are averaged


@RULES.on("quantize")
def averaged(node: Node, rw: Rewriter) -> Replacement:
    """quantize(avg_pool(dequantize(x))) -> requantize(depthwise convolution with ones)"""
    result = result_of(node, rw)
    made = None if result is None else rw.producer(result.value, "avg_pool")
    if result is None or made is None or not made.output.type.is_static:
        return None
    operand = operand_of(made.inputs[0], rw)
    if operand is None or operand.scale.size != 1 or made.attrs["layout"] != "NCHW":
        return None
    total = _window_sums(made, centred(operand, rw), rw)
    if total is None:
        return None
    window = math.prod(made.attrs["kernel"])
    counts = _counts(made)
    if (counts == window).all():
        return _mean(total, window, operand, result, rw)
    share = np.rint((1 << _COUNT_BITS) / np.maximum(counts, 1)).astype(np.int32)
    weighted = rw.emit("mul", [total, constant(share)])
    return given(weighted, operand.scale.astype(np.float64) / (1 << _COUNT_BITS), result, rw)


def _mean(total: Value, count: int, x: FixedPoint, result: QuantisedResult, rw: Rewriter) -> Value:
    """A sum of so many integers as their mean, in the unit of the result."""
    if x.alike(result.scale, result.zero):
        zero, low, high = result.zero, result.low, result.high
        return rescaled(total, mean_scale(count), result.dtype, rw, zero=zero, low=low, high=high)
    return given(total, x.scale.astype(np.float64) / count, result, rw)


def _window_sums(pool: Node, x: Value, rw: Rewriter) -> Value | None:
    """The sums over the windows of a pooling, each inside the padding that it names."""
    channels = pool.inputs[0].shape[1]
    spatial = len(pool.attrs["kernel"])
    attrs = {key: pool.attrs[key] for key in ("strides", "pads", "dilations")}
    ones = constant(np.ones((channels, 1, *pool.attrs["kernel"]), np.int32))
    total = rw.emit("conv", [x, ones], {**attrs, "groups": channels})
    wanted = pool.output.shape[2:]
    if total.shape[2:] == wanted:
        return total
    reach = [  # a window that `ceil_mode` adds goes beyond the padding
        (size - 1) * attrs["strides"][n] + (pool.attrs["kernel"][n] - 1) * attrs["dilations"][n] + 1
        for n, size in enumerate(wanted)
    ]
    ends = [
        max(0, reach[n] - pool.inputs[0].shape[2 + n] - attrs["pads"][n]) for n in range(spatial)
    ]
    total = rw.emit(
        "conv", [x, ones], {**attrs, "pads": (*attrs["pads"][:spatial], *ends), "groups": channels}
    )
    return total if total.shape[2:] == wanted else None


def _counts(pool: Node) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """How many elements each window averages, shaped [1, 1, spatial...]."""
    sizes, attrs = pool.inputs[0].shape[2:], pool.attrs
    spatial = len(sizes)
    found = np.ones((1, 1, *(1,) * spatial), np.int64)
    for n, size in enumerate(sizes):
        first, last = attrs["pads"][n], attrs["pads"][spatial + n]
        counted = np.zeros(size + first + last + attrs["kernel"][n] * attrs["dilations"][n]
                           + attrs["strides"][n], np.int64)  # fmt: skip
        if attrs["count_include_pad"]:
            counted[: size + first + last] = 1
        else:
            counted[first : first + size] = 1
        taps = np.arange(attrs["kernel"][n]) * attrs["dilations"][n]
        starts = np.arange(pool.output.shape[2 + n]) * attrs["strides"][n]
        along = counted[starts[:, None] + taps].sum(axis=1)
        shape = [1] * (2 + spatial)
        shape[2 + n] = -1
        found = found * along.reshape(shape)
    return found


@RULES.on("quantize")
def reduced(node: Node, rw: Rewriter) -> Replacement:
    """quantize(reduce_mean(dequantize(x))) -> requantize(reduce_sum(x)); so are sums"""
    result = result_of(node, rw)
    made = None if result is None else rw.producer(result.value, "reduce_mean", "reduce_sum")
    if result is None or made is None or not made.inputs[0].type.is_static:
        return None
    operand = operand_of(made.inputs[0], rw)
    if operand is None or operand.scale.size != 1:
        return None
    count = math.prod(made.inputs[0].shape[axis] for axis in made.attrs["axes"])
    factor = operand.scale.astype(np.float64)
    if _is_of_image(made):
        mean = _of_image(made, operand, result, rw)
        return rw.emit("reshape", [mean], {"shape": made.output.shape})
    total = rw.emit("reduce_sum", [centred(operand, rw)], made.attrs)
    if made.op == "reduce_mean" and count:
        return _mean(total, count, operand, result, rw)
    return given(total, factor, result, rw)


def _is_of_image(made: Node) -> bool:
    """Whether it is the mean over both spatial axes of NCHW, not larger than a kernel may be."""
    x = made.inputs[0]
    axes = sorted(made.attrs["axes"])
    image = made.op == "reduce_mean" and x.type.rank == _IMAGE_RANK and axes == [2, 3]
    return image and 0 < math.prod(x.shape[2:]) <= _MOST_TAPS


def _of_image(made: Node, x: FixedPoint, result: QuantisedResult, rw: Rewriter) -> Value:
    """By the scale of the data a processor averages in one step. By a finer one it adds up more
    slowly: the means of columns are in the data's scale then, and those few are added up."""
    height, width = made.inputs[0].shape[2:]
    if x.alike(result.scale, result.zero) or min(height, width) < _LEAST_MEANS:
        total = _sums(centred(x, rw), (height, width), rw)
        return _mean(total, height * width, x, result, rw)
    columns = _sums(centred(x, rw), (height, 1), rw)
    means = rescaled(columns, mean_scale(height), x.integers.dtype, rw, zero=x.zero)
    whole = FixedPoint(means, x.scale, x.zero)
    return _mean(_sums(centred(whole, rw), (1, width), rw), width, whole, result, rw)


def _sums(x: Value, kernel: tuple[int, int], rw: Rewriter) -> Value:
    """Sums over windows of NCHW, as a convolution with ones."""
    channels = x.shape[1]
    ones = constant(np.ones((channels, 1, *kernel), np.int32))
    attrs = {"strides": (1, 1), "pads": (0,) * 4, "dilations": (1, 1), "groups": channels}
    return rw.emit("conv", [x, ones], attrs)


@RULES.on("reduce_max", "reduce_min")
def extreme(node: Node, rw: Rewriter) -> Replacement:
    """reduce_max(dequantize(x)) -> dequantize(reduce_max(x))"""
    made = rw.producer(node.inputs[0], "dequantize")
    operand: FixedPoint | None = operand_of(node.inputs[0], rw) if made is not None else None
    if made is None or operand is None:
        return None
    return rw.emit(
        "dequantize", [rw.emit(node.op, [operand.integers], node.attrs), *made.inputs[1:]]
    )
