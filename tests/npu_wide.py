"""TOSA graphs with accumulators of 48 bits, by Arm's own serializer."""

from __future__ import annotations

import numpy as np


def wide_convolution(depthwise: bool) -> bytes:
    """A 3x3 convolution of 16 channels of 16 bits, with a scale for each channel."""
    import tosa_serializer as ts

    rng = np.random.default_rng(8)
    file = ts.TosaSerializer("", ts.ConstMode.EMBED, 1, 0, 0, False)
    outputs, shape = (16, (3, 3, 16, 1)) if depthwise else (24, (24, 3, 3, 16))
    made = [1, 9, 9, outputs]

    def constant(data, type, name):
        return file.addConst(list(data.shape), type, data, name).name

    file.addInputTensor(ts.TosaSerializerTensor("x", [1, 9, 9, 16], ts.DType.INT16))
    wide, narrow = ts.DType.INT48, ts.DType.INT16
    operands = [
        "x",
        constant(rng.integers(-127, 128, shape).astype(np.int8), ts.DType.INT8, "weights"),
        constant(rng.integers(-(10**6), 10**6, outputs), wide, "bias"),
        constant(np.zeros(1, np.int16), narrow, "zero_of_input"),
        constant(np.zeros(1, np.int8), ts.DType.INT8, "zero_of_weights"),
    ]
    attributes = ts.TosaSerializerAttribute()
    define = attributes.DepthwiseConv2dAttribute if depthwise else attributes.Conv2dAttribute
    define([1] * 4, [1, 1], [1, 1], False, wide)
    total = file.addIntermediate(made, wide).name
    op = ts.Op.DEPTHWISE_CONV2D if depthwise else ts.Op.CONV2D
    file.addOperator(op, operands, [total], attributes)
    operands = [
        total,
        constant(rng.integers(1 << 14, 1 << 15, outputs).astype(np.int16), narrow, "factors"),
        constant(np.full(outputs, 24 if depthwise else 27, np.int8), ts.DType.INT8, "shifts"),
        constant(np.zeros(1, np.int64), wide, "zero_of_total"),
        constant(np.zeros(1, np.int16), narrow, "zero_of_output"),
    ]
    attributes = ts.TosaSerializerAttribute()
    attributes.RescaleAttribute(False, ts.RoundingMode.SINGLE_ROUND, True, False, False)
    output = file.addOutput(made, narrow).name
    file.addOperator(ts.Op.RESCALE, operands, [output], attributes)
    return file.serialize()
