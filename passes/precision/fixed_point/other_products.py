"""Rules: products that other passes leave in floats."""

from __future__ import annotations

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ....compiler.ir.types import DType
from ..integer_products import weights_of
from ..parameters import known_numbers, varying_axis
from .operands import Array, QuantisedResult, centred, given, integer_bias, operand_of, result_of

RULES = Rules()


@RULES.on("quantize")
def product(node: Node, rw: Rewriter) -> Replacement:
    """quantize(product(dequantize(a), dequantize(b)) + bias), of matrices that a run makes and of
    transposed convolutions"""
    result = result_of(node, rw)
    if result is None:
        return None
    value, bias = result.value, None
    added = rw.producer(value, "add")
    if added is not None and added.inputs[1].data is not None:
        bias, value = added.inputs[1].data, added.inputs[0]
    made = rw.producer(value, "matmul", "conv_transpose")
    if made is None or made.output.dtype is not DType.F32:
        return None
    of = _transposed if made.op == "conv_transpose" else _of_data
    return of(made, bias, result, rw)


def _of_data(made: Node, bias: Array | None, result: QuantisedResult, rw: Rewriter) -> Replacement:
    left, right = (operand_of(value, rw) for value in made.inputs)
    if left is None or right is None or made.attrs["accumulate"] is not None:
        return None
    if left.scale.size != 1 or right.scale.size != 1:
        return None
    if not left.integers.dtype is right.integers.dtype is DType.I8:
        return None
    total = rw.emit("matmul", [centred(left, rw), centred(right, rw)])
    scale = left.scale.astype(np.float64) * right.scale
    return _biased(total, scale.reshape(()), bias, result, rw)


def _transposed(
    made: Node, bias: Array | None, result: QuantisedResult, rw: Rewriter
) -> Replacement:
    data = operand_of(made.inputs[0], rw)
    weights = rw.producer(made.inputs[1], "dequantize")
    if data is None or data.scale.size != 1 or weights is None or not weights_of(weights):
        return None
    p, scales, zero = (known_numbers(value) for value in weights.inputs)
    if p is None or scales is None or zero is None:
        return None
    rank = made.output.type.rank
    axis = varying_axis(weights.inputs[1], rank)
    if made.attrs["groups"] != 1 or axis not in (-1, 1) or made.attrs["layout"] != "NCHW":
        return None
    numbers = constant(p.astype(np.int32) - zero.astype(np.int32), weights.inputs[0].name)
    total = rw.emit("conv_transpose", [centred(data, rw), numbers], made.attrs)
    spatial = (1,) * (rank - 2)
    scale = (data.scale.astype(np.float64) * scales.reshape(-1)).reshape(-1, *spatial)
    own = made.inputs[2].data if len(made.inputs) > 2 else None
    if len(made.inputs) > 2 and own is None:
        return None
    if own is not None:
        bias = own.reshape(-1, *spatial) + (0 if bias is None else bias)
    return _biased(total, scale if scale.size > 1 else scale.reshape(()), bias, result, rw)


def _biased(
    total: Value, scale: Array, bias: Array | None, result: QuantisedResult, rw: Rewriter
) -> Replacement:
    if bias is not None:
        moved = integer_bias(bias, scale)
        if moved is None:
            return None
        total = rw.emit("add", [total, constant(moved)])
    return given(total, scale, result, rw)
