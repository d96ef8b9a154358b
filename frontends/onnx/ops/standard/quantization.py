"""Quantisation: linear, per tensor, per axis or per block, and the integer operators."""

from __future__ import annotations

import numpy as np

from .....compiler.ir import Dim, DType, Value, ceildiv, constant
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.ops.contraction import FLOAT_BYTES
from .....compiler.ir.ops.packed import PACKED_BITS, pack_digits
from .....compiler.ir.ops.quantization import RANGES
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from .conversion import convert
from .matmul import matmul
from .nn import convolve


def aligned(s: Site, parameter: Value, x: Value) -> Value:
    """A scale or zero point shaped to broadcast to x: per tensor, per axis or per block."""
    rank = x.type.rank
    if parameter.type.rank == 0 or parameter.type.elements == 1:
        return s.reshape(parameter, ())
    axis = s.axis(s.integer("axis", 1), rank)
    if parameter.type.rank == 1:
        return s.reshape(parameter, [parameter.shape[0] if a == axis else 1 for a in range(rank)])
    block = s.integer("block_size", 0)
    if parameter.type.rank != rank or block < 1:
        raise ValueError(f"a scale {parameter.type} does not fit {x.type}")
    blocks = parameter.shape[axis]
    spread = s.reshape(parameter, (*parameter.shape[: axis + 1], 1, *parameter.shape[axis + 1 :]))
    wide = s.expand(spread, (*parameter.shape[: axis + 1], block, *parameter.shape[axis + 1 :]))
    flat = s.reshape(wide, (*parameter.shape[:axis], blocks * block, *parameter.shape[axis + 1 :]))
    _require_blocks(s, x.shape[axis], block, blocks)
    return s.slice(flat, axis, 0, x.shape[axis])


def _require_blocks(s: Site, size: Dim, block: int, blocks: Dim) -> None:
    """Make a run end with an error unless an axis consists of so many blocks."""
    why = f"{blocks} blocks of {block} for an axis of {size}"
    s.require(ceildiv(size, block), EQUAL, blocks, why)


def dequantize(s: Site, x: Value, scale: Value, zero: Value | None) -> Value:
    """(x - zero) * scale, in the type of the scale.

    Constant matrices of 8-bit floats stay so until a pass has looked for products of them.
    """
    if x.dtype in FLOAT_BYTES and x.is_constant and x.type.rank > 1:
        [wide] = s.emitter.emit_node("cast", [x], {"dtype": scale.dtype})
        return s.op_("mul", wide, scale)
    if x.dtype.is_narrow and x.dtype not in RANGES:
        return s.op_("mul", s.cast(x, scale.dtype), scale)
    return s.emit("dequantize", [x, scale, s.scalar(0, x.dtype) if zero is None else zero])


def quantize(s: Site, x: Value, scale: Value, zero: Value | None, dtype: DType) -> Value:
    """round(x / scale) + zero, saturated; to a narrow float without rounding to integers first."""
    if dtype.is_narrow and dtype not in RANGES:
        wide = s.cast(x, DType.F32) if x.dtype is not DType.F64 else x
        saturate = bool(s.integer("saturate", 1))
        return convert(s, s.op_("div", wide, s.cast(scale, wide.dtype)), dtype, saturate)
    if dtype not in RANGES:
        raise NotSupported(f"quantising to {dtype} is not supported")
    if not x.dtype.is_float:
        x = s.cast(x, DType.F32)
    made = s.emit("quantize", [x, scale, s.scalar(0, dtype) if zero is None else zero])
    return made if made.data is None or dtype not in PACKED_BITS else _packed(s, made)


def _packed(s: Site, made: Value) -> Value:
    """A constant of 2 or 4 bits as files store it, several to a byte."""
    bits = PACKED_BITS[made.dtype]
    assert made.data is not None
    numbers = made.data.astype(np.int8).view(np.uint8) & np.uint8((1 << bits) - 1)
    packed = constant(pack_digits(numbers.reshape(-1), bits))
    return s.emitter.unpacked(packed, made.dtype, made.type.static_shape)


def saturated(s: Site, steps: Value, dtype: DType) -> Value:
    """Whole numbers as an integer type, the nearest it has; NaN is its lowest, as in ONNX Runtime.

    What does not compare greater than the lowest is the lowest, and vmaxps does just that.
    """
    low, high = RANGES[dtype]
    above = s.op_("where", s.op_("gt", steps, float(low)), steps, float(low))
    return s.cast(s.op_("min", above, float(high)), dtype)


