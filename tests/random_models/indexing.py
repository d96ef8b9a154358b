"""Rules of gathers, scatters and what selects by data."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Shape, Size, Value, largest


def _indices(b: Builder, shape: tuple[int, ...], size: Size) -> Value:
    """Constant indices into an axis, some counted from its end."""
    least = min(size.values)
    return b.constant(b.rng.integers(-least if b.flip(0.3) else 0, least, shape), "i64")


def _computed(b: Builder, size: Size) -> Value | None:
    """Integers of a visible value, brought into the range of an axis."""
    x = b.pick(lambda v: v.kind == "i64" and 1 <= v.rank <= 2 and v.small)
    if x is None or largest(x.shape) > 64:
        return None
    count = b.constant(min(size.values), "i64")
    return b.emit("Mod", [x, count], ("i64", x.shape, 8.0))[0]


def gather(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None:
        return
    axis = b.number(0, x.rank - 1)
    size = x.shape[axis]
    if min(size.values) < 1:
        return
    places = _computed(b, size) if b.flip(0.4) else None
    if places is None:
        places = _indices(b, b.choice(((), (1,), (3,), (2, 2))), size)
    shape = (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    if len(shape) <= 5 and largest(shape) <= 4096:
        b.keep(b.emit("Gather", [x, places], ("f32", shape, x.bound), axis=b.axis(axis, x.rank))[0])


def embedding(b: Builder) -> None:
    """Rows of a table for integers of a visible value."""
    x = b.pick(lambda v: v.kind in ("i64", "i32") and v.rank <= 3 and v.small)
    if x is None:
        return
    rows, width = b.number(3, 9), b.number(2, 6)
    places = b.emit("Mod", [x, b.constant(rows, x.kind)], (x.kind, x.shape, 9.0))[0]
    shape = (*x.shape, b.fixed(width))
    if largest(shape) <= 4096:
        b.keep(b.emit("Gather", [b.weight(rows, width), places], ("f32", shape, 1.0), axis=0)[0])


def gather_elements(b: Builder) -> None:
    x = b.pick_float(1, 4)
    if x is None or len(x.fixed_axes) < x.rank:
        return
    axis = b.number(0, x.rank - 1)
    sizes = [size.fixed or 0 for size in x.shape]
    if 0 in sizes:
        return
    sizes[axis] = b.number(1, 3)
    places = _indices(b, tuple(sizes), x.shape[axis])
    shape = b.shape(*sizes)
    result = ("f32", shape, x.bound)
    b.keep(b.emit("GatherElements", [x, places], result, axis=b.axis(axis, x.rank))[0])


def gather_nd(b: Builder) -> None:
    x = b.pick_float(2, 4)
    if x is None or min(v for size in x.shape[:2] for v in size.values) < 1:
        return
    count = b.number(1, 3)
    pairs = np.stack([b.rng.integers(0, min(size.values), count) for size in x.shape[:2]], -1)
    shape = (b.fixed(count), *x.shape[2:])
    b.keep(b.emit("GatherND", [x, b.constant(pairs, "i64")], ("f32", shape, x.bound))[0])


def gather_in_batch(b: Builder) -> None:
    """GatherND that takes other places of each part of a batch."""
    x = b.pick_float(2, 4)
    if x is None or not x.shape[0].fixed or min(x.shape[1].values) < 1:
        return
    count = b.number(1, 3)
    least = min(x.shape[1].values)
    places = b.rng.integers(-least if b.flip() else 0, least, (x.shape[0].fixed, count, 1))
    shape = (x.shape[0], b.fixed(count), *x.shape[2:])
    inputs = [x, b.constant(places, "i64")]
    b.keep(b.emit("GatherND", inputs, ("f32", shape, x.bound), batch_dims=1)[0])


def unique(b: Builder) -> None:
    """Different elements, how often each is there, and the order; summed up or results."""
    x = b.pick(lambda v: v.kind == "i64" and 1 <= v.rank <= 3 and v.small)
    if x is None or not b.features.run_time_sizes or any(0 in s.values for s in x.shape):
        return
    unknown: Shape = (Size("?", (1,) * b.calls),)
    kinds = [("i64", unknown, x.bound), *(("i64", unknown, 64.0),) * 3]
    values, _, back, counts = b.emit("Unique", [x], *kinds, sorted=b.number(0, 1))
    if b.flip(0.3) and len(b.scopes) == 1:
        b.last += [values, counts]
    again = b.emit("Gather", [values, back], ("i64", (_count(b, x),), x.bound))[0]
    b.keep(again)
    b.keep(b.emit("ReduceSum", [counts], ("i64", b.shape(1), 4096.0), keepdims=1)[0])


def scatter(b: Builder) -> None:
    x = b.pick_float(1, 4)
    if x is None or min((v for size in x.shape for v in size.values), default=1) < 1:
        return
    if b.flip() and len(x.fixed_axes) == x.rank:
        axis = b.number(0, x.rank - 1)
        sizes = [size.fixed or 0 for size in x.shape]
        sizes[axis] = b.number(1, min(2, sizes[axis]))
        line = b.rng.permutation(x.shape[axis].fixed or 1)[: sizes[axis]]
        places = np.broadcast_to(
            line.reshape([-1 if i == axis else 1 for i in range(x.rank)]), sizes
        )
        inputs = [x, b.constant(places, "i64"), b.weight(*sizes)]
        more = {"reduction": "add"} if b.flip(0.4) else {}
        result = b.emit("ScatterElements", inputs, ("f32", x.shape, x.bound + 1), axis=axis, **more)
    else:
        rest = x.shape[1:]
        if any(size.fixed is None for size in rest):
            return
        rows = b.rng.permutation(min(x.shape[0].values))[: b.number(1, 2)]
        updates = b.weight(len(rows), *(size.fixed or 0 for size in rest))
        inputs = [x, b.constant(rows.reshape(-1, 1), "i64"), updates]
        more = {"reduction": "add"} if b.flip(0.4) else {}
        result = b.emit("ScatterND", inputs, ("f32", x.shape, x.bound + 1), **more)
    b.keep(result[0])


def one_hot(b: Builder) -> None:
    x = b.pick(lambda v: v.kind == "i64" and 1 <= v.rank <= 3 and v.small)
    if x is None:
        return
    depth = b.number(2, 5)
    inputs = [x, b.constant([depth], "i64"), b.constant([0.0, 1.0])]
    axis = b.number(0, x.rank)
    shape = (*x.shape[:axis], b.fixed(depth), *x.shape[axis:])
    if largest(shape) <= 4096:
        b.keep(b.emit("OneHot", inputs, ("f32", shape, 1.0), axis=axis)[0])


def selected(b: Builder) -> None:
    """Rows or places that data choose, whose number only a run knows; summed up or a result."""
    if not b.features.run_time_sizes:
        return
    x = b.pick_float(1, 3)
    if x is None or min(v for size in x.shape for v in size.values) < 1:
        return
    flat = b.emit("Reshape", [x, b.constant([-1], "i64")], ("f32", (_count(b, x),), x.bound))[0]
    mask = b.emit("Greater", [flat, b.constant(0.1)], ("bool", flat.shape, 1.0))[0]
    unknown: Shape = (Size("?", (1,) * b.calls),)
    if b.flip():
        rows = b.emit("Compress", [flat, mask], ("f32", unknown, x.bound), axis=0)[0]
    else:
        found = b.emit("NonZero", [mask], ("i64", (b.fixed(1), *unknown), 64.0))[0]
        row = b.emit("Reshape", [found, b.constant([-1], "i64")], ("i64", unknown, 64.0))[0]
        rows = b.emit("Gather", [flat, row], ("f32", unknown, x.bound), axis=0)[0]
    if b.flip(0.3) and len(b.scopes) == 1:
        b.last.append(b.same("Tanh", rows, 1.0))
    bound = x.bound * largest(x.shape)
    b.keep(b.emit("ReduceSum", [rows], ("f32", b.shape(1), bound), keepdims=1)[0])


def repeated(b: Builder) -> None:
    """A tensor repeated as often as an integer of another says, and summed up again."""
    x = b.pick_float(1, 2)
    count = b.pick(lambda v: v.kind == "i64" and v.rank == 1 and "1" in v.texts)
    if x is None or count is None or not b.features.run_time_sizes:
        return
    positive = b.same("Abs", count)
    small = b.emit("Mod", [positive, b.constant(3, "i64")], ("i64", count.shape, 3.0))[0]
    some = b.emit("Add", [small, b.constant(1, "i64")], ("i64", count.shape, 4.0))[0]
    ones = [b.constant(np.ones(x.rank - 1), "i64")] if x.rank > 1 else []
    times = b.emit("Concat", [some, *ones], ("i64", b.shape(x.rank), 4.0), axis=0)[0]
    unknown = (Size("?", (1,) * b.calls), *x.shape[1:])
    wide = b.emit("Tile", [x, times], ("f32", unknown, x.bound))[0]
    mean = (b.fixed(1), *x.shape[1:])
    if 0 not in x.shape[0].values:
        b.keep(b.reduce("ReduceMean", wide, [0], mean, x.bound, keep=True))


def _count(b: Builder, x: Value) -> Size:
    total = b.fixed(1)
    for size in x.shape:
        total = total * size
    return total


RULES = {
    gather: 4, embedding: 1, gather_elements: 1, gather_nd: 1, scatter: 2, one_hot: 2, selected: 2,
    repeated: 1, gather_in_batch: 1, unique: 1,
}  # fmt: skip
