"""Rule: layer normalisation in integers.

With n numbers x of a row, c = 128 (x - mean(x)) has 16 bits, v = mean(c c) is a sum of addends that
are divided by n beforehand, and 1 / sqrt(v + epsilon) is interpolated (`levels.py`).
"""

from __future__ import annotations

import math

import numpy as np

from ....compiler.ir.graph import Node, Value, constant
from ....compiler.ir.rewrite import Replacement, Rewriter, Rules
from ....compiler.ir.types import DType
from .levels import function_of, levels_of
from .operands import Array, FixedPoint, QuantisedResult, given, operand_of, rescaled, result_of

RULES = Rules()
_CENTRED_BITS = 7  # behind the point, of differences from the mean of bytes
_MEAN_BITS = 15  # of the mean itself
_ROOT_BITS = 25  # of the inverse of the root, at most
_LEAST = 1 << 10  # variance, in the unit of v: a quarter of a step, squared
_MOST = float(1 << 30)
_SUM_BITS = 30
_SCALE_MOST = (1 << 15) - 1


@RULES.on("quantize")
def in_integers(node: Node, rw: Rewriter) -> Replacement:
    """quantize(layer_norm(dequantize(x))) -> the same of bytes"""
    result = result_of(node, rw)
    made = None if result is None else rw.producer(result.value, "layer_norm")
    if result is None or made is None or not made.inputs[0].type.is_static:
        return None
    operand = operand_of(made.inputs[0], rw)
    parameters = [value.data for value in made.inputs[1:]]
    if operand is None or operand.integers.dtype is not DType.I8 or operand.scale.size != 1:
        return None
    if any(data is None or not np.isfinite(data).all() for data in parameters):
        return None
    axes = tuple(range(made.attrs["axis"] % made.output.type.rank, made.output.type.rank))
    count = math.prod(made.inputs[0].shape[axis] for axis in axes)
    if not 1 < count <= 1 << _MEAN_BITS:
        return None
    normal, unit = _normalised(operand, axes, count, made.attrs["epsilon"], rw)
    return _scaled(normal, unit, [np.asarray(data) for data in parameters], result, rw)


def _wide(value: Value, rw: Rewriter) -> Value:
    return rw.emit("cast", [value], {"dtype": DType.I32})


def _normalised(
    x: FixedPoint, axes: tuple[int, ...], count: int, epsilon: float, rw: Rewriter
) -> tuple[Value, float]:
    """((x - mean) / sqrt(variance + epsilon) as i16, what a step of it is)"""
    along = {"axes": axes, "keepdims": True}
    wide, scale = _wide(x.integers, rw), x.largest_scale
    mean_unit = 1 << _MEAN_BITS
    mean = rescaled(rw.emit("reduce_sum", [wide], along), mean_unit / count, DType.I32, rw)
    difference = rw.emit("sub", [rescaled(wide, mean_unit, DType.I32, rw), mean])
    centred = rescaled(difference, 2.0 ** (_CENTRED_BITS - _MEAN_BITS), DType.I16, rw)
    centred = _wide(centred, rw)
    squares = rescaled(rw.emit("mul", [centred, centred]), 1 / count, DType.I32, rw)
    variance = rw.emit("reduce_sum", [squares], along)
    reach_bits = math.ceil(math.log2(count) / 2)  # no element is above sqrt(n) deviations
    root_unit = float(1 << min(_ROOT_BITS, _SUM_BITS - reach_bits))
    added = epsilon / (scale * scale) * (1 << 2 * _CENTRED_BITS)
    inverse = function_of(
        variance, _MOST, levels_of(_MOST, _LEAST), lambda v: root_unit / np.sqrt(v + added), rw
    )
    normal_unit = float(1 << (15 - reach_bits))
    product = rw.emit("mul", [centred, inverse])
    return rescaled(product, normal_unit / root_unit, DType.I16, rw), 1 / normal_unit


def _scaled(
    normal: Value, unit: float, parameters: list[Array], result: QuantisedResult, rw: Rewriter
) -> Value:
    """normal * scale + bias, each a number for every element of a row."""
    scale, *bias = parameters
    step = max(float(np.abs(scale).max()), 1e-30) / _SCALE_MOST
    factors = constant(np.rint(scale / step).astype(np.int32))
    total = rw.emit("mul", [_wide(normal, rw), factors])
    for data in bias:
        moved = np.clip(np.rint(data / (unit * step)), -(2.0**_SUM_BITS), 2.0**_SUM_BITS)
        total = rw.emit("add", [total, constant(moved.astype(np.int32))])
    return given(total, unit * step, result, rw)
