"""Convolutions and matrix products in TOSA."""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ir.graph import Node, Value
from ....compiler.ir.ops.fixed_point import mean_scale
from ....compiler.ir.rewrite import scalar
from ....compiler.ir.types import DType
from .graph import Array, Tensor
from .lowering import Lowering, as_bytes, lowers, narrowed
from .schema import ElementType, Op

_PRODUCTS = ("conv", "conv_transpose", "matmul")


@lowers("conv", "conv_transpose", "matmul")
def product(low: Lowering, node: Node) -> Tensor:
    """A product without a bias; `with_bias` makes it anew where there is one."""
    return _product(low, node, None)


def with_bias(low: Lowering, node: Node) -> Tensor | None:
    """The sum of a product of constant weights and constants for each output channel, in one
    operator; None where an `add` is none."""
    left, right = node.inputs
    made = left.producer
    if made is None or made.op not in _PRODUCTS or right.data is None:
        return None
    weights = made.inputs[1]
    if left.shape != node.output.shape or not weights.is_constant:
        return None
    if made.op == "matmul" and weights.type.rank != 2:
        return None  # of batches
    channels = int(node.output.shape[-1])
    if right.data.size not in (1, channels) or right.data.size != (right.shape or (1,))[-1]:
        return None
    return _product(low, made, np.broadcast_to(right.data.reshape(-1), (channels,)))


def _product(low: Lowering, node: Node, bias: Array | None) -> Tensor:
    if node.op == "conv":
        return _conv(low, node, bias)
    if node.op == "conv_transpose":
        return _transposed(low, node, bias)
    weights = node.inputs[1]
    if weights.data is not None and weights.type.rank == 2:
        return _fully_connected(low, node, weights.data, bias)
    return _matmul(low, node)


def _operands(low: Lowering, data: Value, weights: Array, bias: Array | None) -> list[Tensor]:
    """Data, weights (output channels first, or channels and multiples last), bias, zero points."""
    x, zero = low.narrow(data)
    graph = low.graph
    count = math.prod(weights.shape[2:]) if bias is None else bias.size
    numbers = np.zeros(count, np.int32) if bias is None else bias
    return [
        x, graph.constant(as_bytes(weights), ElementType.INT8),
        graph.constant(numbers, ElementType.INT32),
        graph.number(zero, x.type), graph.number(0, ElementType.INT8),
    ]  # fmt: skip


def _conv(low: Lowering, node: Node, bias: Array | None) -> Tensor:
    weights, attrs = node.inputs[1].data, node.attrs
    assert weights is not None
    kernel, channels = weights.shape[:2], node.inputs[0].shape[-1]
    if attrs["groups"] > 1:
        op, filters = Op.DEPTHWISE_CONV2D, weights.reshape(*kernel, int(channels), -1)
    else:
        op, filters = Op.CONV2D, weights.transpose(3, 0, 1, 2)
    if bias is None:
        bias = np.zeros(weights.shape[-1], np.int32)
    operands = _operands(low, node.inputs[0], filters, bias)
    operands[0], pads = fitted(low, operands[0], node, kernel)
    return low.emit(
        op, operands, node.output.shape, DType.I32,
        pad=pads, stride=steps_of(node), dilation=list(attrs["dilations"]),
    )  # fmt: skip


def steps_of(node: Node) -> list[int]:
    """From one window to the next; 1 where there is no next one."""
    sizes = node.output.shape[1:-1]
    return [step if n > 1 else 1 for n, step in zip(sizes, node.attrs["strides"], strict=True)]


def fitted(
    low: Lowering, x: Tensor, node: Node, kernel: tuple[int, ...]
) -> tuple[Tensor, list[int]]:
    """(data, margins top, bottom, left, right) of which windows leave nothing over: what no window
    reaches is taken off the margin, or cut off."""
    attrs, sizes = node.attrs, list(x.shape)
    margins: list[int] = []
    for n in range(2):
        first, last = attrs["pads"][n], attrs["pads"][2 + n]
        reach = (node.output.shape[1 + n] - 1) * attrs["strides"][n] + 1
        reach += (kernel[n] - 1) * attrs["dilations"][n]
        over = sizes[1 + n] + first + last - reach
        sizes[1 + n] -= max(0, over - last)
        margins += [first, max(0, last - over) if over >= 0 else last - over]
    if tuple(sizes) != x.shape:
        starts = low.graph.sizes([0] * len(sizes))
        x = low.graph.emit(Op.SLICE, [x, starts, low.graph.sizes(sizes)], sizes, x.type)
    return x, margins


