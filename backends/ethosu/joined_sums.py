"""Sums of two tensors as convolutions of both, side by side.

An Ethos-U adds elements by scaling each of them, and multiplies many in a cycle: a convolution of
one element, whose weights are a whole number for each of the operands, gives the same sum where the
ratio of these numbers is that of the scales. Of numbers up to 127 there always are two whose ratio
is within 1/127 of it, mostly within 1/16000: less than a step of a byte. Where it is theirs, as
`whole_ratios.py` has it, all pairs of bytes tell whether there is a scale that gives the same bits.
Operands that lie side by side cost nothing where what makes them can write them so. What is read
elsewhere, too, is copied there: by Vela, or by a convolution with ones, which takes half the cycles
on some processors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.quantization import REACHED
from ...compiler.ir.ops.registry import Builder, lookup
from ...compiler.ir.rewrite import scalar
from ...compiler.ir.types import DType
from ...passes.precision.fixed_point.whole_ratios import whole_ratio
from .conv_chain import splice
from .legality import MOST_SIZE
from .tosa.lowering import narrowed

ADDED, JOINED, COPIED = "addition", "convolution", "convolution of copies"
Array = np.ndarray[Any, Any]
MOST_CHANNELS = 512  # of an image whose sums are a convolution: weights grow with their square
_WINDOW = {"strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1), "layout": "NHWC"}


@dataclass(frozen=True)
class ScaledSum:
    """step (weights[0] (left - zeros[0]) + weights[1] (right - zeros[1])), as bytes.

    image: the shape that operands have for a convolution. weights: whole numbers, in the ratio of
    what operands are scaled by. exact: whether these are the bytes that the sum has, whatever the
    operands are.
    """

    left: Value
    right: Value
    image: tuple[int, ...]
    zeros: tuple[int, int]
    weights: tuple[int, int]
    step: float
    exact: bool


def scaled_sums(graph: Graph) -> list[Node]:
    """The nodes that make bytes of sums and differences of bytes, in a graph of integers, where
    these have the shape of an image that a convolution reads."""
    uses = graph.uses()
    found = []
    for scaled in graph.nodes:
        added = scaled.inputs[0].producer if scaled.op == "requantize" else None
        if added is None or added.op not in ("add", "sub") or len(uses[added.output]) != 1:
            continue
        if _scaled_sum(scaled) is not None:
            found.append(scaled)
    return found


def _scaled_sum(scaled: Node) -> ScaledSum | None:
    """What a node makes bytes of: a sum or difference, as its operands are now."""
    added = scaled.inputs[0].producer
    assert added is not None
    shape, factor = scaled.output.shape, scalar(scaled.inputs[1])
    static = scaled.output.type.is_static and scaled.output.type.rank >= 2
    if scaled.output.dtype is not DType.I8 or not static or factor is None:
        return None
    left, right = (_part(value) for value in added.inputs)
    if left is None or right is None or not left[0].shape == right[0].shape == shape:
        return None
    if (image := _image(scaled.output.type.static_shape)) is None:
        return None
    ratio = whole_ratio(left[2] / right[2])
    if not ratio:
        return None
    first, second = ratio.numerator, ratio.denominator
    step = float(factor) * (left[2] / first + right[2] / second) / 2
    weights = (first, -second if added.op == "sub" else second)
    zeros = (left[1], right[1])
    made = [_Scaling.of(value.producer) for value in (*added.inputs, scaled.output)]
    exact = _exact_step(made[0], made[1], made[2], zeros, weights)
    return ScaledSum(
        left[0],
        right[0],
        image,
        zeros,
        weights,
        step if exact is None else exact,
        exact is not None,
    )


def _image(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape, channels last, of an image of so many axes' elements that an Ethos-U takes, with
    the columns that there are or the fewest above; None: its channels or pixels are too many."""
    *outer, width, channels = shape
    pixels = math.prod(outer) * width
    if channels > MOST_CHANNELS or not pixels:
        return None
    widths = (size for size in range(width, MOST_SIZE + 1) if pixels % size == 0)
    found = next((size for size in widths if pixels // size <= MOST_SIZE), None)
    return None if found is None else (1, pixels // found, found, channels)


@dataclass(frozen=True)
class _Scaling:
    """What a `requantize` by one scale does, as far as it changes numbers."""

    scale: float
    zero: int
    dtype: DType
    attrs: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, node: Node | None) -> _Scaling:
        assert node is not None
        scale, zero = (scalar(value) for value in node.inputs[1:])
        assert scale is not None
        assert zero is not None
        return cls(float(scale), int(zero), node.output.dtype, tuple(sorted(node.attrs.items())))

    def on(self, totals: Array) -> Array:
        """Its results on i32."""
        evaluate = lookup("requantize").evaluate
        assert evaluate is not None
        zero = np.asarray(self.zero, self.dtype.numpy)
        args = [totals.astype(np.int32), np.asarray(self.scale, np.float32), zero]
        return np.asarray(evaluate(args, dict(self.attrs))[0], np.int64)


@lru_cache
def _exact_step(
    left: _Scaling,
    right: _Scaling,
    result: _Scaling,
    zeros: tuple[int, int],
    weights: tuple[int, int],
) -> float | None:
    """A scale by which the sum of weights times operands gives the bytes that the sum of scaled
    operands has, for all pairs of bytes; None where there is none.

    Sums are rounded to the nearest, halves up: from each pair follows between which numbers the
    scale lies.
    """
    bytes_ = np.arange(-128, 128)
    sides = [bytes_ - zero for zero in zeros]
    sign = 1 if weights[1] > 0 else -1
    wanted = result.on(left.on(sides[0])[:, None] + sign * right.on(sides[1])[None]) - result.zero
    totals = weights[0] * sides[0][:, None] + weights[1] * sides[1][None]
    low, high = (dict(result.attrs)[name] - result.zero for name in ("low", "high"))
    most = np.where(wanted < high, wanted + 0.5, np.inf)  # above what the scaled total is
    least = np.where(wanted > low, wanted - 0.5, -np.inf)
    up, down = totals > 0, totals < 0
    lower = np.concatenate([least[up] / totals[up], most[down] / totals[down]])
    upper = np.concatenate([most[up] / totals[up], least[down] / totals[down]])
    above, below = lower.max(), upper.min()
    step = float(np.float32((above + below) / 2))
    if not above < step < below or step <= 0:
        return None
    own = _Scaling(step, result.zero, result.dtype, result.attrs)
    return step if np.array_equal(own.on(totals) - result.zero, wanted) else None


def _part(value: Value) -> tuple[Value, int, float] | None:
    """(bytes, zero point, factor) of what is added."""
    made = value.producer
    if made is None or made.op != "requantize" or scalar(made.inputs[2]) != 0:
        return None
    source, zero = narrowed(made.inputs[0])
    factor = scalar(made.inputs[1])
    if source.dtype is not DType.I8 or source.is_constant or factor is None:
        return None
    return source, zero, float(factor)


def is_exact(scaled: Node) -> bool:
    """Whether a convolution gives the bits of a sum, one of `scaled_sums`."""
    sum_ = _scaled_sum(scaled)
    assert sum_ is not None
    return sum_.exact


def ways_to_join(graph: Graph, scaled: Node) -> tuple[str, ...]:
    """How a sum, one of `scaled_sums`, can be a convolution."""
    return (JOINED, COPIED) if _read_elsewhere(graph, scaled) else (JOINED,)


def _read_elsewhere(graph: Graph, scaled: Node) -> frozenset[Value]:
    """Operands of a sum that something else reads, or that are inputs or outputs of the graph."""
    sum_ = _scaled_sum(scaled)
    assert sum_ is not None
    uses = graph.uses()
    return frozenset(
        value for value in (sum_.left, sum_.right) if value.producer is None or len(uses[value]) > 1
    )


def join_sum(graph: Graph, scaled: Node, how: str = JOINED) -> None:
    """Put a convolution in the place of a sum, one of `scaled_sums`, in one of its ways."""
    sum_ = _scaled_sum(scaled)
    assert sum_ is not None
    copied = _read_elsewhere(graph, scaled) if how == COPIED else frozenset[Value]()
    nodes: list[Node] = []
    builder = Builder(nodes, scaled.name)
    rank, image = scaled.output.type.rank, sum_.image
    channels = image[-1]
    parts = [
        _copy(builder, value, zero, image) if value in copied else value
        for value, zero in zip((sum_.left, sum_.right), sum_.zeros, strict=True)
    ]
    both = builder.emit("concat", parts, {"axis": rank - 1})
    both = builder.emit("reshape", [both], {"shape": (*image[:3], 2 * channels)})
    one = np.eye(channels, dtype=np.int32)
    weights = constant(np.concatenate([n * one for n in sum_.weights])[None, None])
    wide = builder.emit("cast", [both], {"dtype": DType.I32})
    total = builder.emit("conv", [wide, weights], _WINDOW)
    offset = -sum(zero * n for zero, n in zip(sum_.zeros, sum_.weights, strict=True))
    total = builder.emit("add", [total, constant(np.full(channels, offset, np.int32))])
    step = constant(np.float32(sum_.step))
    made = builder.emit("requantize", [total, step, scaled.inputs[2]], scaled.attrs)
    made = builder.emit("reshape", [made], {"shape": scaled.output.shape})
    splice(graph, [scaled], nodes, made)


def _copy(builder: Builder, value: Value, zero: int, image: tuple[int, ...]) -> Value:
    """The same bytes, made by a convolution of each element."""
    channels, shape = image[-1], value.type.static_shape
    wide = builder.emit("reshape", [value], {"shape": image})
    wide = builder.emit("cast", [wide], {"dtype": DType.I32})
    wide = builder.emit("add", [wide, constant(np.int32(-zero))])
    ones = constant(np.eye(channels, dtype=np.int32)[None, None])
    total = builder.emit("conv", [wide, ones], _WINDOW)
    low, high = REACHED[DType.I8]
    attrs = {"rounding": "single", "low": low, "high": high}
    step = [constant(np.float32(1)), constant(np.int8(zero))]
    made = builder.emit("requantize", [total, *step], attrs)
    return builder.emit("reshape", [made], {"shape": shape})
