"""Products with weights of few bits in loop form: numbers come out of words as they are read.

A word of 32 bits holds neighbouring steps of one column's sum, and words of neighbouring columns
lie side by side, as lanes take them. The products of a block are added up before its scale is
multiplied to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...ir.dims import Dim, symbol
from ...ir.graph import Node, Value
from ...ir.ops.packed import WORD_BITS, digits
from ...ir.ops.quantised_product import QUANTISED_MATMUL, WeightFormat, format_of
from ...ir.types import DType
from ..expr import Apply, Const, Expr, IndexValue, Load
from ..kernel import Axis, Reduction
from .reductions import Reduced, broadcast_index_of, reduces
from .scope import Index, Scope

Array = np.ndarray[Any, Any]
_CHUNK = 1 << 22  # numbers that are unpacked at once


@dataclass(frozen=True)
class PackedWords:
    """Numbers of weights, as words (of fewer than 8 bits) or bytes: [matrices * steps, columns].

    Signed: the number of half the range is taken off those that are not.
    """

    form: WeightFormat

    @property
    def steps(self) -> int:
        """Of a sum that one element holds."""
        return steps_of_element(self.form.bits)

    @property
    def rows(self) -> int:
        """Rows of all matrices."""
        return self.form.matrices * self.form.depth // self.steps

    @property
    def element_bytes(self) -> int:
        """Of one element."""
        return 1 if self.form.bits == 8 else WORD_BITS // 8

    def columns(self, shape: tuple[int, ...]) -> int:
        """Columns of the matrices; shape: of the constant."""
        return self.form.columns

    def apply(self, data: Array) -> Array:
        """The elements of a packed constant."""
        form, kind = self.form, np.dtype("<u4" if self.form.bits < 8 else np.uint8)
        packed = data.reshape(form.matrices, *form.packed(form.depth))
        if form.by_column:
            elements = np.ascontiguousarray(packed).view(kind).swapaxes(1, 2)
        else:
            elements = self._gathered(packed, kind)
        if not form.signed:
            top = sum(1 << (form.bits * (n + 1) - 1) for n in range(self.steps))
            elements = elements ^ kind.type(top)
        return elements.view(np.int8) if form.bits == 8 else elements

    def _gathered(self, packed: Array, kind: np.dtype[Any]) -> Array:
        """Words of the steps of a sum that lie in as many rows."""
        form = self.form
        if form.bits == 8:
            return packed
        flat = packed.reshape(-1, packed.shape[-1])
        words = np.zeros((self.rows, form.columns), kind)
        chunk = max(1, _CHUNK // (form.columns * self.steps)) * self.steps
        for start in range(0, len(flat), chunk):
            part = digits(flat[start : start + chunk], form.bits)[:, : form.columns]
            into = words[start // self.steps : start // self.steps + len(part) // self.steps]
            for place in range(self.steps):
                into |= part[place :: self.steps].astype(kind) << kind.type(form.bits * place)
        return words


@dataclass(frozen=True)
class _Blocks:
    """What there is one of for each block of a column."""

    form: WeightFormat

    @property
    def rows(self) -> int:
        """Rows of all matrices."""
        return self.form.matrices * self.form.blocks

    def columns(self, shape: tuple[int, ...]) -> int:
        """Columns of the matrices; shape: of the constant."""
        return self.form.columns


@dataclass(frozen=True)
class BlockFloats(_Blocks):
    """Floats, one for each block of a column, as [matrices * blocks, columns]; less an offset."""

    element_bytes: int
    offset: int = 0

    def apply(self, data: Array) -> Array:
        """The floats in order."""
        found = self.form.floats(data)
        return np.asarray(found - data.dtype.type(self.offset)) if self.offset else found


@dataclass(frozen=True)
class BlockNumbers(_Blocks):
    """Packed zero points, one for each block of a column, as i8 [matrices * blocks, columns]."""

    element_bytes: int = 1

    def apply(self, data: Array) -> Array:
        """The numbers, less half of their range where they are unsigned."""
        return (self.form.whole(data, self.form.blocks) - middle(self.form)).astype(np.int8)


Change = PackedWords | BlockFloats | BlockNumbers


def steps_of_element(bits: int) -> int:
    """How many steps of a sum one element of stored weights holds."""
    return 1 if bits == 8 else WORD_BITS // bits


def middle(form: WeightFormat) -> int:
    """What kernels take off the numbers of weights."""
    return 0 if form.signed else 1 << (form.bits - 1)


def constant_changes(node: Node) -> dict[Value, Change]:
    """How the constants of a product are stored for its kernel."""
    form = format_of(node)
    _, weights, scales, *zeros = node.inputs
    found: dict[Value, Change] = {
        weights: PackedWords(form),
        scales: BlockFloats(form, scales.dtype.bytes),
    }
    for zero in zeros:
        packed = zero.dtype is DType.U8
        floats = BlockFloats(form, zero.dtype.bytes, middle(form))
        found[zero] = BlockNumbers(form) if packed else floats
    return found


@reduces(QUANTISED_MATMUL)
def _quantised_matmul(scope: Scope, node: Node, index: Index) -> Reduced:
    form = format_of(node)
    x, weights, scales, *zeros = node.inputs
    per = steps_of_element(form.bits)
    *batch, m, n = index
    matrix = _matrix(weights, batch)
    whole = form.blocks == 1
    blocks, elements = scope.axis(form.blocks), scope.axis(form.block // per)
    axes: tuple[Axis, ...] = (elements,) if whole else (blocks, elements)
    block: Dim = 0 if whole else symbol(blocks.name)
    element = block * elements.extent + symbol(elements.name)
    step: Dim = element
    if per > 1:
        places = scope.axis(per)
        axes = (*axes, places)
        step = element * per + symbol(places.name)
    changes = constant_changes(node)
    left = scope.element(x, (*broadcast_index_of(x, batch), m, step))
    at = (matrix * (form.depth // per) + element) * form.columns + n
    if per > 1:
        word = _load(scope, weights, at, DType.U32, changes)
        place = IndexValue(symbol(places.name), DType.U32)
        number: Expr = Apply(f"digit{form.bits}", (word, place), DType.F32)
    else:
        number = _wide(_load(scope, weights, at, DType.I8, changes))
    at = (matrix * form.blocks + block) * form.columns + n
    offset = _zero(scope, form, zeros, at, changes)
    if offset is not None:
        number = Apply("sub", (number, offset), DType.F32)
    body = Apply("mul", (left, number), DType.F32)
    scale = _wide(_load(scope, scales, at, scales.dtype, changes))
    if whole:
        return Reduced(axes, Reduction("sum", body), lambda sum_: _scaled(sum_, scale))
    return Reduced(axes, Reduction("sum", body, factor=scale), lambda sum_: sum_)


def _matrix(weights: Value, batch: list[Dim | Expr]) -> Any:
    """Which of several matrices the product at an index takes."""
    found: Any = 0
    for at, dim in zip(broadcast_index_of(weights, batch), weights.shape[:-2], strict=True):
        found = found * dim + at
    return found


def _scaled(total: Expr, scale: Expr) -> Expr:
    return Apply("mul", (total, scale), DType.F32)


def _wide(value: Expr) -> Expr:
    return value if value.dtype is DType.F32 else Apply("cast", (value,), DType.F32)


def _zero(
    scope: Scope, form: WeightFormat, zeros: list[Value], at: Dim, changes: Mapping[Value, Change]
) -> Expr | None:
    """What is taken off the numbers of a block; None where that is nothing."""
    if zeros:
        dtype = DType.I8 if zeros[0].dtype is DType.U8 else zeros[0].dtype
        return _wide(_load(scope, zeros[0], at, dtype, changes))
    rest = form.zero - middle(form)
    return Const(float(rest), DType.F32) if rest else None


def _load(
    scope: Scope, value: Value, at: Dim, dtype: DType, changes: Mapping[Value, Change]
) -> Expr:
    """An element of a constant as it is stored for the kernel; of a single one the number."""
    if value in scope.buffers:
        return Load(replace(scope.buffers[value], dtype=dtype), at)
    assert value.data is not None
    return Const(changes[value].apply(value.data).reshape(-1)[0].item(), dtype)
