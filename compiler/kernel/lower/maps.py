"""Inlining rules: pointwise operators and operators that only move elements."""

from __future__ import annotations

from dataclasses import replace

from ...errors import InternalError
from ...ir.dims import Dim, Sym, dmin, floordiv, product
from ...ir.graph import Node
from ...ir.ops.byte_table import BYTE_TABLE
from ...ir.ops.registry import Trait, all_ops
from ...ir.ops.step_groups import GROUP
from ...ir.types import DENSE, DType
from ..expr import Apply, Bound, Const, Expr, Guarded, IndexValue, Load
from .scope import (
    INLINE,
    Index,
    Scope,
    as_dim,
    as_expr,
    broadcast_index,
    delinearise,
    inline,
    linear,
    shift,
)


def _pointwise(scope: Scope, node: Node, index: Index) -> Expr:
    args = tuple(scope.element(v, broadcast_index(v, index)) for v in node.inputs)
    return Apply(node.op, args, node.output.dtype, node.attrs.get("exact", False))


for _name, _definition in all_ops().items():
    if _definition.traits & Trait.POINTWISE:
        INLINE[_name] = _pointwise


@inline(BYTE_TABLE)
def _byte_table(scope: Scope, node: Node, index: Index) -> Expr:
    """The second argument is where the table begins."""
    if len(node.inputs) != 2:
        raise InternalError(f"the table '{node.name}' is no operand")
    x, table = scope.element(node.inputs[0], index), scope.element(node.inputs[1], (0,))
    return Apply(BYTE_TABLE, (x, table), node.output.dtype)


@inline("dequantize")
def _dequantize(scope: Scope, node: Node, index: Index) -> Expr:
    """(x - zero) * scale, rounded by itself."""
    x, scale, zero = (scope.element(v, broadcast_index(v, index)) for v in node.inputs)
    dtype = node.output.dtype
    value: Expr = Apply("cast", (_unrounded(x),), dtype)
    if not (isinstance(zero, Const) and zero.value == 0):
        offset = Const(float(zero.value), dtype) if isinstance(zero, Const) else (
            Apply("cast", (zero,), dtype))  # fmt: skip
        value = Apply("sub", (value, offset), dtype)
    return Apply("mul", (value, scale), dtype, exact=True)


def _unrounded(x: Expr) -> Expr:
    """Bytes that were rounded within their range just before: the i32 that they are."""
    whole = x.args[0] if isinstance(x, Apply) and x.op == "cast" else x
    number = whole
    if isinstance(number, Apply) and number.op == "add":
        number = number.args[0]
    return whole if isinstance(number, Apply) and number.op == "rint" else x


@inline("transpose")
def _transpose(scope: Scope, node: Node, index: Index) -> Expr:
    source: list[Dim | Expr] = [0] * len(index)
    for at, axis in zip(index, node.attrs["perm"], strict=True):
        source[axis] = at
    return scope.element(node.inputs[0], tuple(source))


@inline("reshape")
def _reshape(scope: Scope, node: Node, index: Index) -> Expr:
    source = node.inputs[0]
    position = linear(index, node.output.shape)
    if source in scope.buffers and source.type.layout == DENSE and isinstance(position, int | Sym):
        buffer = scope.buffers[source]
        return scope.load(buffer, source.type.with_shape((product(source.shape),)), (position,))
    mapped = _match_axes(index, node.output.shape, source.shape)
    return scope.element(source, mapped or delinearise(position, source.shape))


def _match_axes(index: Index, shape: tuple[Dim, ...], wanted: tuple[Dim, ...]) -> Index | None:
    """The index for a reshape that only adds, removes, splits or merges whole axes, else None.

    It keeps indices simple where a row-major detour would divide.
    """
    out: list[Dim | Expr] = []
    i = j = 0
    while i < len(shape) or j < len(wanted):
        first_i, first_j = i, j
        left: Dim = shape[i] if i < len(shape) else 1
        right: Dim = wanted[j] if j < len(wanted) else 1
        i, j = min(i + 1, len(shape)), min(j + 1, len(wanted))
        while left != right:
            if i < len(shape) and (j >= len(wanted) or _divides(left, right)):
                left = left * shape[i]
                i += 1
            elif j < len(wanted) and _divides(right, left):
                right = right * wanted[j]
                j += 1
            else:
                return None
        position = linear(index[first_i:i], shape[first_i:i])
        out += delinearise(position, wanted[first_j:j]) if j > first_j else ()
    return tuple(out)