def _transposed(low: Lowering, node: Node, bias: Array | None) -> Tensor:
    weights, attrs = node.inputs[1].data, node.attrs
    assert weights is not None
    filters = weights.transpose(3, 0, 1, 2)  # H, W, channels, output channels
    if bias is None:
        bias = np.zeros(weights.shape[-1], np.int32)
    operands = _operands(low, node.inputs[0], filters, bias)
    pads, extra = attrs["pads"], attrs["output_padding"]
    margins = [-pads[0], extra[0] - pads[2], -pads[1], extra[1] - pads[3]]
    return low.emit(
        Op.TRANSPOSE_CONV2D, operands, node.output.shape, DType.I32,
        out_pad=margins, stride=list(attrs["strides"]),
    )  # fmt: skip


def _fully_connected(low: Lowering, node: Node, weights: Array, bias: Array | None) -> Tensor:
    """Rows times constant columns: a convolution of one element, along the height."""
    depth, columns = weights.shape
    if bias is None:
        bias = np.zeros(columns, np.int32)
    operands = _operands(low, node.inputs[0], weights.T.reshape(columns, 1, 1, depth), bias)
    rows = math.prod(node.output.shape[:-1])
    operands[0] = low.graph.reshape(operands[0], (1, rows, 1, depth))
    total = low.emit(
        Op.CONV2D, operands, (1, rows, 1, columns), DType.I32,
        pad=[0] * 4, stride=[1, 1], dilation=[1, 1],
    )  # fmt: skip
    return low.graph.reshape(total, node.output.shape)


def _matmul(low: Lowering, node: Node) -> Tensor:
    """Matrices that the run makes, or batches of constant ones."""
    batch = tuple(int(n) for n in node.output.shape[:-2])
    (left, of_left), (right, of_right) = (_bytes(low, value) for value in node.inputs)
    operands = [_batched(low, tensor, batch) for tensor in (left, right)]
    operands += [low.graph.number(of_left, left.type), low.graph.number(of_right, right.type)]
    shape = (math.prod(batch), *node.output.shape[-2:])
    return low.graph.reshape(low.emit(Op.MATMUL, operands, shape, DType.I32), node.output.shape)


def _bytes(low: Lowering, value: Value) -> tuple[Tensor, int]:
    """(bytes, zero point) of which an operand is made, or that it is where it is constant."""
    if value.data is None:
        return low.narrow(value)
    return low.graph.constant(as_bytes(value.data), ElementType.INT8), 0


def _batched(low: Lowering, x: Tensor, batch: tuple[int, ...]) -> Tensor:
    """Matrices with one batch axis, repeated where they have fewer."""
    matrix = x.shape[-2:]
    own = (1,) * (len(batch) + 2 - len(x.shape)) + x.shape[:-2]
    x = low.graph.reshape(x, (*own, *matrix))
    if own != batch:
        times = [whole // size for whole, size in zip(batch, own, strict=True)]
        x = low.graph.emit(Op.TILE, [x, low.graph.sizes([*times, 1, 1])], (*batch, *matrix), x.type)
    return low.graph.reshape(x, (math.prod(batch), *matrix))


def averaged(node: Node) -> Node | None:
    """The convolution with ones of whose sums a `requantize` makes the mean of every window, if
    bytes stay by the same scale; None for all others."""
    total, scale, zero = node.inputs
    made, factor = total.producer, scalar(scale)
    if made is None or made.op != "conv" or factor is None or len(made.inputs) > 2:
        return None
    weights, attrs = made.inputs[1].data, made.attrs
    channels = made.output.shape[-1]
    if weights is None or (weights != 1).any() or attrs["groups"] != channels:
        return None
    source, of_source = narrowed(made.inputs[0])
    plain = not any(attrs["pads"]) and set(attrs["dilations"]) == {1}
    if factor != mean_scale(math.prod(weights.shape[:2])) or not plain:
        return None
    bytes_ = source.dtype is node.output.dtype is DType.I8
    return made if bytes_ and of_source == scalar(zero) else None


def average(low: Lowering, node: Node) -> Tensor | None:
    """The mean of every window, of a node that makes it (see `averaged`); None for all others."""
    made = averaged(node)
    if made is None:
        return None
    x, zero = low.narrow(made.inputs[0])
    kernel = made.inputs[1].type.static_shape[:2]
    x, pads = fitted(low, x, made, kernel)
    zeros = [low.graph.number(zero, x.type)] * 2
    return low.emit(
        Op.AVG_POOL2D, [x, *zeros], node.output.shape, DType.I8,
        kernel=list(kernel), stride=steps_of(made), pad=pads,
    )  # fmt: skip
