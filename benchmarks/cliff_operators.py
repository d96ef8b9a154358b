"""Cases of `cliffs.py` of one operator each, at sizes that models have: layers of networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .cliff_cases import Array, Built, case, drawn, model, node

OPSET = 20
PICTURE = (1, 64, 56, 56)
TOKENS = (8, 128, 384)


@dataclass(frozen=True)
class Fixed:
    """An operand that is a constant of the model."""

    value: Any


Operand = Array | Fixed | None  # None: left out
Operands = Callable[[], Sequence[Operand]]


def whole(high: int, *shape: int, dtype: Any = np.int64, low: int = 0) -> Array:
    """Integers from `low` to below `high`."""
    found: Array = np.random.default_rng(0).integers(low, high, shape).astype(dtype)
    return found


def single(op: str, operands: Operands, results: int, attributes: Mapping[str, Any]) -> Built:
    """A model of one node; what is no constant is an input."""
    inputs: dict[str, Array] = {}
    constants: dict[str, Array] = {}
    names = []
    for number, operand in enumerate(operands()):
        names.append("" if operand is None else f"x{number}")
        if isinstance(operand, Fixed):
            constants[names[-1]] = np.asarray(operand.value)
        elif operand is not None:
            inputs[names[-1]] = operand
    outputs = [f"y{number}" for number in range(results)]
    proto, inputs = model([node(op, names, outputs, **attributes)], inputs, {}, outputs, constants)
    proto.opset_import[0].version = OPSET
    return proto, inputs


def add(name: str, op: str, operands: Operands, results: int = 1, **attributes: Any) -> None:
    """Add the case `op_<name>`."""
    case(f"op_{name}", op, operands, results, attributes)(single)


for name, x, w, more in (
    (
        "transpose_3_2",
        (1, 64, 28, 28),
        (64, 32, 3, 3),
        {"strides": [2, 2], "pads": [1] * 4, "output_padding": [1, 1]},
    ),
    ("transpose_4_2", (1, 64, 28, 28), (64, 32, 4, 4), {"strides": [2, 2], "pads": [1] * 4}),
    ("transpose_2_2", (1, 64, 56, 56), (64, 32, 2, 2), {"strides": [2, 2]}),
    ("transpose_5_3", (1, 32, 28, 28), (32, 16, 5, 5), {"strides": [3, 3]}),
    ("transpose_3_3", (1, 32, 28, 28), (32, 1, 3, 3), {"strides": [3, 3]}),
    ("transpose_1d", (1, 128, 500), (128, 64, 16), {"strides": [8], "pads": [4, 4]}),
    ("transpose_1d_odd", (1, 64, 500), (64, 32, 11), {"strides": [5], "pads": [3, 3]}),
    ("transpose_1d_few", (1, 16, 2000), (16, 1, 20), {"strides": [10], "pads": [5, 5]}),
    (
        "transpose_grouped",
        (1, 64, 28, 28),
        (64, 1, 4, 4),
        {"strides": [2, 2], "pads": [1] * 4, "group": 64},
    ),
    ("transpose_3d", (1, 16, 8, 14, 14), (16, 8, 2, 2, 2), {"strides": [2] * 3}),
    ("transpose_1_1", (1, 64, 28, 28), (64, 64, 3, 3), {"pads": [1] * 4}),
):
    add(
        f"conv_{name}",
        "ConvTranspose",
        lambda x=x, w=w: [drawn(*x), Fixed(drawn(*w, scale=0.1))],
        **more,
    )
for name, x, w, more in (
    ("3d", (1, 16, 16, 28, 28), (32, 16, 3, 3, 3), {"pads": [1] * 6}),
    (
        "3d_first",
        (1, 3, 16, 56, 56),
        (16, 3, 3, 7, 7),
        {"pads": [1, 3, 3] * 2, "strides": [1, 2, 2]},
    ),
    ("3d_time", (1, 32, 16, 28, 28), (32, 32, 3, 1, 1), {"pads": [1, 0, 0] * 2}),
    ("3d_depthwise", (1, 32, 8, 28, 28), (32, 1, 3, 3, 3), {"pads": [1] * 6, "group": 32}),
    ("3d_one", (1, 1, 32, 32, 32), (8, 1, 3, 3, 3), {"pads": [1] * 6}),
    ("1d_64", (1, 64, 1000), (64, 64, 3), {"pads": [1, 1]}),
    ("1d_512_80", (1, 80, 300), (512, 80, 5), {"pads": [2, 2]}),
    ("1d_depthwise", (1, 256, 1000), (256, 1, 31), {"pads": [15, 15], "group": 256}),
    ("1d_1_64_long", (1, 1, 16000), (64, 1, 400), {"strides": [160]}),
    ("1d_dilated", (1, 64, 2000), (64, 64, 3), {"pads": [16, 16], "dilations": [16]}),
    ("1d_64_1", (1, 64, 8000), (1, 64, 7), {"pads": [3, 3]}),
    ("depthwise_7", (1, 96, 56, 56), (96, 1, 7, 7), {"pads": [3] * 4, "group": 96}),
    (
        "depthwise_3_2",
        (1, 96, 56, 56),
        (96, 1, 3, 3),
        {"pads": [1] * 4, "group": 96, "strides": [2, 2]},
    ),
    (
        "depthwise_dilated",
        (1, 96, 56, 56),
        (96, 1, 3, 3),
        {"pads": [4] * 4, "group": 96, "dilations": [4, 4]},
    ),
    ("depthwise_twice", (1, 32, 56, 56), (64, 1, 3, 3), {"pads": [1] * 4, "group": 32}),
    ("grouped_4", (1, 128, 28, 28), (128, 4, 3, 3), {"pads": [1] * 4, "group": 32}),
    ("grouped_2", (1, 64, 56, 56), (64, 32, 3, 3), {"pads": [1] * 4, "group": 2}),
    ("dilated", (1, 64, 28, 28), (64, 64, 3, 3), {"pads": [6] * 4, "dilations": [6, 6]}),
    ("64_3_224", (1, 64, 224, 224), (3, 64, 3, 3), {"pads": [1] * 4}),
    ("64_3_wide", (1, 64, 112, 112), (3, 64, 9, 9), {"pads": [4] * 4}),
    ("32_1_1x1", (1, 32, 128, 128), (1, 32, 1, 1), {}),
    ("3_64_7", (1, 3, 224, 224), (64, 3, 7, 7), {"pads": [3] * 4, "strides": [2, 2]}),
    ("patches_16", (1, 3, 224, 224), (192, 3, 16, 16), {"strides": [16, 16]}),
    ("1x7", (1, 64, 17, 17), (64, 64, 1, 7), {"pads": [0, 3, 0, 3]}),
    ("7x7_512", (1, 512, 7, 7), (512, 512, 3, 3), {"pads": [1] * 4}),
    ("1x1_batch", (8, 256, 14, 14), (64, 256, 1, 1), {}),
    ("1x1_2048", (1, 2048, 7, 7), (512, 2048, 1, 1), {}),
    ("few_pixels", (1, 256, 2, 2), (256, 256, 3, 3), {"pads": [1] * 4}),
    ("asymmetric", (1, 32, 57, 57), (64, 32, 3, 3), {"pads": [0, 0, 1, 1], "strides": [2, 2]}),
    ("stride_4", (1, 3, 227, 227), (64, 3, 11, 11), {"strides": [4, 4]}),
):
    add(
        f"conv_{name}",
        "Conv",
        lambda x=x, w=w: [drawn(*x), Fixed(drawn(*w, scale=0.1))],
        **more,
    )
add(
    "conv_run_weights",
    "Conv",
    lambda: [drawn(1, 32, 28, 28), drawn(32, 32, 3, 3)],
    pads=[1] * 4,
)
add("conv_correlate", "Conv", lambda: [drawn(1, 256, 31, 31), drawn(256, 1, 7, 7)], group=256)
add(
    "deform_conv",
    "DeformConv",
    lambda: [drawn(1, 32, 28, 28), Fixed(drawn(32, 32, 3, 3, scale=0.1)), drawn(1, 18, 28, 28)],
    pads=[1] * 4,
)
proto_free = {"kernel_shape": [3, 3], "pads": [1] * 4}
add(
    "conv_integer",
    "ConvInteger",
    lambda: [
        whole(256, 1, 32, 28, 28, dtype=np.uint8),
        Fixed(whole(256, 32, 32, 3, 3, dtype=np.uint8)),
        Fixed(np.uint8(3)),
        Fixed(np.uint8(128)),
    ],
    **proto_free,
)


add("gemm_1", "Gemm", lambda: [drawn(1, 1024), Fixed(drawn(1024, 1024)), Fixed(drawn(1024))])
add(
    "gemm_transposed",
    "Gemm",
    lambda: [drawn(64, 512), Fixed(drawn(512, 512)), Fixed(drawn(512))],
    transB=1,
)
add("gemm_narrow", "Gemm", lambda: [drawn(4096, 64), Fixed(drawn(64, 4)), Fixed(drawn(4))])
add("gemm_deep", "Gemm", lambda: [drawn(4, 8192), Fixed(drawn(8192, 16)), Fixed(drawn(16))])
add(
    "gemm_f64",
    "Gemm",
    lambda: [drawn(64, 256).astype(np.float64), Fixed(drawn(256, 256).astype(np.float64))],
)
add(
    "matmul_i32",
    "MatMul",
    lambda: [whole(9, 64, 256, dtype=np.int32), whole(9, 256, 64, dtype=np.int32)],
)
add("matmul_i64", "MatMul", lambda: [whole(9, 64, 256), whole(9, 256, 64)])
add(
    "matmul_f64",
    "MatMul",
    lambda: [drawn(128, 256).astype(np.float64), drawn(256, 128).astype(np.float64)],
)
add("matmul_run", "MatMul", lambda: [drawn(128, 512), drawn(512, 384)])
add("matmul_batched", "MatMul", lambda: [drawn(48, 128, 64), drawn(48, 64, 128)])
add("matmul_small", "MatMul", lambda: [drawn(2000, 3, 3), drawn(2000, 3, 3)])
add("matmul_small_4", "MatMul", lambda: [drawn(500, 4, 16), drawn(500, 16, 4)])
add("matmul_vectors", "MatMul", lambda: [drawn(256, 1, 64), drawn(256, 64, 1)])
add("matmul_outer", "MatMul", lambda: [drawn(16, 256, 1), drawn(16, 1, 256)])
add("matmul_vector", "MatMul", lambda: [drawn(1024, 1024), drawn(1024)])
add("matmul_row", "MatMul", lambda: [drawn(1, 2048), Fixed(drawn(2048, 512))])
add("matmul_wide", "MatMul", lambda: [drawn(4, 64), Fixed(drawn(64, 30000))])
add(
    "matmul_integer",
    "MatMulInteger",
    lambda: [
        whole(256, 64, 256, dtype=np.uint8),
        Fixed(whole(256, 256, 256, dtype=np.uint8)),
        Fixed(np.uint8(3)),
        Fixed(np.uint8(128)),
    ],
)
for name, equation, a, b in (
    ("heads", "bhqd,bhkd->bhqk", (2, 6, 128, 64), (2, 6, 128, 64)),
    ("moved", "bqhd,bkhd->bhqk", (2, 128, 6, 64), (2, 128, 6, 64)),
    ("back", "bhqk,bkhd->bqhd", (2, 6, 128, 128), (2, 128, 6, 64)),
    ("relative", "bhwc,hkc->bhwk", (6, 14, 14, 64), (14, 14, 64)),
    ("channels", "nchw,cd->ndhw", (1, 64, 28, 28), (64, 64)),
    ("trace", "bij,bij->b", (256, 32, 32), (256, 32, 32)),
    ("outer", "bi,bj->bij", (64, 64), (64, 96)),
    ("graph", "nctv,vw->nctw", (1, 64, 75, 25), (25, 25)),
    ("mix", "bnc,bnm->bcm", (4, 196, 64), (4, 196, 49)),
):
    add(f"einsum_{name}", "Einsum", lambda a=a, b=b: [drawn(*a), drawn(*b)], equation=equation)


for op, gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):
    for steps, batch, into, size, ways in (
        (20, 1, 16, 32, 1),
        (50, 1, 64, 128, 1),
        (30, 8, 64, 64, 2),
        (1, 1, 256, 256, 1),
        (100, 1, 40, 48, 2),
        (30, 32, 32, 20, 1),
    ):
        add(
            f"{op}_{steps}_{batch}_{into}_{size}_{ways}",
            op,
            lambda o=(steps, batch, into, size, ways, gates): [
                drawn(o[0], o[1], o[2]),
                Fixed(drawn(o[4], o[5] * o[3], o[2], scale=0.1)),
                Fixed(drawn(o[4], o[5] * o[3], o[3], scale=0.1)),
                Fixed(drawn(o[4], 2 * o[5] * o[3], scale=0.1)),
            ],
            2,
            hidden_size=size,
            direction="bidirectional" if ways == 2 else "forward",
            **({"linear_before_reset": 1} if op == "GRU" else {}),
        )


for size in (256, 400, 512, 1024, 1023):
    add(f"dft_{size}", "DFT", lambda n=size: [drawn(16, n, 1)])
add("dft_onesided", "DFT", lambda: [drawn(16, 512, 1)], onesided=1)
add("dft_inverse", "DFT", lambda: [drawn(16, 512, 2)], inverse=1)
add("dft_2d", "DFT", lambda: [drawn(64, 64, 2), None, Fixed(0)])
for size, step in ((400, 160), (512, 128), (1024, 256)):
    add(
        f"stft_{size}",
        "STFT",
        lambda n=size, k=step: [
            drawn(1, 16000, 1),
            Fixed(k),
            Fixed(np.hanning(n).astype(np.float32)),
            Fixed(n),
        ],
    )
