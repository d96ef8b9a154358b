"""Reductions, contractions and poolings in loop form: axes, bodies, and what follows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ...ir.dims import Dim, ceildiv, dmax, dmin, floordiv, mod, product, symbol
from ...ir.graph import Node, Value
from ...ir.types import DType
from ..expr import Acc, Apply, Bound, Const, Expr, Guarded, IndexValue
from ..kernel import Axis, Reduction
from .scope import Index, Scope, as_dim, broadcast_index

Finish = Callable[[Expr], Expr]


@dataclass(frozen=True)
class Reduced:
    """A reduction at one output index. finish: from the accumulated value to the element."""

    axes: tuple[Axis, ...]
    reduction: Reduction
    finish: Finish


Rule = Callable[[Scope, Node, Index], Reduced]
REDUCE: dict[str, Rule] = {}


def reduces(*ops: str) -> Callable[[Rule], Rule]:
    """Register the loop form of a reducing operator. Half-precision floats accumulate in f32."""

    def register(rule: Rule) -> Rule:
        def wide(scope: Scope, node: Node, index: Index) -> Reduced:
            found = rule(scope, node, index)
            reduction = found.reduction
            body = as_type(reduction.body, accumulator_type(reduction.body.dtype))

            def finish(total: Expr) -> Expr:
                return as_type(found.finish(total), node.output.dtype)

            return Reduced(found.axes, replace(reduction, body=body), finish)

        for op in ops:
            REDUCE[op] = wide
        return rule

    return register


def accumulator_type(dtype: DType) -> DType:
    """The element type in which elements of `dtype` are summed and compared."""
    return DType.F32 if dtype in (DType.F16, DType.BF16) else dtype


def as_type(value: Expr, dtype: DType) -> Expr:
    """The value converted to a type, if it is of another."""
    return value if value.dtype is dtype else Apply("cast", (value,), dtype)


def _product(a: Expr, b: Expr, dtype: DType) -> Expr:
    """a * b for a sum of products, not rounded to half precision."""
    wide = accumulator_type(dtype)
    return Apply("mul", (as_type(a, wide), as_type(b, wide)), wide)


def _same(value: Expr) -> Expr:
    return value


def _reduced_index(
    scope: Scope, node: Node, index: Index, axes: tuple[int, ...]
) -> tuple[tuple[Axis, ...], Index]:
    """Reduction axes, and the input's index at an output index."""
    x = node.inputs[0]
    loops = {axis: scope.axis(x.shape[axis]) for axis in axes}
    kept = iter(index)
    source: list[Dim | Expr] = []
    for axis in range(x.type.rank):
        if axis in loops:
            source.append(symbol(loops[axis].name))
            if node.attrs.get("keepdims", True):
                next(kept)
        else:
            source.append(next(kept))
    return tuple(loops.values()), tuple(source)


@reduces("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_mean")
def _reduce(scope: Scope, node: Node, index: Index) -> Reduced:
    x = node.inputs[0]
    axes = tuple(axis % x.type.rank for axis in node.attrs["axes"])
    loops, source = _reduced_index(scope, node, index, tuple(sorted(axes)))
    body = scope.element(x, source)
    kind = node.op.removeprefix("reduce_")
    if kind != "mean":
        return Reduced(loops, Reduction(kind, body), _same)
    count = product(x.shape[axis] for axis in axes)
    some = dmax(count, 1)  # of nothing it is 0
    return Reduced(loops, Reduction("sum", body), lambda total: _divided(total, some, node))


def _divided(total: Expr, count: Dim, node: Node) -> Expr:
    dtype = total.dtype
    if not dtype.is_float:
        return Apply("div", (total, IndexValue(count, dtype)), dtype)
    if isinstance(count, int) and not node.attrs["exact"]:
        return Apply("mul", (total, Const(1.0 / count, dtype)), dtype)
    return Apply("div", (total, IndexValue(count, dtype)), dtype)


