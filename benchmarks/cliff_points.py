"""Cases of `cliffs.py` of one operator that is computed point by point, or along axes."""

from __future__ import annotations

import numpy as np

from .cliff_cases import Array, drawn
from .cliff_operators import PICTURE, TOKENS, Fixed, add, whole


def _places(channels: int, size: int) -> Array:
    """Of each window of 2 x 2 of a picture, the place of its first element."""
    rows, columns = np.arange(size) * 2 * (2 * size), np.arange(size) * 2
    plane = rows[:, None] + columns
    return np.arange(channels)[None, :, None, None] * (4 * size * size) + plane[None, None]


for op in (
    "Exp",
    "Log",
    "Sqrt",
    "Erf",
    "Tanh",
    "Sigmoid",
    "Sin",
    "Tan",
    "Atan",
    "Asin",
    "Sinh",
    "Asinh",
    "Acosh",
    "Atanh",
    "Softplus",
    "Softsign",
    "Elu",
    "Selu",
    "HardSwish",
    "Mish",
    "Gelu",
    "Round",
    "Floor",
    "Reciprocal",
    "Sign",
    "IsNaN",
    "Neg",
    "Celu",
    "ThresholdedRelu",
    "HardSigmoid",
    "LeakyRelu",
    "Shrink",
):
    positive = op in ("Log", "Sqrt", "Acosh")
    limited = op in ("Asin", "Atanh")
    add(
        f"f32_{op}",
        op,
        lambda p=positive, q=limited: [
            np.abs(drawn(256, 1024)) + 1
            if p
            else np.clip(drawn(256, 1024, scale=0.3), -0.9, 0.9)
            if q
            else drawn(256, 1024)
        ],
    )
for op in ("Exp", "Log", "Sqrt", "Erf", "Tanh", "Sigmoid", "Sin", "Abs", "Relu"):
    if op != "Erf":
        add(f"f64_{op}", op, lambda: [np.abs(drawn(256, 256).astype(np.float64))])
for op in ("Add", "Mul", "Div", "Pow", "Max", "Mod", "Less", "Equal", "PRelu", "Sub"):
    same = {"fmod": 1} if op == "Mod" else {}
    add(
        f"rows_{op}",
        op,
        lambda: [np.abs(drawn(*TOKENS)), np.abs(drawn(384, seed=1)) + 0.5],
        **same,
    )
    if op in ("Add", "Mul", "Pow", "Less"):
        add(
            f"columns_{op}",
            op,
            lambda: [np.abs(drawn(1024, 384)), np.abs(drawn(1024, 1, seed=1))],
        )
        add(f"outer_{op}", op, lambda: [np.abs(drawn(512, 1)), np.abs(drawn(1, 512, seed=1))])
for op in ("Add", "Mul", "Div", "Mod", "Pow", "Max", "Less", "Equal", "Sub"):
    add(f"i64_{op}", op, lambda: [whole(100, 256, 512), whole(9, 512, low=1)])
add(
    "i32_Div",
    "Div",
    lambda: [whole(100, 256, 512, dtype=np.int32), whole(9, 512, dtype=np.int32, low=1)],
)
add("f64_Pow", "Pow", lambda: [np.abs(drawn(256, 256).astype(np.float64)), np.float64([1.7])])
add("pow_2", "Pow", lambda: [drawn(256, 1024), Fixed(np.float32(2))])
add("pow_half", "Pow", lambda: [np.abs(drawn(256, 1024)), Fixed(np.float32(0.5))])
add("pow_general", "Pow", lambda: [np.abs(drawn(256, 1024)), Fixed(np.float32(1.7))])
add("clip_i64", "Clip", lambda: [whole(100, 256, 512), Fixed(np.int64(3)), Fixed(np.int64(90))])
add("sum_4", "Sum", lambda: [drawn(*TOKENS, seed=i) for i in range(4)])
add("max_3", "Max", lambda: [drawn(*TOKENS, seed=i) for i in range(3)])
add("and", "And", lambda: [drawn(256, 1024) > 0, drawn(256, 1024, seed=1) > 0])
add(
    "bitshift",
    "BitShift",
    lambda: [whole(100, 256, 512, dtype=np.uint32), whole(9, 512, dtype=np.uint32)],
    direction="LEFT",
)
add(
    "quantize",
    "QuantizeLinear",
    lambda: [drawn(*PICTURE), Fixed(np.float32(0.1)), Fixed(np.uint8(10))],
)
add("quantize_dynamic", "DynamicQuantizeLinear", lambda: [drawn(*PICTURE)], 3)
add(
    "dequantize_channels",
    "DequantizeLinear",
    lambda: [
        whole(256, *PICTURE, dtype=np.uint8),
        Fixed(np.abs(drawn(64)) + 0.1),
        Fixed(np.zeros(64, np.uint8)),
    ],
)