def _divides(small: Dim, large: Dim) -> bool:
    if small == 1:
        return True
    if isinstance(small, int) and isinstance(large, int):
        return small < large and large % small == 0
    quotient = floordiv(large, small)
    return quotient * small == large


@inline("pack_groups")
def _pack_groups(scope: Scope, node: Node, index: Index) -> Expr:
    """One element of 32 bits where a group lies side by side, else put together of its parts."""
    source, axis = node.inputs[0], node.attrs["axis"]
    steps = GROUP.bytes // source.dtype.bytes
    parts = [
        scope.element(
            source,
            tuple(
                shift(at, steps, k) if i == axis % len(index) else at for i, at in enumerate(index)
            ),
        )
        for k in range(steps)
    ]
    return _side_by_side(parts) or _joined(parts)


def _side_by_side(parts: list[Expr]) -> Load | None:
    """The group that loads of neighbouring elements read, if it begins where groups may."""
    first, steps = parts[0], len(parts)
    if not isinstance(first, Load) or first.dynamic:
        return None
    if any(part != replace(first, offset=first.offset + k) for k, part in enumerate(parts)):
        return None
    offset = floordiv(first.offset, steps)
    if offset * steps != first.offset:
        return None
    return Load(replace(first.buffer, dtype=GROUP), offset)


def _joined(parts: list[Expr]) -> Expr:
    """The parts as the bits of one element, the first ones lowest."""
    bits = parts[0].dtype.bits
    unsigned = {8: DType.U8, 16: DType.U16}[bits]
    total: Expr | None = None
    for k, part in enumerate(parts):
        whole = Apply("cast", (Apply("bitcast", (part,), unsigned),), DType.U32)
        moved = Apply("shl", (whole, Const(k * bits, DType.U32)), DType.U32) if k else whole
        total = moved if total is None else Apply("bitor", (total, moved), DType.U32)
    assert total is not None
    return Apply("bitcast", (total,), GROUP)


@inline("broadcast_to")
def _broadcast_to(scope: Scope, node: Node, index: Index) -> Expr:
    return scope.element(node.inputs[0], broadcast_index(node.inputs[0], index))


@inline("expand")
def _expand(scope: Scope, node: Node, index: Index) -> Expr:
    """Along an axis whose size a run decides every element is the first, if the size is 1."""
    source = node.inputs[0]
    pairs = zip(index, source.shape, node.output.shape, strict=True)
    moved = [at if dim == size else shift(at, dmin(dim - 1, 1), 0) for at, dim, size in pairs]
    return scope.element(source, broadcast_index(source, tuple(moved)))


@inline("slice")
def _slice(scope: Scope, node: Node, index: Index) -> Expr:
    starts, steps = node.attrs["starts"], node.attrs["steps"]
    source = tuple(
        shift(at, step, start) for at, start, step in zip(index, starts, steps, strict=True)
    )
    return scope.element(node.inputs[0], source)


@inline("pad")
def _pad(scope: Scope, node: Node, index: Index) -> Expr:
    source, mode = node.inputs[0], node.attrs["mode"]
    pads = node.attrs["pads"][: source.type.rank]
    moved = [shift(at, 1, -1 * pad) for at, pad in zip(index, pads, strict=True)]
    grown = [
        axis
        for axis, (before, after) in enumerate(zip(source.shape, node.output.shape, strict=True))
        if before != after or pads[axis] != 0
    ]
    if mode == "constant":
        bounds = tuple(Bound(as_dim(moved[axis]), 0, source.shape[axis]) for axis in grown)
        fill: Expr = Const(0.0 if source.dtype.is_float else 0, source.dtype)
        if len(node.inputs) > 1:
            fill = scope.element(node.inputs[1], ())
        return Guarded(bounds, scope.element(source, tuple(moved)), fill)
    for axis in grown:
        moved[axis] = _outside(mode, as_expr(moved[axis]), source.shape[axis])
    return scope.element(source, tuple(moved))


