"""Scale folding: constant factors and offsets go into the weights and biases of contractions.

A batch normalisation is a product with and a sum of one constant per channel; next to a convolution
or a matrix product both can be part of the weights. All arithmetic is in f64, rounded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ...compiler.ir.dims import product
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite

Array = np.ndarray[Any, Any]
_CONTRACTIONS = ("conv", "conv_transpose", "matmul")
_VIEWS = ("reshape", "transpose")


@dataclass(frozen=True)
class ScaleFolding:
    """Fold per-channel constants around convolutions and matrix products into their constants.

    y = conv(x, w) * s + t: both into w and the bias. y = matmul(x, w) * s: s into w.
    conv(x * s), matmul(x * s): s into w; conv(x + t) without padding: t into the bias.
    Results that a discrete one hangs on stay as they are (see `ir/exactness.py`).
    max_elements: weights larger than that are not copied; beside such a product, scaling its
    result costs little.
    """

    max_elements: int = 1 << 22
    name: str = "scale_folding"

    def run(self, graph: Graph) -> bool:
        """Fold; whether anything was folded."""
        rules = Rules()
        rules.on("mul", "add")(partial(_after, limit=self.max_elements))
        rules.on("mul")(partial(_scale_of_shifted_product, limit=self.max_elements))
        rules.on("conv", "matmul")(partial(_before, limit=self.max_elements))
        return rewrite(graph, rules)


def _after(node: Node, rw: Rewriter, limit: int) -> Replacement:
    """contraction(x, w) op c, also through reshapes and transposes that keep the channels apart"""
    value, c = node.inputs
    if c.data is None or not c.dtype.is_float or node.output.shape != value.shape:
        return None
    if not rw.may_round(node.output):
        return None
    views: list[Node] = []
    axis = _varying_axis(c, value)
    current: Value = value
    while axis is not None and (view := rw.sole(current, *_VIEWS)):
        axis = axis if axis < 0 else _axis_before(view, axis)
        views.append(view)
        current = view.inputs[0]
    origin = rw.sole(current, *_CONTRACTIONS)
    if axis is None or origin is None:
        return None
    channel = _channel_axis(origin)
    if axis not in (channel, -1):
        return None
    size = current.shape[channel]
    if not isinstance(size, int):
        return None
    vector = np.broadcast_to(c.data.astype(np.float64).ravel(), (size,))
    scaled = _scaled(origin, vector, limit) if node.op == "mul" else _shifted(origin, vector)
    if scaled is None:
        return None
    result = rw.emit(origin.op, scaled, origin.attrs, name=origin.name)
    for view in reversed(views):
        result = rw.emit(view.op, [result], view.attrs)
    return result


def _varying_axis(c: Value, like: Value) -> int | None:
    """The one axis of `like` along which the constant varies, -1 if none, None if several."""
    offset = like.type.rank - c.type.rank
    axes = [offset + axis for axis, dim in enumerate(c.shape) if dim != 1]
    if len(axes) > 1:
        return None
    return axes[0] if axes else -1


def _axis_before(view: Node, axis: int) -> int | None:
    """Which axis of the view's input is this axis of its output, if one is."""
    if view.op == "transpose":
        return int(view.attrs["perm"][axis])
    old, new = view.inputs[0].shape, view.output.shape
    before = product(new[:axis])
    for candidate, dim in enumerate(old):
        if dim == new[axis] and product(old[:candidate]) == before:
            return candidate
    return None


def _channel_axis(node: Node) -> int:
    rank = node.output.type.rank
    return 1 if node.attrs.get("layout") == "NCHW" else rank - 1


def _foldable(node: Node, limit: int) -> bool:
    """Whether the weights are constant and in a layout that this file knows."""
    weights = node.inputs[1]
    if weights.data is None or not weights.dtype.is_float or weights.data.size > limit:
        return False
    if node.attrs.get("accumulate"):
        return False  # weights of another type than the sums are rounded already
    if node.op == "matmul":
        return weights.type.rank == 2
    bias_known = len(node.inputs) < 3 or node.inputs[2].is_constant
    return bias_known and node.attrs["layout"] == "NCHW"


def _rounded(exact: Array, like: Value) -> Value:
    return constant(exact.astype(like.dtype.numpy), like.name)


