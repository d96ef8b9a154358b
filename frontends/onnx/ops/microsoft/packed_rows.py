"""GatherPacked of com.microsoft: rows of a table in the block formats of GGML, made floats as read.

Formats: ggml-org/ggml, src/ggml-quants.c (`dequantize_row_*`). Numbers of blocks are bytes; what is
read of them is taken apart by shifts when a row is read, so that the table stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from .....compiler.ir import DType, Value, constant
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers

# Levels of the formats IQ4_NL and IQ4_XS.
_LEVELS = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)
_SMALL, _LARGE = 32, 256  # numbers in a block


@dataclass(frozen=True)
class _Blocks:
    """data: u8 [..., blocks, bytes of one]."""

    site: Site
    data: Value

    def bytes_at(self, start: int, count: int) -> Value:
        """Some bytes of every block: u8 [..., blocks, count]."""
        return self.site.slice(self.data, self.data.type.rank - 1, start, start + count)

    def half(self, start: int) -> Value:
        """An f16 of every block: f32 [..., blocks, 1]."""
        s = self.site
        wide = s.emit("bitcast", [self.word(start)], dtype=DType.F16)
        return s.cast(wide, DType.F32)

    def word(self, start: int) -> Value:
        """Two bytes, the low one first: u16 [..., blocks, 1]."""
        s = self.site
        low, high = (s.cast(self.bytes_at(start + i, 1), DType.U16) for i in range(2))
        return s.op_("bitor", low, s.op_("shl", high, 8))

    def bits(self, data: Value, shifts: list[int], mask: int) -> Value:
        """For every shift what some bits of all bytes are: u8 [..., blocks, shifts, count]."""
        s, lead = self.site, data.shape[:-1]
        column = constant(np.array(shifts, np.uint8).reshape(-1, 1))
        apart = s.op_("shr", s.reshape(data, (*lead, 1, data.shape[-1])), column)
        return s.op_("bitand", apart, mask)

    def flat(self, parts: Value, size: int) -> Value:
        """The last axes as one of `size`."""
        return self.site.reshape(parts, (*self.data.shape[:-1], size))

    def nibbles(self, start: int, count: int) -> Value:
        """The low halves of bytes, then the high ones: u8 [..., blocks, 2 * count]."""
        return self.flat(self.bits(self.bytes_at(start, count), [0, 4], 15), 2 * count)

    def signed(self, data: Value) -> Value:
        """Bytes as i8, in floats."""
        s = self.site
        return s.cast(s.emit("bitcast", [data], dtype=DType.I8), DType.F32)

    def levels(self, codes: Value) -> Value:
        """What the codes of the IQ4 formats stand for."""
        s, table = self.site, constant(np.array(_LEVELS, np.float32))
        return s.emit("gather", [table, s.cast(codes, DType.I32)], axis=0)

    def grouped(self, numbers: Value, factors: Value) -> Value:
        """Numbers times a factor for each of consecutive groups of one size."""
        s, (*lead, size) = self.site, numbers.shape
        groups = int(factors.shape[-1])
        apart = s.reshape(numbers, (*lead, groups, int(size) // groups))
        product = s.op_("mul", apart, s.reshape(factors, (*lead, groups, 1)))
        return s.reshape(product, (*lead, size))


def _plain(kind: DType) -> Callable[[_Blocks], Value]:
    def read(b: _Blocks) -> Value:
        s, (*lead, size) = b.site, b.data.shape
        apart = s.reshape(b.data, (*lead, int(size) // kind.bytes, kind.bytes))
        wide = DType.U16 if kind.bytes == 2 else DType.U32
        places = constant(np.arange(kind.bytes, dtype=wide.numpy) * 8)
        bits = s.op_("shl", s.cast(apart, wide), places)
        word = s.reduce("sum", bits, [len(lead) + 1], keepdims=False)
        return s.cast(s.emit("bitcast", [word], dtype=kind), DType.F32)

    return read


def _q4_0(b: _Blocks) -> Value:
    s = b.site
    return s.op_("mul", s.op_("sub", s.cast(b.nibbles(2, 16), DType.F32), 8.0), b.half(0))


def _q5_0(b: _Blocks) -> Value:
    s = b.site
    flags = b.bits(b.bytes_at(2, 4), list(range(8)), 1)
    order = [*range(len(flags.shape) - 2), len(flags.shape) - 1, len(flags.shape) - 2]
    high = b.flat(s.transpose(flags, order), _SMALL)
    number = s.op_("bitor", b.nibbles(6, 16), s.op_("shl", high, 4))
    return s.op_("mul", s.op_("sub", s.cast(number, DType.F32), 16.0), b.half(0))


def _q8_0(b: _Blocks) -> Value:
    return b.site.op_("mul", b.signed(b.bytes_at(2, _SMALL)), b.half(0))


def _q5_k(b: _Blocks) -> Value:
    """Eight groups of 32 with a scale and a least number of 6 bits each."""
    s, last = b.site, b.data.type.rank - 1
    low, high, rest = (b.bytes_at(4 + 4 * i, 4) for i in range(3))

    def six(first: Value, shift: int) -> Value:
        upper = s.op_("shl", s.op_("shr", first, 6), 4)
        lower = s.op_("bitand", s.op_("shr", rest, shift), 15)
        whole = [s.op_("bitand", first, 63), s.op_("bitor", lower, upper)]
        return s.cast(s.emit("concat", whole, axis=last), DType.F32)

    factors = s.op_("mul", six(low, 0), b.half(0))
    least = s.op_("mul", six(high, 4), b.half(2))
    codes = b.bytes_at(48, 128)
    lead = b.data.shape[:-1]
    apart = s.reshape(codes, (*lead, 4, 1, _SMALL))
    shifts = constant(np.array([0, 4], np.uint8).reshape(2, 1))
    lower = b.flat(s.op_("bitand", s.op_("shr", apart, shifts), 15), _LARGE)
    upper = b.flat(b.bits(b.bytes_at(16, _SMALL), list(range(8)), 1), _LARGE)
    number = s.cast(s.op_("bitor", lower, s.op_("shl", upper, 4)), DType.F32)
    scaled = b.grouped(number, factors)
    ones = constant(np.ones(_LARGE, np.float32))
    return s.op_("sub", scaled, b.grouped(s.expand(ones, number.shape), least))


def _q6_k(b: _Blocks) -> Value:
    """Sixteen groups of 16 with a scale of 8 bits each."""
    s, lead = b.site, b.data.shape[:-1]
    shifts = constant(np.array([0, 4], np.uint8).reshape(2, 1))
    low = s.reshape(b.bytes_at(0, 128), (*lead, 2, 1, 64))
    low = b.flat(s.op_("bitand", s.op_("shr", low, shifts), 15), _LARGE)
    pairs = constant(np.array([0, 2, 4, 6], np.uint8).reshape(4, 1))
    high = s.reshape(b.bytes_at(128, 64), (*lead, 2, 1, _SMALL))
    high = b.flat(s.op_("bitand", s.op_("shr", high, pairs), 3), _LARGE)
    number = s.cast(s.op_("bitor", low, s.op_("shl", high, 4)), DType.F32)
    factors = s.op_("mul", b.signed(b.bytes_at(192, 16)), b.half(208))
    return b.grouped(s.op_("sub", number, 32.0), factors)


def _iq4_nl(b: _Blocks) -> Value:
    return b.site.op_("mul", b.levels(b.nibbles(2, 16)), b.half(0))


def _iq4_xs(b: _Blocks) -> Value:
    """Eight groups of 32 with a scale of 6 bits each."""
    s, lead = b.site, b.data.shape[:-1]
    fours = s.reshape(b.bytes_at(4, 4), (*lead, 4, 1))
    low = b.flat(s.op_("bitand", s.op_("shr", fours, constant(np.array([0, 4], np.uint8))), 15), 8)
    twos = s.op_("shr", b.word(2), constant(np.arange(0, 16, 2, dtype=np.uint16)))
    high = s.op_("shl", s.cast(s.op_("bitand", twos, 3), DType.U8), 4)
    scales = s.op_("sub", s.cast(s.op_("bitor", low, high), DType.F32), 32.0)
    codes = s.reshape(b.bytes_at(8, 128), (*lead, 8, 1, 16))
    shifts = constant(np.array([0, 4], np.uint8).reshape(2, 1))
    apart = b.flat(s.op_("bitand", s.op_("shr", codes, shifts), 15), _LARGE)
    return b.grouped(b.levels(apart), s.op_("mul", scales, b.half(0)))


# By the numbers of ggml_type: numbers in a block, its bytes, and how it is read.
_FORMATS: dict[int, tuple[int, int, Callable[[_Blocks], Value]]] = {
    0: (1, 4, _plain(DType.F32)),
    1: (1, 2, _plain(DType.F16)),
    2: (_SMALL, 18, _q4_0),
    6: (_SMALL, 22, _q5_0),
    8: (_SMALL, 34, _q8_0),
    13: (_LARGE, 176, _q5_k),
    14: (_LARGE, 210, _q6_k),
    20: (_SMALL, 18, _iq4_nl),
    23: (_LARGE, 136, _iq4_xs),
    30: (1, 2, _plain(DType.BF16)),
}


@lowers("GatherPacked", domain=MICROSOFT)
def gather_packed(s: Site) -> Value:
    """Rows of a table by their numbers; the first one for a number that is none."""
    table, given = s.input(0), s.input(1)
    kind, width = s.integer("packed_type"), s.integer("K")
    if kind not in _FORMATS:
        known = ", ".join(map(str, _FORMATS))
        raise NotSupported(f"packed_type {kind} is not read", f"use one of {known}")
    count, size, read = _FORMATS[kind]
    if width < 1 or width % count:
        raise ValueError(f"K {width} is no number of blocks of {count}")
    table = s.sized(table, 1, width // count * size)
    rows = s.cast(s.reshape(s.emitter.virtual([table.shape[0]]), ()), given.dtype)
    inside = s.op_("and", s.op_("ge", given, 0), s.op_("lt", given, rows))
    picked = s.emit("gather", [table, s.op_("where", inside, given, 0)], axis=0)
    blocks = s.reshape(picked, (*given.shape, width // count, size))
    real = s.reshape(read(_Blocks(s, blocks)), (*given.shape, width))
    return s.cast(real, s.dtype("output_dtype", TensorProto.BFLOAT16))
