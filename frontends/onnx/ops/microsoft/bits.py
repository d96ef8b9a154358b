"""Weights of few bits in com.microsoft: MatMulNBits, MatMulBnb4, GatherBlockQuantized.

Weights become floats at compile time; a table that rows are gathered from stays packed.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.ir import Dim, DType, Value, ceildiv, constant
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..standard.matmul import matmul

Array = np.ndarray[Any, Any]
# Levels of 4-bit floats: NF4 is in Dettmers et al., QLoRA (2023), appendix E; FP4 as bitsandbytes
# has it, sign bit first.
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
)  # fmt: skip
_FP4_HALF = (0.0, 5.208333333e-03, 2 / 3, 1.0, 1 / 3, 0.5, 1 / 6, 0.25)
_FP4 = (*_FP4_HALF, *(-value for value in _FP4_HALF))


def unpacked(data: Array, bits: int) -> Array:
    """Numbers of the last axis of bytes, the lowest bits first. Raises ValueError for bits."""
    if not 2 <= bits <= 8:
        raise ValueError(f"numbers of {bits} bits; 2 to 8 are supported")
    if bits == 8:
        return data
    flags = np.unpackbits(np.ascontiguousarray(data), axis=-1, bitorder="little")
    count = flags.shape[-1] // bits
    groups = flags[..., : count * bits].reshape(*data.shape[:-1], count, bits)
    return np.asarray((groups << np.arange(bits, dtype=np.uint8)).sum(-1, dtype=np.uint8))


def real_blocks(values: Array, scales: Array, zeros: Array, block: int) -> Array:
    """(values - zeros) * scales, with a scale and zero per `block` numbers of the last axis."""
    depth = values.shape[-1]
    wide = [np.repeat(x, block, axis=-1)[..., :depth] for x in (scales, zeros)]
    return np.asarray((values.astype(np.float32) - wide[1]) * wide[0].astype(np.float32))


@lowers("MatMulNBits", domain=MICROSOFT)
def matmul_n_bits(s: Site) -> Value:
    """x times the transpose of a weight [N, K] of small integers, with a scale for each block."""
    rows, depth, block = s.integer("N"), s.integer("K"), s.integer("block_size")
    bits = s.integer("bits", 4)
    if s.integer("weight_prepacked", 0):
        raise NotSupported("the weight is laid out for another device", "export it unpacked")
    if block < 1 or rows < 1 or depth < 1:
        raise ValueError(f"N, K and block_size {rows, depth, block} must be positive")
    blocks = int(ceildiv(depth, block))  # type: ignore[arg-type]
    packed = s.constant(s.input(1), "the weight").view(np.uint8).reshape(rows, blocks, -1)
    values = unpacked(packed, bits).reshape(rows, -1)[:, : blocks * block]
    if values.shape[1] != blocks * block:
        raise ValueError(f"a row holds {values.shape[1]} numbers, not {blocks * block}")
    scales = s.constant(s.input(2), "the scales").reshape(rows, blocks)
    zeros = _zero_points(s, rows, blocks, bits)
    order = s.optional(4)
    if order is None:
        real = real_blocks(values[:, :depth], scales, zeros, block)
    else:
        group = s.constant(order, "the order of groups").reshape(-1)[:depth]
        if len(group) != depth or group.min() < 0 or group.max() >= blocks:
            raise ValueError("the order of groups does not fit the weight")
        real = real_blocks(values[:, :depth], scales[:, group], zeros[:, group], 1)
    x = s.input(0)
    weight = constant(np.ascontiguousarray(real.T.astype(x.dtype.numpy)))
    out = matmul(s, x, weight)
    bias = s.optional(5)
    return out if bias is None else s.op_("add", out, s.cast(bias, out.dtype))


def _zero_points(s: Site, rows: int, blocks: int, bits: int) -> Array:
    given = s.optional(3)
    if given is None:
        return np.full((rows, blocks), 1 << (bits - 1), np.float32)
    data = s.constant(given, "the zero points")
    if data.dtype == np.uint8:
        data = unpacked(data.reshape(rows, -1), bits)[:, :blocks]
    return data.reshape(rows, blocks).astype(np.float32)


@lowers("MatMulBnb4", domain=MICROSOFT)
def matmul_bnb4(s: Site) -> Value:
    """x times a weight of 4-bit floats, the high half of a byte first."""
    rows, depth, block = s.integer("N"), s.integer("K"), s.integer("block_size")
    kind = s.integer("quant_type")
    if kind not in (0, 1) or block < 1:
        raise ValueError(f"quant_type {kind} with blocks of {block} does not exist")
    packed = s.constant(s.input(1), "the weight").reshape(-1)
    scales = s.constant(s.input(2), "the scales").reshape(-1).astype(np.float32)
    codes = np.stack([packed >> 4, packed & 15], -1).reshape(-1)
    if len(codes) < rows * depth or len(scales) * block < rows * depth:
        raise ValueError(f"the weight holds fewer than {rows * depth} numbers")
    levels = np.array(_NF4 if kind == 1 else _FP4, np.float32)
    real = levels[codes[: rows * depth]] * np.repeat(scales, block)[: rows * depth]
    turned = bool(s.integer("transB", 1))
    weight = real.reshape(rows, depth).T if turned else real.reshape(depth, rows)
    x = s.input(0)
    return matmul(s, x, constant(np.ascontiguousarray(weight.astype(x.dtype.numpy))))


@lowers("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(s: Site) -> Value:
    """Slices of a table of small integers, made floats by a scale for each block."""
    data, indices, scales, zeros = s.input(0), s.input(1), s.input(2), s.optional(3)
    rank = data.type.rank
    axis = s.axis(s.integer("gather_axis", 0), rank)
    along = s.axis(s.integer("quantize_axis", 1), rank)
    bits, block = s.integer("bits", 4), s.integer("block_size", 128)
    if axis == along or block < 1:
        raise NotSupported("gathering along the axis of the blocks is not supported")
    packed = data.dtype is DType.U8 and bits < 8
    if packed and along != rank - 1:
        raise NotSupported("packed numbers along an axis that is not the last")

    def pick(table: Value) -> Value:
        return s.emit("gather", [table, indices], axis=axis)

    place = along if along < axis else along + indices.type.rank - 1
    values = pick(data)
    if packed:
        values = _unpacked_last(s, values, bits)
    size = values.shape[place]
    wide = s.cast(values, scales.dtype)
    if zeros is not None:
        given = pick(zeros)
        if packed:
            given = _unpacked_last(s, given, bits)
            given = s.slice(given, given.type.rank - 1, 0, scales.shape[along])
        wide = s.op_("sub", wide, _per_element(s, s.cast(given, wide.dtype), place, block, size))
    elif data.dtype is DType.U8:
        wide = s.op_("sub", wide, float(1 << (bits - 1)))
    return s.op_("mul", wide, _per_element(s, pick(scales), place, block, size))


def _unpacked_last(s: Site, data: Value, bits: int) -> Value:
    """Numbers of 2 or 4 bits from bytes at run time, the lowest first."""
    if bits not in (2, 4):
        raise NotSupported(f"a table of {bits} bits is not supported")
    count = 8 // bits
    shifts = constant((np.arange(count) * bits).astype(np.uint8))
    apart = s.op_("shr", s.reshape(data, (*data.shape, 1)), shifts)
    small = s.op_("bitand", apart, (1 << bits) - 1)
    return s.reshape(small, (*data.shape[:-1], data.shape[-1] * count))


def _per_element(s: Site, blocks: Value, axis: int, block: int, size: Dim) -> Value:
    """One value per block repeated for every element of the axis."""
    shape = blocks.shape
    apart = s.reshape(blocks, (*shape[: axis + 1], 1, *shape[axis + 1 :]))
    wide = s.expand(apart, (*shape[: axis + 1], block, *shape[axis + 1 :]))
    flat = s.reshape(wide, (*shape[:axis], shape[axis] * block, *shape[axis + 1 :]))
    return s.slice(flat, axis, 0, size)
