"""Axes, starts and steps that only a run knows, as arithmetic on small integer vectors.

The rank of a result is always known; its dims become symbols that `read_dims` binds.
"""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.ir import Dim, DType, Sym, Value
from ....compiler.ir.dims import product
from ..site import NotSupported, Site


def is_known(s: Site, value: Value) -> bool:
    """Whether the elements are numbers at import, or there are none."""
    if value.type.elements == 0:
        return True
    known = s.known(value)
    return known is not None and not any(isinstance(item, Sym) for item in known.reshape(-1))


def vector(s: Site, value: Value) -> Value:
    """A scalar or vector of integers as an i64 vector.

    Raises NotSupported when its length is known at run time only: it would decide a rank.
    """
    if not value.type.is_static:
        raise NotSupported("how many axes there are is known at run time only")
    return s.cast(s.reshape(value, (value.type.elements,)), DType.I64)


def wrapped(s: Site, axes: Value, rank: int) -> Value:
    """Possibly negative axes made non-negative."""
    return s.op_("where", s.op_("lt", axes, 0), s.op_("add", axes, rank), axes)


def chosen(s: Site, axes: Value, rank: int) -> Value:
    """i64[rank]: 1 for the axes that are listed, else 0."""
    hits = _matches(s, axes, rank)
    return s.reduce("max", hits, [1], keepdims=False)


def _matches(s: Site, axes: Value, rank: int) -> Value:
    """i64[rank, number of axes]: 1 where an entry names an axis."""
    places = wrapped(s, vector(s, axes), rank)
    grid = s.iota((rank, 1), 0, DType.I64)
    return s.cast(s.op_("eq", grid, s.reshape(places, (1, places.shape[0]))), DType.I64)


def shape_vector(s: Site, shape: Sequence[Dim]) -> Value:
    """Dims as an i64 vector."""
    return s.emitter.virtual(list(shape))


def compacted(s: Site, values: Value, keep: Value, count: int) -> Value:
    """The `count` elements of a vector whose `keep` is 1, in order."""
    rank = int(values.shape[0])
    before = s.emit("cumsum", [keep], axis=0, exclusive=True)
    slots = s.op_("eq", s.iota((count, 1), 0, DType.I64), s.reshape(before, (1, rank)))
    wanted = s.op_("mul", s.cast(slots, DType.I64), s.reshape(keep, (1, rank)))
    picked = s.op_("mul", wanted, s.reshape(values, (1, rank)))
    return s.reduce("sum", picked, [1], keepdims=False)


def split_axes(s: Site, x: Value, axes: Value) -> tuple[Value, list[int]]:
    """x with every axis split into (kept, reduced), one of which is 1 at run time.

    Returns it and the reduced axes.
    """
    rank = x.type.rank
    flags = chosen(s, axes, rank)
    dims, hit = shape_vector(s, x.shape), s.op_("ne", flags, 0)
    kept = s.dims(s.op_("where", hit, 1, dims))
    reduced = s.dims(s.op_("where", hit, dims, 1))
    pairs = [dim for pair in zip(kept, reduced, strict=True) for dim in pair]
    return s.reshape(x, pairs), list(range(1, 2 * rank, 2))


def without_axes(s: Site, x: Value, axes: Value) -> tuple[Dim, ...]:
    """The shape of x less the listed axes."""
    count = x.type.rank - int(vector(s, axes).type.elements)  # type: ignore[arg-type]
    if count <= 0:
        return ()
    keep = s.op_("sub", 1, chosen(s, axes, x.type.rank))
    return s.dims(compacted(s, shape_vector(s, x.shape), keep, count))


def with_axes(s: Site, x: Value, axes: Value) -> tuple[Dim, ...]:
    """The shape of x with ones at the listed axes of the result."""
    rank = x.type.rank + int(vector(s, axes).type.elements)  # type: ignore[arg-type]
    flags = chosen(s, axes, rank)
    if not x.type.rank:
        return (1,) * rank
    before = s.emit("cumsum", [s.op_("sub", 1, flags)], axis=0, exclusive=True)
    place = s.op_("min", before, x.type.rank - 1)
    dims = s.emit("gather", [s.emitter.real(shape_vector(s, x.shape)), place], axis=0)
    return s.dims(s.op_("where", s.op_("ne", flags, 0), 1, dims))


