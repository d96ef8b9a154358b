"""Recognises layer normalisation written out as means, differences and a root."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar

RULES = Rules()


@dataclass(frozen=True)
class LayerNormPattern:
    """(x - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * scale + bias -> layer_norm.

    The means are over the last axes; scale and bias constants over them are taken in.
    """

    name: str = "layer_norm"

    def run(self, graph: Graph) -> bool:
        """Replace the pattern; whether it was found."""
        return rewrite(graph, RULES)


@RULES.on("div")
def normalised(node: Node, rw: Rewriter) -> Replacement:
    """d / sqrt(v + eps)"""
    root = rw.producer(node.inputs[1], "sqrt")
    return _layer_norm(node.inputs[0], root, rw) if root is not None else None


@RULES.on("mul")
def normalised_by_reciprocal(node: Node, rw: Rewriter) -> Replacement:
    """d * (1 / sqrt(v + eps))"""
    for centred, factor in (node.inputs, node.inputs[::-1]):
        division = rw.producer(factor, "div")
        if division is not None and scalar(division.inputs[0]) == 1:
            root = rw.producer(division.inputs[1], "sqrt")
            return _layer_norm(centred, root, rw) if root is not None else None
    return None


def _layer_norm(centred: Value, root: Node, rw: Rewriter) -> Value | None:
    shifted = rw.producer(root.inputs[0], "add")
    difference = rw.producer(centred, "sub")
    if shifted is None or difference is None:
        return None
    epsilon = scalar(shifted.inputs[1])
    variance = rw.producer(shifted.inputs[0], "reduce_mean")
    mean = rw.producer(difference.inputs[1], "reduce_mean")
    if epsilon is None or variance is None or mean is None:
        return None
    x = difference.inputs[0]
    square = rw.producer(variance.inputs[0], "mul")
    if mean.inputs[0] is not x or square is None or mean.attrs != variance.attrs:
        return None
    if square.inputs[0] is not centred or square.inputs[1] is not centred:
        return None
    rank, axes = x.type.rank, tuple(sorted(mean.attrs["axes"]))
    if not axes or not mean.attrs["keepdims"] or axes != tuple(range(axes[0], rank)):
        return None
    normal = x.shape[axes[0] :]
    if not all(isinstance(dim, int) for dim in normal):
        return None
    ones = constant(np.ones(normal, dtype=x.dtype.numpy))
    return rw.emit("layer_norm", [x, ones], {"axis": axes[0], "epsilon": float(epsilon)})


def _over_normal_axes(c: Value, norm: Node) -> bool:
    normal = norm.output.shape[norm.attrs["axis"] :]
    extra = c.type.rank - len(normal)
    shape = c.shape[extra:] if extra > 0 else c.shape
    return c.is_constant and all(dim == 1 for dim in c.shape[: max(extra, 0)]) and shape == normal


def _flat(c: Value, norm: Node) -> Value:
    normal = norm.output.type.rank - norm.attrs["axis"]
    data = np.asarray(c.data)
    return constant(data.reshape(data.shape[data.ndim - normal :]), c.name)


@RULES.on("mul")
def take_scale(node: Node, rw: Rewriter) -> Replacement:
    """layer_norm(x, 1) * scale"""
    norm = rw.sole(node.inputs[0], "layer_norm")
    if norm is None or len(norm.inputs) != 2 or not _over_normal_axes(node.inputs[1], norm):
        return None
    if not bool(np.all(norm.inputs[1].data == 1)):
        return None
    return rw.emit("layer_norm", [norm.inputs[0], _flat(node.inputs[1], norm)], norm.attrs)


@RULES.on("add")
def take_bias(node: Node, rw: Rewriter) -> Replacement:
    """layer_norm(x, scale) + bias"""
    norm = rw.sole(node.inputs[0], "layer_norm")
    if norm is None or len(norm.inputs) != 2 or not _over_normal_axes(node.inputs[1], norm):
        return None
    return rw.emit("layer_norm", [*norm.inputs, _flat(node.inputs[1], norm)], norm.attrs)
