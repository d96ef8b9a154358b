"""From graph values to scalar expressions: "element `index` of value `v`".

A value is read from memory where it lies in a buffer; otherwise its producer is inlined. The
rules for inlining are registered per operator with `@inline`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from ...errors import InternalError
from ...ir.dims import Dim, Sym, floordiv, mod, product, symbol
from ...ir.graph import Node, Value
from ...ir.types import DType, TensorType
from ..expr import Apply, Buffer, Const, Expr, IndexValue, Load
from ..kernel import Axis, Store

Index = tuple["Dim | Expr", ...]
Inline = Callable[["Scope", Node, Index], Expr]

INLINE: dict[str, Inline] = {}
SMALL_CONSTANT = 1  # constants of so many elements become literals


def inline(*ops: str) -> Callable[[Inline], Inline]:
    """Register how an element of the operators' output is computed from its inputs."""

    def register(rule: Inline) -> Inline:
        for op in ops:
            INLINE[op] = rule
        return rule

    return register


def strides_of(type_: TensorType) -> tuple[tuple[Dim, ...], Dim]:
    """(strides in elements, offset of element 0) of a tensor in its storage layout.

    The strides of a part are those of the enclosing tensor; it begins at its own element 0.
    """
    border = type_.layout.border or ((0, 0),) * type_.rank
    strides: list[Dim] = []
    step: Dim = 1
    for dim in reversed(type_.layout.parent or storage_shape(type_)):
        strides.insert(0, step)
        step = step * dim
    offset: Dim = 0
    for stride, (low, _) in zip(strides, border, strict=True):
        offset = offset + stride * low
    return tuple(strides), offset


def storage_elements(type_: TensorType) -> Dim:
    """Elements of the storage, borders included."""
    return product(storage_shape(type_))


def storage_shape(type_: TensorType) -> tuple[Dim, ...]:
    """The dims of the storage, borders included; of a part, those of the enclosing tensor."""
    if type_.layout.parent:
        return type_.layout.parent
    border = type_.layout.border or ((0, 0),) * type_.rank
    return tuple(dim + low + high for dim, (low, high) in zip(type_.shape, border, strict=True))


def as_expr(index: Dim | Expr) -> Expr:
    """An index as an i64 expression."""
    if isinstance(index, int):
        return Const(index, DType.I64)
    return IndexValue(index, DType.I64) if isinstance(index, Sym) else index


def as_dim(index: Dim | Expr) -> Dim:
    """An index that has to be known from axes and dims alone. Raises InternalError otherwise."""
    if not isinstance(index, int | Sym):
        raise InternalError("a tensor of which only parts are stored is indexed by data")
    return index


def shift(index: Dim | Expr, factor: Dim, offset: Dim) -> Dim | Expr:
    """index * factor + offset, for an index that may be computed from data."""
    if isinstance(index, int | Sym):
        return index * factor + offset
    result = as_expr(index)
    if factor != 1:
        result = Apply("mul", (result, as_expr(factor)), DType.I64)
    if offset != 0:
        result = Apply("add", (result, as_expr(offset)), DType.I64)
    return result


def linear(index: Index, shape: Sequence[Dim]) -> Dim | Expr:
    """Row-major position of an index."""
    position: Dim | Expr = 0
    for at, dim in zip(index, shape, strict=True):
        scaled = shift(position, dim, 0)
        if isinstance(scaled, int | Sym) and isinstance(at, int | Sym):
            position = scaled + at
        else:
            position = Apply("add", (as_expr(scaled), as_expr(at)), DType.I64)
    return position


def delinearise(position: Dim | Expr, shape: Sequence[Dim]) -> Index:
    """The index whose row-major position is given."""
    out: list[Dim | Expr] = []
    for axis, dim in enumerate(shape):
        inner = product(shape[axis + 1 :])
        at: Dim | Expr
        if isinstance(position, int | Sym):
            quotient = floordiv(position, inner)
            at = mod(quotient, dim) if axis else quotient
        else:
            at = Apply("div", (as_expr(position), as_expr(inner)), DType.I64)
            if axis:
                at = Apply("mod", (at, as_expr(dim)), DType.I64)
        out.append(0 if dim == 1 else at)
    return tuple(out)


def broadcast_index(value: Value, index: Index) -> Index:
    """The index into an operand that is broadcast to the rank of `index`."""
    skip = len(index) - value.type.rank
    return tuple(0 if dim == 1 else at for dim, at in zip(value.shape, index[skip:], strict=True))


@dataclass
class Scope:
    """What is known while one group is lowered.

    buffers: values in memory. results: values that a stage has computed, as expressions of
    the index (accumulators, locals).
    """

    buffers: dict[Value, Buffer] = field(default_factory=dict)
    results: dict[Value, Callable[[Index], Expr]] = field(default_factory=dict)
    numbers: count[int] = field(default_factory=count)

    def axis(self, extent: Dim) -> Axis:
        """A new axis."""
        return Axis(f"${next(self.numbers)}", extent)

    def axes(self, shape: Sequence[Dim]) -> tuple[tuple[Axis, ...], Index]:
        """New axes for every dim, and the index that they make."""
        axes = tuple(self.axis(dim) for dim in shape)
        return axes, tuple(symbol(axis.name) for axis in axes)

    def element(self, value: Value, index: Index) -> Expr:
        """One element of a value. Raises InternalError when it is neither stored nor inlinable."""
        if value in self.results:
            return self.results[value](index)
        if value in self.buffers:
            return self.load(self.buffers[value], value.type, index)
        if value.data is not None and value.data.size <= SMALL_CONSTANT:
            only = value.data.reshape(-1)
            return Const(
                (only.view("u1") if value.dtype.is_narrow else only)[0].item(), value.dtype
            )
        node = value.producer
        if node is None or node.op not in INLINE:
            raise InternalError(f"{value} can be neither read nor inlined")
        return INLINE[node.op](self, node, index)

    def load(self, buffer: Buffer, type_: TensorType, index: Index) -> Load:
        """Read an element of a tensor that lies in a buffer."""
        offset, dynamic = self.address(type_, index)
        return Load(buffer, offset, dynamic)

    def store(self, value: Value, buffer: Buffer, index: Index, element: Expr) -> Store:
        """Write an element of a value that lies in a buffer."""
        offset, dynamic = self.address(value.type, index)
        return Store(buffer, offset, element, dynamic)

    def address(self, type_: TensorType, index: Index) -> tuple[Dim, tuple[tuple[Expr, Dim], ...]]:
        """The flat offset of an element and its data-dependent parts."""
        strides, offset = strides_of(type_)
        dynamic: list[tuple[Expr, Dim]] = []
        for at, stride in zip(index, strides, strict=True):
            if isinstance(at, int | Sym):
                offset = offset + at * stride
            else:
                dynamic.append((as_expr(at), stride))
        return offset, tuple(dynamic)
