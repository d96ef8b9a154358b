"""Products of quantised data with quantised constants are products of integers.

With x = (q - z) s of the data and w = (p - o) t of the weights, the sum of x w is s t times the sum
of (q - z)(p - o), which integers add up exactly. Neither a bias nor what follows has to be
quantised: the sum goes on as a float. Where it is quantised at once, it is so from the integer
itself, as ONNX Runtime does: the scale is one factor, (s t) / y in this order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...compiler.decisions import Decision, Note
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.quantization import RANGES
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import DType
from . import requantising
from .byte_weights import why_no_bytes
from .data_products import why_no_groups
from .parameters import along, is_known, known_numbers, uniform, varying_axis, vector
from .requantising import BYTES, float_of_sum

Array = np.ndarray[Any, Any]
RULES = Rules()
RULES.extend(requantising.RULES)
_PRODUCTS = ("matmul", "conv", "conv_transpose")
MAX_BITS = 8  # of either factor
SAME_SCALE = 1e-5  # relative; a bias by another scale than its sum's is no integer there


@dataclass(frozen=True)
class IntegerProducts:
    """The pass. Sums of products are i32 afterwards, of operands cast to i32 less zero points.

    note: is told of every product that stays in floats although something of it is quantised.
    """

    note: Note | None = None
    name: str = "integer_products"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether anything was."""
        changed = rewrite(graph, RULES)
        for node in graph.walk() if self.note else ():
            if node.op in _PRODUCTS and self.note and (told := _decision(node)):
                self.note(told)
        return changed


def _decision(node: Node) -> Decision | None:
    """Why a product stays in floats; None where nothing of it is quantised."""
    data, weights = (value.producer for value in node.inputs[:2])
    real = [made is not None and made.op == "dequantize" for made in (data, weights)]
    if not any(real):
        return None
    if node.op == "conv_transpose":
        return Decision(node.name, node.op, "fp32", "transposed convolutions add up floats")
    reason = "the scale of an operand changes along the sum"
    if not real[0]:
        reason = "its data is not quantised"
    elif not real[1]:
        reason = "its weights are floats"
    elif not weights_of(weights):
        reason = "its second operand is not of 8 bits with one zero point"
        if data_of(weights):
            reason = why_no_groups(node)
    elif not data_of(data):
        reason = "its data is not of 8 bits with one zero point"
    elif no_bytes := why_no_bytes(node.op, _numbers(weights), node.attrs):
        reason = no_bytes
    return Decision(node.name, node.op, "fp32", reason)


def _is_plain(node: Node) -> bool:
    return node.attrs["accumulate"] is None and node.output.dtype is DType.F32


def weights_of(node: Node | None) -> bool:
    """Whether a node makes floats of constant integers of few bits."""
    return (
        node is not None
        and node.op == "dequantize"
        and node.inputs[1].is_constant
        and is_known(node.inputs[0])
        and is_known(node.inputs[2])
        and node.inputs[0].dtype in RANGES
        and int(node.inputs[0].dtype.value[1:]) <= MAX_BITS
    )


def data_of(node: Node | None) -> bool:
    """Whether a node makes floats of bytes by one scale."""
    return (
        node is not None
        and node.op == "dequantize"
        and node.inputs[0].dtype in BYTES
        and uniform(node.inputs[2])
        and node.inputs[1].dtype is DType.F32
    )


@RULES.on("matmul", "conv")
def integer_product(node: Node, rw: Rewriter) -> Replacement:
    """product(dequantize(q), dequantize(p)) -> scale * product(q - z, p - o), in i32"""
    if not _is_plain(node):
        return None
    data, weights = (rw.producer(value, "dequantize") for value in node.inputs[:2])
    if data is None or weights is None or not data_of(data) or not weights_of(weights):
        return None
    scale = _common_scale(node, data, weights, rw)
    if scale is None or why_no_bytes(node.op, _numbers(weights), node.attrs):
        return None
    total = _sum(node, data, weights, rw)
    bias = _bias(node, scale, rw)
    if bias is not None and bias.dtype is DType.I32:
        total = rw.emit("add", [total, bias])
    real = rw.emit("mul", [rw.emit("cast", [total], {"dtype": DType.F32}), scale])
    return rw.emit("add", [real, bias]) if bias is not None and bias.dtype.is_float else real


@RULES.on("matmul")
def product_of_data(node: Node, rw: Rewriter) -> Replacement:
    """matmul(dequantize(q), dequantize(p)) -> scale * matmul(q - z, p - o), p made by the run"""
    if not _is_plain(node) or why_no_groups(node):
        return None
    made = [rw.producer(value, "dequantize") for value in node.inputs]
    left, right = made
    if left is None or right is None or not (data_of(left) and data_of(right)):
        return None
    if not all(uniform(side.inputs[1]) for side in (left, right)):
        return None
    numbers = [_centred(side, rw) for side in (left, right)]
    total = rw.emit("cast", [rw.emit("matmul", numbers, node.attrs)], {"dtype": DType.F32})
    return rw.emit("mul", [total, _scale_of_both(left.inputs[1], right.inputs[1], rw)])


def _scale_of_both(a: Value, b: Value, rw: Rewriter) -> Value:
    """The product of two scales of one element each: a constant if both are."""
    if a.data is not None and b.data is not None:
        return constant(np.float32(a.data.reshape(())) * np.float32(b.data.reshape(())))
    return rw.emit("mul", [rw.emit("reshape", [scale], {"shape": ()}) for scale in (a, b)])