def _in_blocks(s: Site, x: Value, scale: Value, zero: Value | None) -> Value | None:
    """What blocks of a scale each make, the axis split and filled up; None for other scales."""
    block, rank = s.integer("block_size", 0), x.type.rank
    if block < 1 or scale.type.rank != rank or x.dtype not in RANGES:
        return None
    axis = s.axis(s.integer("axis", 1), rank)
    blocks, size = scale.shape[axis], x.shape[axis]
    _require_blocks(s, size, block, blocks)
    missing = blocks * block - size
    if missing != 0:
        pads = tuple(missing if a == rank + axis else 0 for a in range(2 * rank))
        x = s.emit("pad", [x, s.scalar(0, x.dtype)], pads=pads, mode="constant")

    def apart(value: Value, steps: Dim) -> Value:
        shape = value.shape
        return s.reshape(value, (*shape[:axis], blocks, steps, *shape[axis + 1 :]))

    number = None if zero is None else apart(zero, 1)
    real = s.reshape(dequantize(s, apart(x, block), apart(scale, 1), number), x.shape)
    return s.slice(real, axis, 0, size)


@lowers("DequantizeLinear")
@lowers("DequantizeLinear", domain=MICROSOFT)
def dequantize_linear(s: Site) -> Value:
    x, scale, zero = s.input(0), s.input(1), s.optional(2)
    out = _in_blocks(s, x, scale, zero)
    if out is None:
        whole = None if zero is None else aligned(s, zero, x)
        out = dequantize(s, x, aligned(s, scale, x), whole)
    return s.cast(out, s.dtype("output_dtype")) if s.integer("output_dtype", 0) else out


@lowers("QuantizeLinear")
@lowers("QuantizeLinear", domain=MICROSOFT)
def quantize_linear(s: Site) -> Value:
    x, scale, zero = s.input(0), s.input(1), s.optional(2)
    dtype = DType.U8
    if zero is not None:
        dtype = zero.dtype
    elif s.integer("output_dtype", 0):
        dtype = s.dtype("output_dtype")
    aligned_zero = None if zero is None else aligned(s, zero, x)
    return quantize(s, x, aligned(s, scale, x), aligned_zero, dtype)


@lowers("DynamicQuantizeLinear")
def dynamic_quantize_linear(s: Site) -> list[Value]:
    """To u8 by the range of the data, which is widened to hold 0 (the standard's function)."""
    return list(dynamic_u8(s, s.input(0)))


def dynamic_u8(s: Site, x: Value) -> tuple[Value, Value, Value]:
    """x as u8, its scale and zero point."""
    axes = range(x.type.rank)
    low = s.op_("min", s.reduce("min", x, axes, False), 0.0)
    high = s.op_("max", s.reduce("max", x, axes, False), 0.0)
    scale = s.op_("div", s.op_("sub", high, low), 255.0)
    scale = s.op_("where", s.op_("eq", high, low), 1.0, scale)  # as ONNX Runtime has it
    safe = s.op_("where", s.op_("eq", scale, 0.0), 1.0, scale)
    point = s.op_("round", s.op_("div", s.op_("neg", low), safe))
    zero = s.cast(s.op_("min", s.op_("max", point, 0.0), 255.0), DType.U8)
    return quantize(s, x, safe, zero, DType.U8), scale, zero


def _wide(s: Site, x: Value, zero: Value, axis: int) -> Value:
    """x - zero as i32: products of small integers add up exactly."""
    wide, offset = s.cast(x, DType.I32), s.cast(zero, DType.I32)
    if offset.type.elements == 1:
        offset = s.reshape(offset, ())
    elif offset.type.rank == 1:
        shape = [offset.shape[0] if a == axis else 1 for a in range(x.type.rank)]
        offset = s.reshape(offset, shape)
    return s.op_("sub", wide, offset)


def requantize(s: Site, total: Value, scale: Value, y_scale: Value, zero: Value) -> Value:
    """Sums of products as integers of the type of `zero`; scale / y_scale is one factor."""
    factor = s.op_("div", s.cast(scale, DType.F32), s.cast(s.reshape(y_scale, ()), DType.F32))
    low, high = RANGES[zero.dtype]
    return s.emit("requantize", [total, factor, s.reshape(zero, ())], low=low, high=high)