@reduces("argmax", "argmin")
def _arg(scope: Scope, node: Node, index: Index) -> Reduced:
    x = node.inputs[0]
    axis = node.attrs["axis"] % x.type.rank
    loops, source = _reduced_index(scope, node, index, (axis,))
    last = bool(node.attrs["select_last"])
    return Reduced(loops, Reduction(node.op, scope.element(x, source), last), _same)


CUMULATIVE = {"cumsum": ("sum", 0), "cumprod": ("prod", 1)}


@reduces(*CUMULATIVE)
def _cumulative(scope: Scope, node: Node, index: Index) -> Reduced:
    x = node.inputs[0]
    axis = node.attrs["axis"] % x.type.rank
    loop = scope.axis(x.shape[axis])
    k, at = symbol(loop.name), index[axis]
    body = scope.element(x, (*index[:axis], k, *index[axis + 1 :]))
    exclusive = int(node.attrs["exclusive"])
    if node.attrs["reverse"]:
        bound = Bound(k, at + exclusive, x.shape[axis])
    else:
        bound = Bound(k, 0, at + 1 - exclusive)
    kind, start = CUMULATIVE[node.op]
    neutral = Const(float(start) if x.dtype.is_float else start, x.dtype)
    return Reduced((loop,), Reduction(kind, Guarded((bound,), body, neutral)), _same)


@reduces("matmul")
def _matmul(scope: Scope, node: Node, index: Index) -> Reduced:
    a, b = node.inputs
    loop = scope.axis(a.shape[-1])
    k = symbol(loop.name)
    *batch, m, n = index
    left = scope.element(a, (*broadcast_index_of(a, batch), m, k))
    right = scope.element(b, (*broadcast_index_of(b, batch), k, n))
    body = _product(left, right, node.output.dtype)
    if node.attrs["product"]:
        body = Apply(node.attrs["product"], (left, right), node.output.dtype)
    return Reduced((loop,), Reduction("sum", body), _same)


def broadcast_index_of(value: Value, batch: list[Dim | Expr]) -> Index:
    """The batch part of a matmul operand's index."""
    dims = value.shape[:-2]
    skip = len(batch) - len(dims)
    return tuple(0 if dim == 1 else at for dim, at in zip(dims, batch[skip:], strict=True))


def _window(
    scope: Scope, node: Node, index: Index, kernel: tuple[Dim, ...]
) -> tuple[tuple[Axis, ...], list[Dim]]:
    """Kernel axes, and the spatial input index (it may lie in the padding)."""
    attrs = node.attrs
    loops = tuple(scope.axis(size) for size in kernel)
    spatial: list[Dim] = []
    first = first_spatial(node)
    for axis, loop in enumerate(loops):
        at = index[first + axis]
        offset = symbol(loop.name) * attrs["dilations"][axis] - attrs["pads"][axis]
        spatial.append(at * attrs["strides"][axis] + offset)
    return loops, spatial


def _padded_element(
    scope: Scope, node: Node, source: Index, other: Expr, kernel: tuple[Dim, ...]
) -> Expr:
    """An input element, or `other` in the padding; no test where storage has a border of it."""
    x = node.inputs[0]
    border = x.type.layout.border
    bounds: list[Bound] = []
    for axis, place in enumerate(range(first_spatial(node), first_spatial(node) + len(kernel))):
        size, at = x.shape[place], source[place]
        low, high = _overhang(node, axis, kernel[axis])
        covered = border and x in scope.buffers and (
            isinstance(low, int) and border[place][0] >= low
            and isinstance(high, int) and border[place][1] >= high
        )  # fmt: skip
        padded = low != 0 or not (isinstance(high, int) and high <= 0)
        filled = isinstance(other, Const) and other.value == x.type.layout.fill
        if padded and not (covered and filled):
            bounds.append(Bound(as_dim(at), 0, size))
    value = scope.element(x, source)
    return Guarded(tuple(bounds), value, other) if bounds else value