for op in (
    "ReduceSum",
    "ReduceMean",
    "ReduceMax",
    "ReduceL2",
    "ReduceProd",
    "ReduceLogSumExp",
    "ReduceMin",
    "ReduceL1",
):
    scale = 0.1 if op == "ReduceProd" else 1.0
    for name, axes in (
        ("rows", [-1]),
        ("middle", [1]),
        ("first", [0]),
        ("two", [1, 2]),
        ("outer", [0, 2]),
    ):
        add(
            f"{name}_{op}",
            op,
            lambda a=axes, k=scale: [1 + drawn(*TOKENS, scale=k * 0.1), Fixed(a)],
        )
    add(
        f"planes_{op}",
        op,
        lambda k=scale: [1 + drawn(1, 64, 56, 56, scale=k * 0.1), Fixed([2, 3])],
    )
add("i64_ReduceSum", "ReduceSum", lambda: [whole(100, 256, 512), Fixed([1])])
add("i64_ReduceMax", "ReduceMax", lambda: [whole(100, 256, 512), Fixed([0])])
add("f64_ReduceMean", "ReduceMean", lambda: [drawn(256, 512).astype(np.float64), Fixed([1])])
add("all_ReduceSum", "ReduceSum", lambda: [drawn(*TOKENS)], keepdims=0)
add("cumsum_rows", "CumSum", lambda: [drawn(128, 2048), Fixed(1)])
add("cumsum_first", "CumSum", lambda: [drawn(2048, 128), Fixed(0)])
add("cumsum_one", "CumSum", lambda: [drawn(1, 65536), Fixed(1)])
add("cumsum_i64", "CumSum", lambda: [whole(2, 8, 2048), Fixed(1)])
add("cumsum_middle", "CumSum", lambda: [drawn(16, 128, 64), Fixed(1)], reverse=1)
add("softmax_rows", "Softmax", lambda: [drawn(*TOKENS)])
add("softmax_short", "Softmax", lambda: [drawn(8192, 10)])
add("softmax_channels", "Softmax", lambda: [drawn(1, 21, 128, 128)], axis=1)
add("softmax_f64", "Softmax", lambda: [drawn(128, 512).astype(np.float64)])
add("log_softmax", "LogSoftmax", lambda: [drawn(32, 8000)])
add("hardmax", "Hardmax", lambda: [drawn(512, 256)])
add("lp_norm", "LpNormalization", lambda: [drawn(1024, 256)], axis=-1, p=2)
add(
    "layer_norm",
    "LayerNormalization",
    lambda: [drawn(*TOKENS), Fixed(drawn(384)), Fixed(drawn(384))],
)
add(
    "layer_norm_short",
    "LayerNormalization",
    lambda: [drawn(8192, 32), Fixed(drawn(32)), Fixed(drawn(32))],
)
add(
    "instance_norm",
    "InstanceNormalization",
    lambda: [drawn(*PICTURE), Fixed(drawn(64)), Fixed(drawn(64))],
)
add(
    "instance_norm_1d",
    "InstanceNormalization",
    lambda: [drawn(1, 64, 4000), Fixed(drawn(64)), Fixed(drawn(64))],
)
add(
    "batch_norm",
    "BatchNormalization",
    lambda: [drawn(*PICTURE), *(Fixed(np.abs(drawn(64, seed=i)) + 0.1) for i in range(4))],
)
add("mean_variance", "MeanVarianceNormalization", lambda: [drawn(*PICTURE)])
add("lrn", "LRN", lambda: [drawn(*PICTURE)], size=5)
for name, shape, window in (
    ("", PICTURE, {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}),
    ("_5", PICTURE, {"kernel_shape": [5, 5], "pads": [2] * 4}),
    ("_13", (1, 64, 20, 20), {"kernel_shape": [13, 13], "pads": [6] * 4}),
    ("_1d", (1, 64, 4000), {"kernel_shape": [4], "strides": [4]}),
    ("_3d", (1, 32, 16, 28, 28), {"kernel_shape": [2, 2, 2], "strides": [2, 2, 2]}),
):
    add(f"max_pool{name}", "MaxPool", lambda s=shape: [drawn(*s)], **window)
    add(f"average_pool{name}", "AveragePool", lambda s=shape: [drawn(*s)], **window)
add(
    "max_pool_indices",
    "MaxPool",
    lambda: [drawn(*PICTURE)],
    2,
    kernel_shape=[2, 2],
    strides=[2, 2],
)
add(
    "max_unpool",
    "MaxUnpool",
    lambda: [drawn(1, 64, 28, 28), _places(64, 28)],
    kernel_shape=[2, 2],
    strides=[2, 2],
)
add("global_pool", "GlobalAveragePool", lambda: [drawn(1, 512, 7, 7)])
add("global_max", "GlobalMaxPool", lambda: [drawn(*PICTURE)])
add("lp_pool", "LpPool", lambda: [drawn(*PICTURE)], kernel_shape=[2, 2], strides=[2, 2])
