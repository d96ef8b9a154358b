"""Operators of com.microsoft that optimised and quantised files hold.

Semantics: microsoft/onnxruntime, docs/ContribOperators.md.
"""

from __future__ import annotations

import numpy as np

from ....compiler.ir import Value, ceildiv, constant
from ..site import NotSupported, Site
from ..table import MICROSOFT, lowers
from .activations import by_name, gelu, swish
from .matmul import gemm, matmul


@lowers("Gelu", "BiasGelu", "FastGelu", domain=MICROSOFT)
def contrib_gelu(s: Site) -> Value:
    x, bias = s.input(0), s.optional(1)
    if bias is not None:
        x = s.op_("add", x, bias)
    return gelu(s, x, "tanh" if s.op == "FastGelu" else "none")


@lowers("QuickGelu", domain=MICROSOFT)
def quick_gelu(s: Site) -> Value:
    return swish(s, s.input(0), s.real("alpha", 1.702))


@lowers("FusedGemm", domain=MICROSOFT)
def fused_gemm(s: Site) -> Value:
    out = gemm(s)
    if not s.has("activation"):
        return out
    values = [
        s.real(f"activation_{name}", 0.0)
        for name in ("alpha", "beta", "gamma")
        if s.has(f"activation_{name}")
    ]
    return by_name(s, s.text("activation"), out, values)


@lowers("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(s: Site) -> Value:
    """x times the transpose of a weight [N, K] that is stored in blocks of 4 or 8 bit numbers."""
    rows, depth, block = s.integer("N"), s.integer("K"), s.integer("block_size")
    bits = s.integer("bits", 4)
    if bits not in (4, 8) or s.optional(4) is not None:
        raise NotSupported(f"{bits}-bit weights, or a group index, are not supported")
    blocks = int(ceildiv(depth, block))  # type: ignore[arg-type]
    packed = s.constant(s.input(1), "the weight")
    scales = s.constant(s.input(2), "the scales").reshape(rows, blocks, 1)
    values = _unpacked(packed.reshape(rows, blocks, -1), bits)
    zero = s.optional(3)
    offsets: np.ndarray = np.full((rows, blocks, 1), 1 << (bits - 1), np.float32)
    if zero is not None:
        data = s.constant(zero, "the zero points")
        if data.dtype == np.uint8:
            data = _unpacked(data.reshape(rows, -1), bits)[:, :blocks]
        offsets = data.reshape(rows, blocks, 1)
    if values.shape[2] != block:
        raise ValueError(f"blocks hold {values.shape[2]} numbers, not {block}")
    real = (values.astype(np.float32) - offsets.astype(np.float32)) * scales.astype(np.float32)
    weight = real.reshape(rows, blocks * block)[:, :depth].T.astype(scales.dtype)
    out = matmul(s, s.input(0), constant(np.ascontiguousarray(weight)))
    bias = s.optional(5)
    return out if bias is None else s.op_("add", out, s.cast(bias, out.dtype))


def _unpacked(data: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of the last axis, the low half of a byte first."""
    if bits == 8:
        return data
    halves = np.stack([data & 15, data >> 4], -1)
    return np.asarray(halves.reshape(*data.shape[:-1], -1))


@lowers("NhwcMaxPool", "Conv", "MaxPool", domain="com.microsoft.nchwc")
def machine_bound(s: Site) -> Value:
    raise NotSupported(
        "this file was laid out for one machine by ONNX Runtime", "use the model before that"
    )
