"""Weights of few bits in com.microsoft: MatMulNBits, MatMulBnb4, GatherBlockQuantized.

Integers of 2, 4 and 8 bits stay packed, also as a table that rows are gathered from; others become
floats at compile time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .....compiler.ir import Dim, DType, Value, ceildiv, constant
from .....compiler.ir.ops.packed import WORD_BITS, pack_digits
from .....compiler.ir.ops.quantised_product import BITS
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.quantised_product import PackedColumns, packed_product
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
    if any(v is not None and s.emitter.constant(v) is None for v in map(s.optional, (1, 2, 3))):
        return _with_bias(s, _product_at_run_time(s, rows, depth, block, bits))
    packed = s.constant(s.input(1), "the weight").view(np.uint8).reshape(rows, blocks, -1)
    if packed.shape[2] * 8 < block * bits:
        raise ValueError(f"a block holds {packed.shape[2]} bytes, too few for {block} numbers")
    scales = s.constant(s.input(2), "the scales").reshape(rows, blocks)
    given = s.optional(3)
    zeros = None if given is None else s.constant(given, "the zero points").reshape(rows, -1)
    form = PackedColumns(bits, block, packed.reshape(rows, -1), scales, depth, zeros)
    x, order = s.sized(s.input(0), -1, depth), s.optional(4)
    group = None if order is None else _order(s, order, depth, blocks)
    if group is not None:
        form, x = _sorted_by_group(s, form, x, group)
    if form.block * bits % WORD_BITS == 0 and bits in BITS:
        out = packed_product(s, x, form)
    else:
        weight = _floats(form)[:depth].astype(x.dtype.numpy)
        out = matmul(s, x, constant(weight))
    return _with_bias(s, out)


def _with_bias(s: Site, out: Value) -> Value:
    bias = s.optional(5)
    return out if bias is None else s.op_("add", out, s.cast(bias, out.dtype))


def _product_at_run_time(s: Site, rows: int, depth: int, block: int, bits: int) -> Value:
    """The product by a weight that the run makes: floats of it, then an ordinary product."""
    if s.optional(4) is not None:
        raise NotSupported("an order of groups for a weight that a run makes", "make it constant")
    x, given = s.input(0), s.optional(3)
    blocks = int(ceildiv(depth, block))  # type: ignore[arg-type]
    values = s.reshape(s.input(1), (rows, blocks, block * bits // 8))
    scales = s.reshape(s.input(2), (rows, blocks, 1))
    wide = s.cast(_apart(s, values, bits), scales.dtype)
    zeros: Value | float = float(1 << (bits - 1))
    if given is not None and given.dtype is DType.U8:
        packed = s.reshape(given, (rows, 1, ceildiv(blocks * bits, 8)))
        numbers = s.slice(_apart(s, packed, bits), 2, 0, blocks)
        zeros = s.cast(s.reshape(numbers, (rows, blocks, 1)), scales.dtype)
    elif given is not None:
        zeros = s.cast(s.reshape(given, (rows, blocks, 1)), scales.dtype)
    real = s.op_("mul", s.op_("sub", wide, zeros), scales)
    real = s.slice(s.reshape(real, (rows, blocks * block)), 1, 0, depth)
    return matmul(s, s.sized(x, -1, depth), s.cast(s.transpose(real, (1, 0)), x.dtype))


def _apart(s: Site, data: Value, bits: int) -> Value:
    return data if bits == 8 else _unpacked_last(s, data, bits)


def _order(s: Site, order: Value, depth: int, blocks: int) -> Array:
    """The block that each step of the sum takes its scale from."""
    group = s.constant(order, "the order of groups").reshape(-1)[:depth]
    if len(group) != depth or group.min() < 0 or group.max() >= blocks:
        raise ValueError("the order of groups does not fit the weight")
    return group


def _sorted_by_group(
    s: Site, form: PackedColumns, x: Value, group: Array
) -> tuple[PackedColumns, Value]:
    """The steps of the sum in the order of their blocks, each of which begins one of its own.

    A block with more steps than others has them in several blocks of its scale.
    """
    rows, blocks = form.scales.shape
    numbers = unpacked(form.weights.reshape(rows, blocks, -1), form.bits)[..., : form.block]
    flat = numbers.reshape(rows, -1)
    zeros = None if form.zeros is None else _numbers(form.zeros, form.bits)[:, :blocks]
    counts = np.bincount(group, minlength=blocks)
    owner = np.repeat(np.arange(blocks), -(-counts // form.block))
    steps = np.full((len(owner), form.block), -1)
    for place, number in enumerate(owner):
        before = int((owner[:place] == number).sum()) * form.block
        own = np.flatnonzero(group == number)[before : before + form.block]
        steps[place, : len(own)] = own
    places = steps.reshape(-1)
    taken = np.where(places >= 0, flat[:, places], 0).astype(np.uint8)
    if zeros is not None:
        zeros = zeros[:, owner]
        zeros = pack_digits(zeros, form.bits) if zeros.dtype == np.uint8 else zeros
    moved = PackedColumns(
        form.bits,
        form.block,
        pack_digits(taken, form.bits),
        form.scales[:, owner],
        len(places),
        zeros,
    )
    wide = s.emit("pad", [x], pads=(*[0] * (2 * x.type.rank - 1), 1), mode="constant")
    at = constant(np.where(places >= 0, places, form.steps))
    return moved, s.emit("gather", [wide, at], axis=x.type.rank - 1)


def _numbers(zeros: Array, bits: int) -> Array:
    return unpacked(zeros, bits) if zeros.dtype == np.uint8 else zeros


def _floats(form: PackedColumns) -> Array:
    """The weights as floats [K, N], of bits that no kernel reads packed."""
    rows, blocks = form.scales.shape
    numbers = unpacked(form.weights.reshape(rows, blocks, -1), form.bits)[..., : form.block]
    zeros = np.full((rows, blocks), 1 << (form.bits - 1), np.float32)
    if form.zeros is not None:
        zeros = _numbers(form.zeros, form.bits)[:, :blocks].astype(np.float32)
    real = real_blocks(numbers.reshape(rows, -1), form.scales, zeros, form.block)
    return np.ascontiguousarray(real.T)


@lowers("MatMulBnb4", domain=MICROSOFT)
def matmul_bnb4(s: Site) -> Value:
    """x times a weight of 4-bit floats, the high half of a byte first."""
    rows, depth, block = s.integer("N"), s.integer("K"), s.integer("block_size")
    kind = s.integer("quant_type")
    if kind not in (0, 1) or block < 1:
        raise ValueError(f"quant_type {kind} with blocks of {block} does not exist")
    x, levels = s.input(0), np.array(_NF4 if kind == 1 else _FP4, np.float32)
    turned = bool(s.integer("transB", 1))
    shape = (rows, depth) if turned else (depth, rows)
    if any(s.emitter.constant(s.input(place)) is None for place in (1, 2)):
        made = _floats_at_run_time(s, levels, rows * depth, block)
        weight = s.cast(s.reshape(made, shape), x.dtype)
        return matmul(s, x, s.transpose(weight, (1, 0)) if turned else weight)
    packed = s.constant(s.input(1), "the weight").reshape(-1)
    scales = s.constant(s.input(2), "the scales").reshape(-1).astype(np.float32)
    codes = np.stack([packed >> 4, packed & 15], -1).reshape(-1)
    if len(codes) < rows * depth or len(scales) * block < rows * depth:
        raise ValueError(f"the weight holds fewer than {rows * depth} numbers")
    real = levels[codes[: rows * depth]] * np.repeat(scales, block)[: rows * depth]
    flat = real.reshape(shape).T if turned else real.reshape(shape)
    return matmul(s, x, constant(np.ascontiguousarray(flat.astype(x.dtype.numpy))))


def _floats_at_run_time(s: Site, levels: Array, count: int, block: int) -> Value:
    """`count` floats of 4 bits, the high half of a byte first, that a run makes: f32."""
    packed = s.reshape(s.input(1), (s.input(1).type.elements, 1))
    codes = s.op_("bitand", s.op_("shr", packed, constant(np.array([4, 0], np.uint8))), 15)
    codes = s.slice(s.reshape(codes, (packed.shape[0] * 2,)), 0, 0, count)
    real = s.emit("gather", [constant(levels), s.cast(codes, DType.I32)], axis=0)
    scales = s.cast(s.reshape(s.input(2), (s.input(2).type.elements,)), DType.F32)
    return s.op_("mul", real, _per_element(s, scales, 0, block, count))


_Q4_BLOCK = 32  # numbers, the first half in the low halves of bytes, the second in the high ones


@lowers("MatMulFpQ4", domain=MICROSOFT)
def matmul_fp_q4(s: Site) -> Value:
    """x times a weight [K, N] of 4 bits, which lies column by column in blocks: a scale (f32), an
    offset where there is one (blk_quant_type 1), and the numbers (core/mlas/inc/mlas_q4.h)."""
    offset, block = s.integer("blk_quant_type", 1), _Q4_BLOCK
    if offset not in (0, 1):
        raise NotSupported(f"blk_quant_type {offset}", "use 0 or 1, as ONNX Runtime takes them")
    depth, rows = (int(size) for size in s.constant(s.input(2), "the shape of the weight"))
    blocks, size = -(-depth // block), 4 + offset + block // 2
    blob = np.ascontiguousarray(s.constant(s.input(1), "the weight").reshape(-1))
    if len(blob) != rows * blocks * size:
        raise ValueError(f"the weight has {len(blob)} bytes, and not {rows * blocks * size}")
    apart = blob.view(np.uint8).reshape(rows, blocks, size)
    scales = np.ascontiguousarray(apart[..., :4]).view(np.float32).reshape(rows, blocks)
    halves = apart[..., 4 + offset :].reshape(rows, blocks, -1, block // 2)
    numbers = np.concatenate([halves & 15, halves >> 4], axis=-1).reshape(rows, blocks * block)
    zeros = pack_digits(apart[..., 4], 4) if offset else None
    form = PackedColumns(4, block, pack_digits(numbers, 4), scales, depth, zeros)
    return packed_product(s, s.sized(s.input(0), -1, depth), form)


@lowers("GatherBlockQuantized", domain=MICROSOFT)
def gather_block_quantized(s: Site) -> Value:
    """Slices of a table of small integers, made floats by a scale for each block."""
    data, indices, scales, zeros = s.input(0), s.input(1), s.input(2), s.optional(3)
    rank = data.type.rank
    axis = s.axis(s.integer("gather_axis", 0), rank)
    along = s.axis(s.integer("quantize_axis", 1), rank)
    bits, block = s.integer("bits", 4), s.integer("block_size", 128)
    if block < 1:
        raise ValueError(f"blocks of {block} numbers do not exist")
    packed = data.dtype is DType.U8 and bits < 8
    if packed and along != rank - 1:
        raise NotSupported("packed numbers along an axis that is not the last")

    def pick(table: Value) -> Value:
        return s.emit("gather", [table, indices], axis=axis)

    if axis == along:  # of a block only some numbers are read
        return pick(_real(s, (data, scales, zeros), along, block, bits if packed else 0))
    place = along if along < axis else along + indices.type.rank - 1
    parts = (pick(data), pick(scales), None if zeros is None else pick(zeros))
    return _real(s, parts, place, block, bits if packed else 0)


def _real(
    s: Site, parts: tuple[Value, Value, Value | None], axis: int, block: int, bits: int
) -> Value:
    """Integers as floats by scales, and zero points, of blocks along an axis.

    bits: of the numbers, the last axis of which is packed; 0: they are not.
    """
    values, scales, zeros = parts
    if bits:
        values = _unpacked_last(s, values, bits)
    size = values.shape[axis]
    wide = s.cast(values, scales.dtype)
    if zeros is not None:
        if bits:
            zeros = _unpacked_last(s, zeros, bits)
            zeros = s.slice(zeros, zeros.type.rank - 1, 0, scales.shape[axis])
        wide = s.op_("sub", wide, _per_element(s, s.cast(zeros, wide.dtype), axis, block, size))
    elif values.dtype is DType.U8:
        wide = s.op_("sub", wide, float(1 << (s.integer("bits", 4) - 1)))
    return s.op_("mul", wide, _per_element(s, scales, axis, block, size))


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