def _common_scale(node: Node, data: Node, weights: Node, rw: Rewriter) -> Value | None:
    """The factor of every sum, shaped like the result; None where steps of a sum differ."""
    conv = node.op == "conv"
    rank = node.output.type.rank
    x_scale, w_scale = data.inputs[1], weights.inputs[1]
    channels = node.output.shape[1 if conv else -1]
    out, own = (0, 1) if conv else (weights.output.type.rank - 1, rank - 1)
    if varying_axis(w_scale, weights.output.type.rank) not in (-1, out):
        return None
    if not isinstance(channels, int):
        return None
    assert w_scale.data is not None
    factor = w_scale.data.astype(np.float32).reshape(-1)
    by_channel = along(factor, own, rank) if factor.size > 1 else factor.reshape(())
    if uniform(x_scale):
        if x_scale.data is not None:
            return constant(np.float32(x_scale.data.reshape(())) * by_channel)
        return rw.emit("mul", [rw.emit("reshape", [x_scale], {"shape": ()}), constant(by_channel)])
    axis = varying_axis(x_scale, data.output.type.rank)
    depthwise = conv and axis == 1 and _is_depthwise(node)
    if depthwise and x_scale.data is not None:
        return constant(along(vector(x_scale, channels), 1, rank) * by_channel)
    if not conv and axis is not None and axis == data.output.type.rank - 2:  # one for each row
        return rw.emit("mul", [x_scale, constant(by_channel)])
    return None


def _is_depthwise(node: Node) -> bool:
    """Whether every channel of a convolution is made of one, and there are as many."""
    filters = node.inputs[1].shape
    return bool(node.attrs["groups"] == filters[0] and filters[1] == 1)


def _sum(node: Node, data: Node, weights: Node, rw: Rewriter) -> Value:
    """The product of what both operands are before they are scaled, in i32."""
    numbers = constant(_numbers(weights).astype(np.int32), weights.inputs[0].name)
    return rw.emit(node.op, [_centred(data, rw), numbers], node.attrs)


def _centred(data: Node, rw: Rewriter) -> Value:
    """What quantised data are before they are scaled, in i32."""
    q, _, zero = data.inputs
    wide = rw.emit("cast", [q], {"dtype": DType.I32})
    if zero.data is not None:
        number = int(zero.data.reshape(()))
        wide = rw.emit("sub", [wide, constant(np.int32(number))]) if number else wide
    else:
        moved = rw.emit("cast", [zero], {"dtype": DType.I32})
        wide = rw.emit("sub", [wide, rw.emit("reshape", [moved], {"shape": ()})])
    return wide


def _numbers(weights: Node | None) -> Array:
    """Constant weights less their zero points, before they are scaled: bytes as they are if there
    is nothing to be taken off, as large weights are looked at more than once, else i32."""
    assert weights is not None
    stored, _, zero = weights.inputs
    p, offset = stored.data, known_numbers(zero)
    assert offset is not None
    if p is not None and stored.dtype in BYTES and not offset.any():
        return p
    p = known_numbers(stored)
    assert p is not None
    return np.asarray(p.astype(np.int32) - offset.astype(np.int32))


def _bias(node: Node, scale: Value, rw: Rewriter) -> Value | None:
    """A convolution's bias as it is added to sums, i32 or f32, shaped like the result."""
    if len(node.inputs) < 3:
        return None
    shape = tuple(-1 if axis == 1 else 1 for axis in range(node.output.type.rank))
    made = rw.producer(node.inputs[2], "dequantize")
    if made is not None and _is_integer_bias(made, scale):
        number = made.inputs[0].data
        assert number is not None
        return constant(number.reshape(shape))
    bias = node.inputs[2]
    if bias.data is not None:
        return constant(bias.data.reshape(shape))
    channels = node.output.shape[1]
    return rw.emit("reshape", [bias], {"shape": tuple(channels if n < 0 else n for n in shape)})


def _is_integer_bias(node: Node, scale: Value) -> bool:
    """Whether a node makes floats of constant i32 by the scale of the sums they are added to."""
    number, own, zero = (value.data for value in node.inputs)
    if number is None or own is None or zero is None or scale.data is None:
        return False
    if number.dtype != np.int32 or zero.any() or own.dtype != np.float32:
        return False
    factors = scale.data.reshape(-1)
    if own.size not in (1, factors.size) and factors.size != 1:
        return False
    return bool(np.allclose(own.reshape(-1), factors, rtol=SAME_SCALE, atol=0))


@RULES.on("add")
def integer_bias(node: Node, rw: Rewriter) -> Replacement:
    """scale * sum + dequantize(bias) -> scale * (sum + bias), by the same scale"""
    for own, other in (node.inputs, node.inputs[::-1]):
        product = rw.sole(own, "mul")
        made = rw.producer(_unexpanded(other, rw), "dequantize")
        if product is None or made is None or node.output.shape != own.shape:
            continue
        sums = float_of_sum(product, rw)
        if sums is None or not _is_integer_bias(made, sums[1]):
            continue
        total, scale = sums
        moved = rw.emit("add", [total, made.inputs[0]])
        return rw.emit("mul", [rw.emit("cast", [moved], {"dtype": DType.F32}), scale])
    return None


def _unexpanded(value: Value, rw: Rewriter) -> Value:
    node = rw.producer(value, "expand", "broadcast_to")
    return node.inputs[0] if node is not None else value