def _scaled(node: Node, vector: Array, limit: int) -> list[Value] | None:
    """The operands that make the result `vector` times as large, per output channel."""
    if not _foldable(node, limit):
        return None
    weights = node.inputs[1]
    exact = np.asarray(weights.data, dtype=np.float64)
    if node.op == "matmul":
        return [node.inputs[0], _rounded(exact * vector, weights)]
    spatial = (1,) * (exact.ndim - 2)
    if node.op == "conv":
        scaled = exact * vector.reshape(-1, 1, *spatial)
    else:
        groups = node.attrs["groups"]
        split = exact.reshape(groups, exact.shape[0] // groups, *exact.shape[1:])
        scaled = split * vector.reshape(groups, 1, -1, *spatial)
    operands = [node.inputs[0], _rounded(scaled.reshape(exact.shape), weights)]
    if len(node.inputs) == 3:
        operands.append(_rounded(_bias(node) * vector, node.inputs[2]))
    return operands


def _bias(node: Node) -> Array | float:
    if len(node.inputs) < 3:
        return 0.0
    return np.asarray(node.inputs[2].data, dtype=np.float64)


def _shifted(node: Node, vector: Array) -> list[Value] | None:
    """The operands that add `vector` to the result, per output channel."""
    if node.op == "matmul" or (len(node.inputs) == 3 and not node.inputs[2].is_constant):
        return None
    bias = (_bias(node) + vector).astype(node.output.dtype.numpy)
    return [*node.inputs[:2], constant(bias, node.inputs[1].name)]


def _scale_of_shifted_product(node: Node, rw: Rewriter, limit: int) -> Replacement:
    """(matmul(x, w) + b) * s -> matmul(x, w * s) + b * s"""
    inner = rw.sole(node.inputs[0], "add")
    s = node.inputs[1]
    if inner is None or s.data is None or not s.dtype.is_float:
        return None
    y, b = inner.inputs
    origin = rw.sole(y, "matmul")
    if (
        origin is None
        or b.data is None
        or not _foldable(origin, limit)
        or s.data.size > b.data.size
    ):
        return None
    if node.output.shape != y.shape or _varying_axis(s, y) not in (-1, y.type.rank - 1):
        return None
    if not rw.may_round(node.output):
        return None
    exact = b.data.astype(np.float64) * s.data.astype(np.float64)
    return rw.emit("add", [rw.emit("mul", [y, s]), _rounded(exact, b)])


def _before(node: Node, rw: Rewriter, limit: int) -> Replacement:
    """contraction(x * s, w) -> contraction(x, s * w);  conv(x + t, w) -> conv(x, w) + w t"""
    inner = rw.sole(node.inputs[0], "mul", "add")
    if inner is None or inner.inputs[1].data is None or not _foldable(node, limit):
        return None
    x, c = inner.inputs
    axis = 1 if node.op == "conv" else x.type.rank - 1
    if x.shape != inner.output.shape or _varying_axis(c, x) not in (axis, -1):
        return None
    size = x.shape[axis]
    if not isinstance(size, int) or c.data is None or not rw.may_round(node.output):
        return None
    vector = np.broadcast_to(c.data.astype(np.float64).ravel(), (size,))
    operands = _before_conv(node, inner.op, vector) if node.op == "conv" else None
    if node.op == "matmul" and inner.op == "mul":
        exact = np.asarray(node.inputs[1].data, dtype=np.float64)
        operands = [_rounded(exact * vector[:, None], node.inputs[1])]
    return None if operands is None else rw.emit(node.op, [x, *operands], node.attrs)


def _before_conv(node: Node, op: str, vector: Array) -> Sequence[Value] | None:
    weights = node.inputs[1]
    exact = np.asarray(weights.data, dtype=np.float64)
    groups = node.attrs["groups"]
    per_output = np.repeat(vector.reshape(groups, -1), exact.shape[0] // groups, axis=0)
    factors = per_output.reshape(*per_output.shape, *(1,) * (exact.ndim - 2))
    if op == "mul":
        return [_rounded(exact * factors, weights), *node.inputs[2:]]
    if any(pad != 0 for pad in node.attrs["pads"]):
        return None
    shift = (exact * factors).sum(axis=tuple(range(1, exact.ndim)))
    return [weights, _rounded(_bias(node) + shift, weights)]