def around_axis(s: Site, x: Value, axis: Value) -> Value:
    """x as (before, axis, behind) for an axis that a run chooses."""
    flags = chosen(s, axis, x.type.rank)
    dims = shape_vector(s, x.shape)
    passed = s.emit("cumsum", [flags], axis=0, exclusive=True)
    hit, behind = s.op_("ne", flags, 0), s.op_("ne", passed, 0)
    front = s.op_("not", s.op_("or", behind, hit))
    parts = [
        s.reduce("prod", s.op_("where", part, dims, 1), [0], keepdims=True)
        for part in (front, hit, behind)
    ]
    shape = s.dims(s.emit("concat", parts, axis=0))
    return s.reshape(x, shape)


def slice_at_run_time(
    s: Site, x: Value, starts: Value, ends: Value, axes: Value | None, steps: Value | None
) -> Value:
    """Slice whose bounds, axes or steps are data: gathers along the axes that it may cut."""
    rank = x.type.rank
    count = int(vector(s, starts).type.elements)  # type: ignore[arg-type]
    if axes is None:
        axes = s.emitter.virtual(list(range(count)))
    if steps is None:
        steps = s.emitter.virtual([1] * count)
    hits = _matches(s, axes, rank)
    hit = s.op_("ne", s.reduce("max", hits, [1], keepdims=False), 0)

    def per_axis(values: Value, otherwise: Value | int) -> Value:
        row = s.reshape(vector(s, values), (1, count))
        total = s.reduce("sum", s.op_("mul", hits, row), [1], keepdims=False)
        return s.op_("where", hit, total, otherwise)

    dims = s.emitter.real(shape_vector(s, x.shape))
    step = per_axis(steps, 1)
    first, number = _span(s, per_axis(starts, 0), per_axis(ends, dims), step, dims)
    cut = _axes_cut(s, axes, rank)
    lengths = s.dims(s.emit("gather", [number, s.emitter.virtual(cut)], axis=0))
    for axis, length in zip(cut, lengths, strict=True):
        line = s.iota((length,), 0, DType.I64)
        place = s.op_("add", s.op_("mul", line, s.take(step, 0, axis)), s.take(first, 0, axis))
        x = s.emit("gather", [x, place], axis=axis)
    return x


def _axes_cut(s: Site, axes: Value, rank: int) -> list[int]:
    if not is_known(s, axes):
        return list(range(rank))
    return s.axes(s.numbers(axes, "axes"), rank)


def _span(s: Site, start: Value, end: Value, step: Value, dims: Value) -> tuple[Value, Value]:
    """Per axis the first position and the number of positions, clamped as ONNX says."""
    forward = s.op_("gt", step, 0)

    def clamped(bound: Value, lowest: Value) -> Value:
        bound = s.op_("where", s.op_("lt", bound, 0), s.op_("add", bound, dims), bound)
        highest = s.op_("where", forward, dims, s.op_("sub", dims, 1))
        return s.op_("min", s.op_("max", bound, lowest), highest)

    zero = s.op_("mul", dims, 0)
    first = clamped(start, zero)
    last = clamped(end, s.op_("where", forward, zero, s.op_("sub", zero, 1)))
    distance = s.op_("sub", last, first)
    distance = s.op_("where", forward, distance, s.op_("neg", distance))
    stride = s.op_("abs", step)
    whole = s.op_("div", s.op_("sub", s.op_("add", distance, stride), 1), stride)
    return first, s.op_("max", whole, 0)


def spread_pads(s: Site, pads: Value, axes: Value, rank: int) -> Value:
    """Pads (begins, then ends) of the listed axes as those of every axis."""
    hits = _matches(s, axes, rank)
    count = int(hits.shape[1])
    halves = []
    for start in (0, count):
        half = s.slice(vector(s, pads), 0, start, start + count)
        picked = s.op_("mul", hits, s.reshape(half, (1, count)))
        halves.append(s.reduce("sum", picked, [1], keepdims=False))
    return s.emit("concat", halves, axis=0)


def shape_at_run_time(s: Site, x: Value, wanted: Value, keep_zero: bool) -> tuple[Dim, ...]:
    """The target of a Reshape that is computed: 0 copies a dim of x, -1 is what is left."""
    shape = vector(s, wanted)
    rank = int(shape.shape[0])
    if not rank:
        return ()
    dims = shape_vector(s, x.shape[:rank] + (0,) * (rank - x.type.rank))
    if not keep_zero:
        shape = s.op_("where", s.op_("eq", shape, 0), dims, shape)
    hole = s.op_("eq", shape, -1)
    given = s.op_("where", hole, 1, shape)
    total = s.reshape(shape_vector(s, [product(x.shape)]), (1,))
    left = s.op_("div", total, s.reduce("prod", given, [0], keepdims=True))
    return s.dims(s.op_("where", hole, left, shape))