@lowers("QLinearConv")
def qlinear_conv(s: Site) -> Value:
    x, w = s.input(0), s.input(3)
    left, right = _wide(s, x, s.input(2), 1), _wide(s, w, s.input(5), 0)
    total = convolve(s, left, right, s.optional(8))
    w_scale = s.input(4)
    if w_scale.type.elements != 1:
        rank = x.type.rank
        w_scale = s.reshape(w_scale, [w_scale.type.elements if a == 1 else 1 for a in range(rank)])
    else:
        w_scale = s.reshape(w_scale, ())
    scale = s.op_("mul", w_scale, s.reshape(s.input(1), ()))
    return requantize(s, total, scale, s.input(6), s.input(7))


@lowers("QLinearMatMul")
def qlinear_matmul(s: Site) -> Value:
    a, b = s.input(0), s.input(3)
    left = _wide(s, a, s.input(2), a.type.rank - 2)
    right = _wide(s, b, s.input(5), b.type.rank - 1)
    total = matmul(s, left, right)
    a_scale, b_scale = s.input(1), s.input(4)
    a_scale = s.reshape(a_scale, () if a_scale.type.elements == 1 else (*a_scale.shape, 1))
    b_scale = s.reshape(b_scale, () if b_scale.type.elements == 1 else b_scale.shape)
    scale = s.op_("mul", s.cast(a_scale, DType.F32), s.cast(b_scale, DType.F32))
    return requantize(s, total, scale, s.cast(s.input(6), DType.F32), s.input(7))


@lowers("QLinearAdd", domain=MICROSOFT)
def qlinear_add(s: Site) -> Value:
    """A product and the sum that takes it are rounded once, as by ONNX Runtime on x86."""
    a, a_zero = s.cast(s.input(0), DType.F32), _offset(s, 2)
    b, b_zero = s.cast(s.input(3), DType.F32), _offset(s, 5)
    y_scale = s.reshape(s.input(6), ())
    a_ratio = s.op_("div", s.reshape(s.input(1), ()), y_scale)
    b_ratio = s.op_("div", s.reshape(s.input(4), ()), y_scale)
    start = s.op_("fma", a_zero, a_ratio, s.op_("mul", b_ratio, b_zero))
    start = s.op_("sub", _offset(s, 7), start)
    total = s.op_("fma", a, a_ratio, s.op_("fma", b, b_ratio, start))
    return saturated(s, s.op_("round", total), s.input(0).dtype)


@lowers("QLinearMul", domain=MICROSOFT)
def qlinear_mul(s: Site) -> Value:
    """The product of the integers, exact in f32, by one factor."""
    a = s.op_("sub", s.cast(s.input(0), DType.F32), _offset(s, 2))
    b = s.op_("sub", s.cast(s.input(3), DType.F32), _offset(s, 5))
    factor = s.op_("mul", s.reshape(s.input(1), ()), s.reshape(s.input(4), ()))
    factor = s.op_("div", factor, s.reshape(s.input(6), ()))
    steps = s.op_("add", s.op_("mul", s.op_("mul", a, b), factor), _offset(s, 7))
    return saturated(s, s.op_("round", steps), s.input(0).dtype)


def _offset(s: Site, at: int) -> Value:
    """The zero point that is input `at`, 0 where there is none, as f32."""
    zero = s.optional(at)
    return s.scalar(0.0, DType.F32) if zero is None else s.cast(s.reshape(zero, ()), DType.F32)


@lowers("DynamicQuantizeMatMul", domain=MICROSOFT)
def dynamic_quantize_matmul(s: Site) -> Value:
    quantized, scale, zero = dynamic_u8(s, s.input(0))
    b, b_zero = s.input(1), s.optional(3)
    left = _wide(s, quantized, zero, 0)
    offset = s.scalar(0, b.dtype) if b_zero is None else b_zero
    total = matmul(s, left, _wide(s, b, offset, b.type.rank - 1))
    real = s.op_("mul", s.cast(total, DType.F32), s.op_("mul", scale, s.input(2)))
    return real if s.optional(4) is None else s.op_("add", real, s.input(4))


@lowers("MatMulIntegerToFloat", domain=MICROSOFT)
def matmul_integer_to_float(s: Site) -> Value:
    a, b = s.input(0), s.input(1)
    a_zero, b_zero = s.optional(4), s.optional(5)
    left = _wide(s, a, a_zero or s.scalar(0, a.dtype), a.type.rank - 2)
    right = _wide(s, b, b_zero or s.scalar(0, b.dtype), b.type.rank - 1)
    total = s.cast(matmul(s, left, right), DType.F32)
    real = s.op_("mul", total, s.op_("mul", s.input(2), s.input(3)))
    return real if s.optional(6) is None else s.op_("add", real, s.input(6))
