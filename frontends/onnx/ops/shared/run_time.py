"""Axes, starts and steps that only a run knows, as arithmetic on small integer vectors.

The rank of a result is always known; its dims become symbols that `read_dims` binds.
"""

from __future__ import annotations

from collections.abc import Sequence

from .....compiler.ir import Dim, DType, Sym, Value
from ...site import NotSupported, Site

TOO_MUCH = 1 << 60  # beyond any size, and far from where arithmetic on amounts wraps


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
        raise NotSupported(
            "how many axes there are is known at run time only", "pin the length of that input"
        )
    return s.cast(s.reshape(value, (value.type.elements,)), DType.I64)


def axes_of_rank(s: Site, axes: Value, rank: int, *, added: bool = False) -> Value:
    """Axes that are taken from (or added to) `rank` dimensions; where their number is left open,
    the declared rank of the result decides it.
    """
    declared = s.declared_rank()
    if axes.type.is_static or declared is None:
        return axes
    return s.counted(axes, max(declared - rank if added else rank - declared, 0))


def signed_dims(s: Site, value: Value) -> tuple[Dim, ...]:
    """The elements of an integer vector as dims that may be negative.

    A symbol is not: what only a run knows is the difference of two.
    """
    return s.emitter.resolved(vector(s, value), lambda amounts: _signed(s, amounts))


def _signed(s: Site, values: Value) -> list[Dim]:
    amounts = s.op_("min", s.op_("max", vector(s, values), -TOO_MUCH), TOO_MUCH)
    above = s.dims(s.op_("max", amounts, 0))
    below = s.dims(s.op_("max", s.op_("neg", amounts), 0))
    return [a - b for a, b in zip(above, below, strict=True)]


def wrapped(s: Site, axes: Value, rank: int) -> Value:
    """Possibly negative axes (i64), which a run checks, made non-negative."""
    if not is_known(s, axes):
        s.require_index(axes, rank, "an axis")
    return s.op_("where", s.op_("lt", axes, 0), s.op_("add", axes, rank), axes)


def chosen(s: Site, axes: Value, rank: int, *, once: bool = True) -> Value:
    """i64[rank]: 1 for the axes that are listed, else 0. once: none may be listed twice."""
    hits = matches(s, axes, rank, once=once)
    return s.reduce("max", hits, [1], keepdims=False)


def chosen_of_any(s: Site, axes: Value, rank: int, *, none_is_all: bool) -> Value:
    """i64[rank]: 1 for the axes that a vector lists whose length only a run knows, else 0.

    none_is_all: an empty vector stands for all axes.
    """
    places = wrapped(s, s.cast(axes, DType.I64), rank)
    grid = s.iota((rank, 1), 0, DType.I64)
    same = s.op_("eq", grid, s.reshape(places, (1, *axes.shape)))
    hits = s.reduce("sum", s.cast(same, DType.I64), [1], keepdims=False)
    if none_is_all:
        count = s.reshape(shape_vector(s, axes.shape), ())
        hits = s.op_("where", s.op_("eq", count, 0), 1, hits)
    return s.op_("min", hits, 1)


def matches(s: Site, axes: Value, rank: int, *, once: bool = True) -> Value:
    """i64[rank, number of axes]: 1 where an entry names an axis."""
    places = wrapped(s, vector(s, axes), rank)
    grid = s.iota((rank, 1), 0, DType.I64)
    hits = s.cast(s.op_("eq", grid, s.reshape(places, (1, places.shape[0]))), DType.I64)
    if once and places.shape[0] != 1 and not is_known(s, axes):
        single = s.op_("le", s.reduce("sum", hits, [1], keepdims=False), 1)
        s.require_nonzero(single, "an axis is listed twice")
    return hits


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


def split_axes(
    s: Site, x: Value, axes: Value, *, none_is_all: bool = False
) -> tuple[Value, list[int]]:
    """x with every axis split into (kept, reduced), one of which is 1 at run time.

    none_is_all: no axes, where a run decides how many, stand for all. Returns it and the reduced
    axes.
    """
    rank = x.type.rank
    if axes.type.is_static or axes.type.rank != 1:
        flags = chosen(s, axes, rank, once=False)
    else:
        flags = chosen_of_any(s, axes, rank, none_is_all=none_is_all)
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


def spread_pads(s: Site, pads: Value, axes: Value, rank: int) -> Value:
    """Pads (begins, then ends) of the listed axes as those of every axis."""
    hits = matches(s, axes, rank)
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
    return _filled(s, shape, x)


def _filled(s: Site, shape: Value, x: Value) -> tuple[Dim, ...]:
    """A shape, at most one of whose dims is -1, with what is left of x there.

    Dims of 0 of both shapes are taken to belong together: the others decide what is left.
    """
    hole = s.op_("eq", shape, -1)
    holes = s.reduce("sum", s.cast(hole, DType.I64), [0], keepdims=False)
    s.require_nonzero(s.op_("le", holes, 1), "the shape has more than one -1")
    given = s.op_("where", hole, 1, shape)
    dims = s.emitter.real(shape_vector(s, x.shape or (1,)))
    empty, open_ = (_some(s, s.op_("eq", part, 0)) for part in (dims, given))
    dims, given = (
        s.reduce("prod", s.op_("where", s.op_("eq", part, 0), 1, part), [0], keepdims=True)
        for part in (dims, given)
    )
    left = s.op_("div", dims, given)
    left = s.op_("where", s.op_("and", empty, s.op_("not", open_)), 0, left)
    return s.dims(s.op_("where", hole, left, shape))


def _some(s: Site, flags: Value) -> Value:
    """Whether any of a vector of booleans is true, in a vector of one."""
    return s.reduce("max", flags, [0], keepdims=True)
