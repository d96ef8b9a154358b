"""A sum of products that is quantised at once goes there in one step: a factor, and a bias.

Without a bias this is what ONNX Runtime computes where it fuses: (s t) / y in this order. A bias of
floats, and scales by channel, which it does not fuse, are taken into the step as well: it rounds
once where the model says three times, and a clip is one of the range of integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...compiler.ir.graph import Node, Value, constant
from ...compiler.ir.ops.quantization import RANGES
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, scalar
from ...compiler.ir.types import DType

Array = np.ndarray[Any, Any]
RULES = Rules()
BYTES = frozenset({DType.U8, DType.I8})


def float_of_sum(product: Node, rw: Rewriter) -> tuple[Value, Value] | None:
    """(sum, scale) of scale * cast(sum) where the sum is of integers."""
    value, scale = product.inputs
    made = rw.producer(value, "cast")
    if made is None or made.inputs[0].dtype is not DType.I32 or not scale.dtype.is_float:
        return None
    return made.inputs[0], scale


@RULES.on("quantize")
def requantised(node: Node, rw: Rewriter) -> Replacement:
    """quantize(clip(scale * sum + bias)) -> requantize(sum), the range clipped instead"""
    step, zero = node.inputs[1].data, node.inputs[2].data
    if step is None or zero is None or node.output.dtype not in BYTES or not step.all():
        return None
    step = step.astype(np.float32)
    with np.errstate(all="ignore"):  # what is too large for a step is found below
        return _requantised(node, step, zero, rw)


def _requantised(node: Node, step: Array, zero: Array, rw: Rewriter) -> Replacement:
    clipped = clipped_range(node, step, zero, rw)
    if clipped is None:
        return None
    value, low, high = clipped
    bias: Array | None = None
    added = rw.sole(value, "add")
    if added is not None and added.inputs[1].data is not None:
        bias, value = added.inputs[1].data, added.inputs[0]
    product = rw.sole(value, "mul")
    sums = float_of_sum(product, rw) if product is not None else None
    if sums is None or sums[1].data is None or sums[0].shape != node.output.shape:
        return None
    total, scale = sums
    assert scale.data is not None
    factor = (scale.data.astype(np.float32) / step).astype(np.float32)
    operands = [total, constant(factor), node.inputs[2]]
    if bias is not None:
        moved = (bias.astype(np.float64) / step).astype(np.float32)
        if not np.isfinite(moved).all():
            return None
        operands.append(constant(moved))
    return rw.emit("requantize", operands, {"low": low, "high": high})


def clipped_range(
    node: Node, step: Array, zero: Array, rw: Rewriter
) -> tuple[Value, int, int] | None:
    """(what is quantised before it is clipped, the range of integers that the clips leave).

    None where it is empty, or another for other channels.
    """
    least, most = (np.asarray(n, np.int64) for n in RANGES[node.output.dtype])
    low, high, value = least, most, node.inputs[0]
    while (clip := rw.sole(value, "max", "min")) is not None:
        bound = scalar(clip.inputs[1])
        if bound is None:
            break
        if not np.isfinite(bound):
            return None
        number = np.clip(np.rint(np.float32(bound) / step) + zero, least, most).astype(np.int64)
        low, high = (
            (np.maximum(low, number), high) if clip.op == "max" else (low, np.minimum(high, number))
        )
        value = clip.inputs[0]
    if low.min() != low.max() or high.min() != high.max() or low.min() > high.min():
        return None
    return value, int(low.min()), int(high.min())
