"""Products of floats with constant weights of few bits, which stay packed as files have them.

Every `block` steps of a sum share a scale and a zero point: MatMulNBits of ONNX Runtime, and what
DequantizeLinear with `block_size` makes of constants (ONNX opset 21). The weights of a column lie
together ([.., N, K], `by_column`) or those of a step of the sum ([.., K, N]); scales and zero
points lie alike, one for each block. Numbers, also zero points that are integers, are packed along
the last axis, whose rows begin with a byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..graph import Node, Value
from ..types import DType, TensorType, broadcast_shapes
from .common import FLOATS, need_dtype, unify
from .packed import WORD_BITS, digits
from .registry import REQUIRED, Array, OpDef, Trait, register

QUANTISED_MATMUL = "quantised_matmul"
BITS = (2, 4, 8)
_CHUNK = 1 << 22  # weights that evaluation makes floats of at once


@dataclass(frozen=True)
class WeightFormat:
    """How the weights of a product are stored.

    depth: steps of a sum, K. columns: N. matrices: how many of them. zero: the zero point of all
    numbers, where no operand says others.
    """

    bits: int
    block: int
    depth: int
    columns: int
    matrices: int = 1
    signed: bool = False
    by_column: bool = True
    zero: int = 0

    @property
    def blocks(self) -> int:
        """Blocks of one column."""
        return self.depth // self.block

    def packed(self, steps: int) -> tuple[int, int]:
        """The shape of one matrix of packed numbers of so many steps of a sum."""
        first, last = (self.columns, steps) if self.by_column else (steps, self.columns)
        return first, -(-last * self.bits // 8)

    def plain(self, steps: int) -> tuple[int, int]:
        """The shape of one matrix of elements that lie alike."""
        return (self.columns, steps) if self.by_column else (steps, self.columns)

    def whole(self, packed: Array, steps: int) -> Array:
        """Packed numbers as i16 [matrices, steps, columns]."""
        flat = digits(packed.reshape(self.matrices, *self.packed(steps)), self.bits)
        numbers = flat[..., : self.plain(steps)[1]].astype(np.int16)
        if self.signed:
            top = 1 << (self.bits - 1)
            numbers = (numbers ^ top) - top
        return numbers.swapaxes(-1, -2) if self.by_column else numbers

    def floats(self, data: Array) -> Array:
        """Floats, one for each block, as [matrices, blocks, columns]."""
        found = data.reshape(self.matrices, *self.plain(self.blocks))
        return found.swapaxes(-1, -2) if self.by_column else found


def format_of(node: Node) -> WeightFormat:
    """How the weights of a `quantised_matmul` are stored."""
    return _format(node.inputs[1].shape, node.attrs)


def _format(shape: Sequence[Any], attrs: dict[str, Any]) -> WeightFormat:
    fields = {key: attrs[key] for key in ("bits", "block", "depth", "columns", "signed", "zero")}
    matrices = int(np.prod(shape[:-2], dtype=np.int64))
    return WeightFormat(**fields, matrices=matrices, by_column=attrs["by_column"])


def _infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, weights, scales, *zeros = inputs
    need_dtype(x, frozenset({DType.F32}), "the left operand")
    need_dtype(weights, frozenset({DType.U8}), "the packed weights")
    need_dtype(scales, FLOATS, "the scales")
    if x.type.rank < 2 or weights.type.rank < 2:
        raise ValueError("both operands have two axes or more")
    form = _format(weights.type.static_shape, attrs)
    if form.bits not in BITS or form.block < 1 or form.depth % form.block:
        raise ValueError(f"{form.bits} bits in blocks of {form.block} for {form.depth} steps")
    if form.depth * form.bits % WORD_BITS or form.block * form.bits % WORD_BITS:
        raise ValueError(f"blocks of {form.block} x {form.bits} bits do not fill words")
    unify(x.shape[-1], form.depth, "the contracted dimensions differ")
    batch = weights.shape[:-2]
    wanted = {
        weights: (*batch, *form.packed(form.depth)),
        scales: (*batch, *form.plain(form.blocks)),
    }
    for zero in zeros:
        need_dtype(zero, frozenset({DType.U8, DType.F32}), "the zero points")
        packed = zero.dtype is DType.U8
        wanted[zero] = (*batch, *(form.packed if packed else form.plain)(form.blocks))
    for value, shape in wanted.items():
        if value.shape != shape:
            raise ValueError(f"{value.type} should have the shape {shape}")
    lead = broadcast_shapes(x.shape[:-2], batch)
    return [TensorType(DType.F32, (*lead, x.shape[-2], form.columns))]


def _evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """The product with the floats that dequantising makes, added up in f64 and rounded once."""
    x, weights, scales, *zeros = args
    form = _format(weights.shape, attrs)
    lead = np.broadcast_shapes(x.shape[:-2], weights.shape[:-2])
    left = np.broadcast_to(x, (*lead, *x.shape[-2:])).astype(np.float64)
    scale = form.floats(scales).astype(np.float32)
    zero = np.full((form.matrices, 1, 1), form.zero, np.float32)
    if zeros:
        packed = zeros[0].dtype == np.uint8
        read = form.whole(zeros[0], form.blocks) if packed else form.floats(zeros[0])
        zero = read.astype(np.float32)
    zero = np.broadcast_to(zero, scale.shape)
    result = np.empty((*lead, x.shape[-2], form.columns), np.float32)
    numbers = np.arange(form.matrices).reshape(weights.shape[:-2])
    flat = weights.reshape(form.matrices, *weights.shape[-2:])
    step = max(1, _CHUNK // form.depth // 8) * 8
    for place in np.ndindex(lead):
        own = int(np.broadcast_to(numbers, lead)[place])
        for start in range(0, form.columns, step):
            part = slice(start, start + step)
            real = _columns(form, flat[own], start, step)
            real = (real - zero[own, :, None, part]) * scale[own, :, None, part]
            with np.errstate(all="ignore"):
                result[place][:, part] = left[place] @ real.reshape(form.depth, -1)
    return [result]


def _columns(form: WeightFormat, packed: Array, start: int, count: int) -> Array:
    """Numbers of some columns, from a multiple of 8, as f32 [blocks, block, columns]."""
    count = min(count, form.columns - start)
    if form.by_column:
        part = packed[start : start + count]
    else:
        part = packed[:, start * form.bits // 8 : -(-(start + count) * form.bits // 8)]
    own = replace(form, matrices=1, columns=count)
    return own.whole(part, form.depth).reshape(form.blocks, form.block, -1).astype(np.float32)


register(
    OpDef(
        QUANTISED_MATMUL,
        _infer,
        _evaluate,
        Trait.CONTRACTION,
        {
            "bits": REQUIRED,
            "block": REQUIRED,
            "depth": REQUIRED,
            "columns": REQUIRED,
            "signed": False,
            "by_column": True,
            "zero": 0,
        },
        arity=(3, 4),
    )
)