def _overhang(node: Node, axis: int, kernel: Dim) -> tuple[Dim, Dim]:
    """How far windows reach, at most, before and behind the input along a spatial axis."""
    attrs, x, place = node.attrs, node.inputs[0], first_spatial(node) + axis
    last = (node.output.shape[place] - 1) * attrs["strides"][axis] - attrs["pads"][axis]
    reach = last + (kernel - 1) * attrs["dilations"][axis] + 1 - x.shape[place]
    if not isinstance(reach, int) and not attrs.get("ceil_mode"):
        reach = attrs["pads"][len(attrs["pads"]) // 2 + axis]  # a larger stride may need less
    return attrs["pads"][axis], reach


def first_spatial(node: Node) -> int:
    """The first spatial axis of what a conv or pooling reads and makes."""
    return 1 if node.attrs["layout"] == "NHWC" else 2


def _taps(node: Node) -> tuple[Dim, ...]:
    """The spatial extents of a conv's filter: HWIO, or OIHW where channels come first."""
    shape = node.inputs[1].shape
    return shape[:-2] if node.attrs["layout"] == "NHWC" else shape[2:]


def overhangs(node: Node) -> list[tuple[Dim, Dim]]:
    """`_overhang` for every spatial axis of a conv or pooling."""
    kernel = _taps(node) if node.op == "conv" else node.attrs["kernel"]
    return [_overhang(node, axis, size) for axis, size in enumerate(kernel)]


@reduces("conv")
def _conv(scope: Scope, node: Node, index: Index) -> Reduced:
    x, w = node.inputs[:2]
    dtype, kernel, last = node.output.dtype, _taps(node), node.attrs["layout"] == "NHWC"
    groups = node.attrs["groups"]
    per_group, channels = w.shape[-2:] if last else w.shape[1::-1]
    loops, spatial = _window(scope, node, index, kernel)
    channel_loop = scope.axis(per_group)
    c, oc = symbol(channel_loop.name), index[-1] if last else index[1]
    channel: Dim = c
    if groups > 1:
        channel = floordiv(as_dim(oc), floordiv(channels, groups)) * per_group + c
    outside = node.attrs["pad_value"]
    zero = Const(float(outside) if x.dtype.is_float else outside, x.dtype)
    source = (index[0], *spatial, channel) if last else (index[0], channel, *spatial)
    left = _padded_element(scope, node, source, zero, kernel)
    taps = tuple(symbol(loop.name) for loop in loops)
    right = scope.element(w, (*taps, c, oc) if last else (oc, c, *taps))
    all_loops = (*loops, channel_loop) if last else (channel_loop, *loops)

    def finish(total: Expr) -> Expr:
        if len(node.inputs) < 3:
            return total
        bias = as_type(scope.element(node.inputs[2], (oc,)), total.dtype)
        return Apply("add", (total, bias), total.dtype)

    body = _product(left, right, dtype)
    return Reduced(all_loops, Reduction("sum", body), finish)


@reduces("conv_transpose")
def _conv_transpose(scope: Scope, node: Node, index: Index) -> Reduced:
    """Gathered form: an output element sums the taps whose stride lands on an input element."""
    x, w = node.inputs[:2]
    attrs, dtype, first = node.attrs, x.dtype, node.attrs["layout"] == "NCHW"
    kernel = w.shape[2:] if first else w.shape[:-2]
    spatial_at = index[2:] if first else index[1:-1]
    oc = index[1] if first else index[-1]
    out_per_group, channels = (w.shape[1], w.shape[0]) if first else (w.shape[-1], w.shape[-2])
    loops = tuple(scope.axis(size) for size in kernel)
    channel_loop = scope.axis(floordiv(channels, attrs["groups"]))
    group = floordiv(as_dim(oc), out_per_group)
    c = group * channel_loop.extent + symbol(channel_loop.name)
    taps, spatial, bounds = [], [], []
    for axis, loop in enumerate(loops):
        tap, stride = symbol(loop.name), attrs["strides"][axis]
        landed = spatial_at[axis] + attrs["pads"][axis] - tap * attrs["dilations"][axis]
        size = x.shape[(2 if first else 1) + axis]
        taps.append(tap)
        spatial.append(floordiv(landed, stride))
        bounds += [Bound(landed, 0, size * stride), Bound(mod(landed, stride), 0, 1)]
    o = oc - group * out_per_group
    source = (index[0], c, *spatial) if first else (index[0], *spatial, c)
    filter_at = (c, o, *taps) if first else (*taps, c, o)
    zero = Const(0.0 if dtype.is_float else 0, dtype)
    value = Guarded(tuple(bounds), scope.element(x, source), zero)
    body = _product(value, scope.element(w, filter_at), dtype)

    def finish(total: Expr) -> Expr:
        if len(node.inputs) < 3:
            return total
        bias = as_type(scope.element(node.inputs[2], (oc,)), total.dtype)
        return Apply("add", (total, bias), total.dtype)

    return Reduced((*loops, channel_loop), Reduction("sum", body), finish)


@reduces("max_pool")
def _max_pool(scope: Scope, node: Node, index: Index) -> Reduced:
    kernel, dtype = node.attrs["kernel"], node.output.dtype
    loops, spatial = _window(scope, node, index, kernel)
    low = float("-inf") if dtype.is_float else -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    source = (index[0], *spatial, index[-1])
    body = _padded_element(scope, node, source, Const(low, dtype), kernel)
    return Reduced(loops, Reduction("max", body), _same)


@reduces("avg_pool")
def _avg_pool(scope: Scope, node: Node, index: Index) -> Reduced:
    attrs, x, dtype = node.attrs, node.inputs[0], node.output.dtype
    kernel = attrs["kernel"]
    loops, spatial = _window(scope, node, index, kernel)
    zero = Const(0.0, dtype)
    source = (index[0], *spatial, index[-1])
    body = _padded_element(scope, node, source, zero, kernel)
    counts: list[Dim] = []
    for axis, size in enumerate(kernel):
        before, after = attrs["pads"][axis], attrs["pads"][axis + len(kernel)]
        low, high = (-before, x.shape[1 + axis] + after) if attrs["count_include_pad"] else (
            0, x.shape[1 + axis])  # fmt: skip
        over_low, over_high = _overhang(node, axis, size)
        slack = isinstance(over_high, int) and over_high <= (
            after if attrs["count_include_pad"] else 0
        )
        if slack and (attrs["count_include_pad"] or over_low == 0):
            counts.append(size)
            continue
        dilation = attrs["dilations"][axis]
        start = index[1 + axis] * attrs["strides"][axis] - before
        live = _live_taps(start, size, dilation, low, high)
        # dense windows that reach over an edge by less than their size meet the input
        met = dilation == 1 and all(isinstance(n, int) and n < size for n in (over_low, over_high))
        counts.append(live if met else dmax(live, 1))
    total = product(counts)

    def finish(value: Expr) -> Expr:
        return _divided(value, total, node)

    return Reduced(loops, Reduction("sum", body), finish)


def _live_taps(start: Dim, size: Dim, dilation: int, low: Dim, high: Dim) -> Dim:
    """How many of start, start + dilation, ... (size of them) lie in [low, high)."""
    first = dmax(ceildiv(low - start, dilation), 0)
    last = dmin(ceildiv(high - start, dilation), size)
    return dmax(last - first, 0)


def initial_type(reduction: Reduction) -> DType:
    """Element type of the accumulated value."""
    return DType.I64 if reduction.kind.startswith("arg") else reduction.body.dtype


def accumulated(position: int, reduction: Reduction) -> Acc:
    """The expression that stands for a reduction's result in the stores."""
    return Acc(position, initial_type(reduction))


__all__ = ["REDUCE", "Reduced", "accumulated", "broadcast_index", "first_spatial", "overhangs"]
