"""Quantised tensors are moved, cut and pooled as the integers that they are.

What makes floats of integers sinks below operators that only move elements or take the largest, and
what makes integers of floats rises above them, until the two meet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.quantization import RANGES
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite, scalar
from ...compiler.ir.types import broadcast_shapes
from .parameters import is_known, known_numbers, one_scale

RULES = Rules()


@dataclass(frozen=True)
class QuantisedMovement:
    """The pass."""

    name: str = "quantised_movement"

    def run(self, graph: Graph) -> bool:
        """Move; whether anything was."""
        return rewrite(graph, RULES)


def _dequantised(value: Value, rw: Rewriter) -> Node | None:
    """What makes a value of integers by one positive scale."""
    node = rw.producer(value, "dequantize")
    if node is None or not one_scale(node) or node.inputs[0].dtype not in RANGES:
        return None
    scale = scalar(node.inputs[1])
    return node if scale is not None and scale > 0 else None


@RULES.on(Trait.INDEX_MAP, Trait.LOOKUP, "max_pool", "pad")
def sink(node: Node, rw: Rewriter) -> Replacement:
    """movement(dequantize(x)) -> dequantize(movement(x))"""
    inner = _dequantised(node.inputs[0], rw)
    if inner is None or (inner.inputs[0].dtype.is_narrow and not has_trait(node, Trait.INDEX_MAP)):
        return None
    x, scale, zero = inner.inputs
    operands = [x, *node.inputs[1:]]
    if node.op == "pad" and node.attrs["mode"] == "constant":
        number = scalar(node.inputs[1]) if len(node.inputs) == 2 else 0
        if number != 0:
            return None
        operands = [x, zero]
    moved = rw.emit(node.op, operands, node.attrs)
    return rw.emit("dequantize", [moved, scale, zero])


@RULES.on("transpose")
def sink_below_transpose(node: Node, rw: Rewriter) -> Replacement:
    """transpose(dequantize(w)) -> dequantize(transpose(w)), of constants with many scales"""
    inner = rw.producer(node.inputs[0], "dequantize")
    if inner is None or one_scale(inner) or not all(map(is_known, inner.inputs)):
        return None
    rank, perm = node.output.type.rank, node.attrs["perm"]

    def moved(value: Value) -> Value:
        numbers = known_numbers(value)
        assert numbers is not None
        shape = (1,) * (rank - value.type.rank) + numbers.shape
        turned = np.ascontiguousarray(numbers.reshape(shape).transpose(perm))
        return constant(turned.astype(value.dtype.numpy), value.name)

    data, scale, zero = inner.inputs
    return rw.emit("dequantize", [moved(data), moved(scale), moved(zero)])


@RULES.on("concat")
def sink_below_concat(node: Node, rw: Rewriter) -> Replacement:
    """concat(dequantize(a), dequantize(b)) -> dequantize(concat(a, b)), by the same scale"""
    parts = [_dequantised(value, rw) for value in node.inputs]
    first = parts[0]
    if first is None or any(part is None or not _alike(part, first) for part in parts):
        return None
    joined = rw.emit("concat", [part.inputs[0] for part in parts if part], node.attrs)
    return rw.emit("dequantize", [joined, *first.inputs[1:]])


@RULES.on("max", "min")
def sink_below_clip(node: Node, rw: Rewriter) -> Replacement:
    """max(dequantize(x), 0) -> dequantize(max(x, zero)): 0 is a step of every scale"""
    inner = _dequantised(node.inputs[0], rw)
    if inner is None or scalar(node.inputs[1]) != 0 or inner.inputs[0].dtype.is_narrow:
        return None
    x, scale, zero = inner.inputs
    if node.output.shape != x.shape:  # the zero has more axes, and adds them
        return None
    return rw.emit("dequantize", [rw.emit(node.op, [x, zero]), scale, zero])


@RULES.on("quantize")
def rise(node: Node, rw: Rewriter) -> Replacement:
    """quantize(movement(x)) -> movement(quantize(x)), unless it makes more of fewer elements"""
    if not one_scale(node) or node.inputs[2].dtype.is_narrow:
        return None
    inner = rw.sole(node.inputs[0], "reshape", "transpose", "slice")
    if inner is None or rw.producer(inner.inputs[0], "dequantize") is not None:
        return None
    if inner.inputs[0].type.elements != inner.output.type.elements:
        return None
    whole = rw.emit("quantize", [inner.inputs[0], *node.inputs[1:]])
    return rw.emit(inner.op, [whole], inner.attrs)


@RULES.on("quantize")
def meet(node: Node, rw: Rewriter) -> Replacement:
    """quantize(dequantize(x)) -> x, by the same scale"""
    inner = _dequantised(node.inputs[0], rw)
    if inner is None or not one_scale(node) or node.output.dtype is not inner.inputs[0].dtype:
        return None
    return inner.inputs[0] if _alike(node, inner) else None


def _alike(a: Node, b: Node) -> bool:
    """Whether two nodes quantise by the same constants."""
    return a.inputs[2].dtype is b.inputs[2].dtype and all(
        scalar(x) is not None and scalar(x) == scalar(y)
        for x, y in zip(a.inputs[1:], b.inputs[1:], strict=True)
    )


@RULES.on("dequantize", "quantize")
def one_number(node: Node, rw: Rewriter) -> Replacement:
    """Scales and zero points that are all one number have no axes."""
    x, *parameters = node.inputs
    plain = [_one(value) for value in parameters]
    if all(new is old for new, old in zip(plain, parameters, strict=True)):
        return None
    reached = broadcast_shapes(x.shape, *(value.shape for value in plain))
    return rw.emit(node.op, [x, *plain]) if reached == node.output.shape else None


def _one(value: Value) -> Value:
    """A constant of one number as such."""
    data = value.data
    if data is None or not data.size or not value.type.rank or (data != data.flat[0]).any():
        return value
    return constant(np.asarray(data.flat[0], data.dtype))