def _int(op: str, *args: Expr) -> Expr:
    return Apply(op, args, DType.BOOL if op in ("lt", "ge") else DType.I64)


def _outside(mode: str, at: Expr, dim: Dim) -> Expr:
    """Where an index outside [0, dim) reads from: edge, reflect or wrap."""
    zero, last = Const(0, DType.I64), IndexValue(dim - 1, DType.I64)
    if mode == "wrap":
        return _int("mod", at, IndexValue(dim, DType.I64))
    if mode == "reflect":
        at = _int("abs", at)
        return _int("sub", last, _int("abs", _int("sub", at, last)))
    return _int("min", _int("max", at, zero), last)


def _as_index(index: Expr) -> Expr:
    return index if index.dtype is DType.I64 else Apply("cast", (index,), DType.I64)


def checked_index(index: Expr, dim: Dim) -> Expr:
    """A data-dependent index as a position inside [0, dim); negative ones count from the end."""
    wide = _as_index(index)
    zero, size = Const(0, DType.I64), IndexValue(dim, DType.I64)
    wrapped = Apply("where", (_int("lt", wide, zero), _int("add", wide, size), wide), DType.I64)
    return _int("min", _int("max", wrapped, zero), IndexValue(dim - 1, DType.I64))


@inline("gather")
def _gather(scope: Scope, node: Node, index: Index) -> Expr:
    data, indices = node.inputs
    axis = node.attrs["axis"] % data.type.rank
    count = indices.type.rank
    at = scope.element(indices, index[axis : axis + count])
    position = _as_index(at) if node.attrs["within"] else checked_index(at, data.shape[axis])
    return scope.element(data, (*index[:axis], position, *index[axis + count :]))


@inline("gather_elements")
def _gather_elements(scope: Scope, node: Node, index: Index) -> Expr:
    data, indices = node.inputs
    axis = node.attrs["axis"] % data.type.rank
    position = checked_index(scope.element(indices, index), data.shape[axis])
    return scope.element(data, (*index[:axis], position, *index[axis + 1 :]))


@inline("gather_nd")
def _gather_nd(scope: Scope, node: Node, index: Index) -> Expr:
    data, indices = node.inputs
    batch, depth = node.attrs["batch_dims"], indices.shape[-1]
    outer = index[: indices.type.rank - 1]
    positions = tuple(
        checked_index(scope.element(indices, (*outer, d)), data.shape[batch + d])
        for d in range(depth)
    )
    rest = index[indices.type.rank - 1 :]
    return scope.element(data, (*index[:batch], *positions, *rest))


@inline("iota")
def _iota(scope: Scope, node: Node, index: Index) -> Expr:
    at = as_expr(index[node.attrs["axis"] % len(index)])
    dtype = node.output.dtype
    if isinstance(at, IndexValue):
        return IndexValue(at.index, dtype)
    return at if at.dtype is dtype else Apply("cast", (at,), dtype)


@inline("dims")
def _dims(scope: Scope, node: Node, index: Index) -> Expr:
    values = node.attrs["values"]
    result: Expr = IndexValue(values[-1], DType.I64)
    for position in range(len(values) - 2, -1, -1):
        here = Apply("eq", (as_expr(index[0]), Const(position, DType.I64)), DType.BOOL)
        value = IndexValue(values[position], DType.I64)
        result = Apply("where", (here, value, result), DType.I64)
    return result


@inline("concat")
def _concat(scope: Scope, node: Node, index: Index) -> Expr:
    axis = node.attrs["axis"] % len(index)
    at = as_dim(index[axis])
    start: Dim = 0
    pieces: list[tuple[Bound, Expr]] = []
    for value in node.inputs:
        inner = (*index[:axis], at - start, *index[axis + 1 :])
        end = start + value.shape[axis]
        pieces.append((Bound(at, start, end), scope.element(value, inner)))
        start = end
    result: Expr = Const(0.0 if node.output.dtype.is_float else 0, node.output.dtype)
    for bound, element in reversed(pieces):
        result = Guarded((bound,), element, result)
    return result
