"""Rules of operators that move elements: reshapes, transposes, slices, joins, pads."""

from __future__ import annotations

from .builder import Builder, Shape, Size, Value, largest


def _any(b: Builder, low: int = 0, high: int = 5) -> Value | None:
    """A visible value, mostly of floats."""
    if b.flip(0.8):
        return b.pick_float(low, high)
    return b.pick(lambda v: low <= v.rank <= high and v.small)


def _emit(b: Builder, op: str, inputs: list[Value | None], shape: Shape, **more: object) -> None:
    x = inputs[0]
    assert x is not None
    if largest(shape) <= 4096 and len(shape) <= 6:
        b.keep(b.emit(op, inputs, (x.kind, shape, x.bound), **more)[0])


def transpose(b: Builder) -> None:
    x = _any(b, 2)
    if x is None:
        return
    perm = [int(axis) for axis in b.rng.permutation(x.rank)]
    if b.flip(0.2):
        perm = list(range(x.rank))[::-1]
        _emit(b, "Transpose", [x], x.shape[::-1])
        return
    _emit(b, "Transpose", [x], tuple(x.shape[axis] for axis in perm), perm=perm)


def _merged(b: Builder, x: Value) -> Shape | None:
    axis = b.number(0, x.rank - 2)
    merged = x.shape[axis] * x.shape[axis + 1]
    return (*x.shape[:axis], merged, *x.shape[axis + 2 :])


def _split(b: Builder, x: Value) -> Shape | None:
    even = [axis for axis in x.fixed_axes if (x.shape[axis].fixed or 1) % 2 == 0]
    if not even:
        return None
    axis = b.choice(even)
    half = (x.shape[axis].fixed or 0) // 2
    pair = b.shape(2, half) if b.flip() else b.shape(half, 2)
    return (*x.shape[:axis], *pair, *x.shape[axis + 1 :])


def reshape(b: Builder) -> None:
    """To constants, zeros and -1, or to a vector computed from the shapes of values."""
    x = _any(b, 1)
    if x is None:
        return
    shape = _split(b, x) if x.rank < 2 or b.flip() else _merged(b, x)
    if shape is None or len(shape) > 5:
        return
    unknown = [axis for axis, size in enumerate(shape) if size.fixed is None]
    symbols = [axis for axis in unknown if "(" not in shape[axis].text]
    kept = [i for i, size in enumerate(shape) if i < x.rank and x.shape[i].text == size.text]
    if b.features.symbols and len(symbols) == len(unknown) and b.flip():
        target = b.dims(shape)
        if target is not None:
            _emit(b, "Reshape", [x, target], shape)
        return
    left = [axis for axis in unknown if axis not in kept]
    empty = any(0 in size.values for size in shape)
    if len(left) > 1 or (empty and left):
        return
    wanted = [-1 if i in left else 0 if i in kept and b.flip() else s.fixed
              for i, s in enumerate(shape)]  # fmt: skip
    wanted = [0 if number is None else number for number in wanted]
    if not left and wanted and not empty and b.flip(0.3):
        wanted[b.number(0, len(wanted) - 1)] = -1
    _emit(b, "Reshape", [x, b.constant(wanted, "i64")], shape)


def flatten(b: Builder) -> None:
    x = _any(b, 1)
    if x is None or any(0 in size.values for size in x.shape):
        return
    axis = b.number(0, x.rank)
    sides = []
    for part in (x.shape[:axis], x.shape[axis:]):
        total = b.fixed(1)
        for size in part:
            total = total * size
        sides.append(total)
    _emit(b, "Flatten", [x], tuple(sides), axis=axis)


def squeeze(b: Builder) -> None:
    x = _any(b, 1)
    if x is None:
        return
    ones = [axis for axis in range(x.rank) if x.shape[axis].text == "1"]
    if not ones:
        axis = b.number(0, x.rank)
        shape = (*x.shape[:axis], b.fixed(1), *x.shape[axis:])
        given = axis - x.rank - 1 if b.flip(0.3) else axis
        _emit(b, "Unsqueeze", [x, b.constant([given], "i64")], shape)
        return
    axis = b.choice(ones)
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    _emit(b, "Squeeze", [x, b.constant([axis - x.rank if b.flip(0.3) else axis], "i64")], shape)


def expand(b: Builder) -> None:
    x = _any(b, 0, 4)
    like = b.pick(lambda v: v.small)
    if x is None or like is None:
        return
    ones = [axis for axis in range(x.rank) if x.shape[axis].text == "1"]
    other = b.pick(lambda v: v.rank > 0)
    extra = b.fixed(b.number(1, 3)) if other is None or b.flip() else b.choice(other.shape)
    shape = list(x.shape)
    if ones and b.flip(0.7):
        shape[b.choice(ones)] = extra
    else:
        shape.insert(0, extra)
    target = b.dims(shape)
    if target is not None:
        _emit(b, "Expand", [x, target], tuple(shape))


def tile(b: Builder) -> None:
    x = _any(b, 1, 4)
    if x is None:
        return
    repeats = [b.choice((1, 1, 2, 3)) for _ in range(x.rank)]
    shape = tuple(size * b.fixed(n) for size, n in zip(x.shape, repeats, strict=True))
    _emit(b, "Tile", [x, b.constant(repeats, "i64")], shape)


def _less(b: Builder, size: Size, count: int) -> Size:
    values = tuple(value - count for value in size.values)
    return Size(str(values[0]) if size.fixed is not None else f"({size.text}-{count})", values)


def cut(b: Builder) -> None:
    """Slice, from the start, from the end, backwards, or with a step over a fixed axis."""
    x = _any(b, 1)
    if x is None:
        return
    axis = b.number(0, x.rank - 1)
    size = x.shape[axis]
    if min(size.values) < 2:
        return
    way, big = b.number(0, 4), 2**31 - 1
    start, stop, step = 0, big, 1
    if way == 0:
        start, after = 1, _less(b, size, 1)
    elif way == 1:
        stop, after = -1, _less(b, size, 1)
    elif way == 2:
        start, after = -1, b.fixed(1)
    elif way == 3:
        start, stop, step, after = -1, -big, -1, size
    elif size.fixed is not None:
        start, step = b.number(0, 1), 2
        after = b.fixed(len(range(start, size.fixed, step)))
    else:
        start, stop, after = 0, 1, b.fixed(1)
    numbers = [b.constant([n], "i64") for n in (start, stop, axis, step)]
    shape = (*x.shape[:axis], after, *x.shape[axis + 1 :])
    _emit(b, "Slice", [x, *numbers], shape)


def part_by_shape(b: Builder) -> None:
    """The first elements of a constant, as many as another value has: position tables."""
    other = b.pick(lambda v: v.rank > 0 and v.small)
    if other is None:
        return
    axis = b.number(0, other.rank - 1)
    size = other.shape[axis]
    count = b.dims([size])
    if count is None or max(size.values) > 12:
        return
    table, zero = b.weight(12, b.number(1, 5)), b.constant([0], "i64")
    _emit(b, "Slice", [table, zero, count, b.constant([0], "i64")], (size, table.shape[1]))


def concat(b: Builder) -> None:
    x = _any(b, 1)
    if x is None:
        return
    axis = b.number(0, x.rank - 1)

    def fits(value: Value) -> bool:
        return value.kind == x.kind and value.rank == x.rank and all(
            i == axis or mine == own
            for i, (mine, own) in enumerate(zip(x.texts, value.texts, strict=True))
        )  # fmt: skip

    parts = [b.pick(fits) or x for _ in range(b.number(1, 2))]
    total = x.shape[axis]
    for part in parts:
        total = total + part.shape[axis]
    shape = (*x.shape[:axis], total, *x.shape[axis + 1 :])
    bound = max(v.bound for v in (x, *parts))
    if largest(shape) <= 4096:
        given = axis - x.rank if b.flip(0.3) else axis
        b.keep(b.emit("Concat", [x, *parts], (x.kind, shape, bound), axis=given)[0])


def split(b: Builder) -> None:
    x = _any(b, 1)
    if x is None:
        return
    axes = [axis for axis in x.fixed_axes if (x.shape[axis].fixed or 0) >= 2]
    if not axes:
        return
    axis = b.choice(axes)
    size = x.shape[axis].fixed or 0
    first = b.number(1, size - 1)
    parts, more = [first, size - first], {}
    if size % 2 == 0 and b.flip():
        parts, inputs = [size // 2] * 2, [x]
        more = {"num_outputs": 2} if b.opset >= 18 else {}
    else:
        inputs = [x, b.constant(parts, "i64")]
    shapes = [(*x.shape[:axis], b.fixed(part), *x.shape[axis + 1 :]) for part in parts]
    results = [(x.kind, shape, x.bound) for shape in shapes]
    for value in b.emit("Split", inputs, *results, axis=b.axis(axis, x.rank), **more):
        b.keep(value)


def pad(b: Builder) -> None:
    x = b.pick_float(1, 4)
    if x is None:
        return
    mode = b.choice(("constant", "constant", "edge", "reflect"))
    low, high = [0] * x.rank, [0] * x.rank
    for axis, size in enumerate(x.shape):
        most = min(size.values) - 1 if mode == "reflect" else 2 if min(size.values) else 0
        low[axis], high[axis] = (b.number(0, max(0, min(2, most))) for _ in range(2))
        if mode == "constant" and min(size.values) > 2 and b.flip(0.2):
            low[axis] = -1
    shape = tuple(
        b.fixed(size.fixed + before + after) if size.fixed is not None else
        Size(f"({size.text}+{before + after})" if before + after else size.text,
             tuple(value + before + after for value in size.values))
        for size, before, after in zip(x.shape, low, high, strict=True)
    )  # fmt: skip
    inputs: list[Value | None] = [x, b.constant([*low, *high], "i64")]
    if mode == "constant" and b.flip():
        inputs.append(b.constant(float(b.number(-2, 2))))
    _emit(b, "Pad", inputs, shape, mode=mode)


def blocks(b: Builder) -> None:
    """DepthToSpace and SpaceToDepth."""
    x = b.pick_float(4, 4)
    if x is None:
        return
    n, c, h, w = x.shape
    two, four = b.fixed(2), b.fixed(4)
    if c.fixed and c.fixed % 4 == 0:
        mode = b.choice(("DCR", "CRD"))
        shape = (n, b.fixed(c.fixed // 4), h * two, w * two)
        _emit(b, "DepthToSpace", [x], shape, blocksize=2, mode=mode)
    elif h.fixed and w.fixed and h.fixed % 2 == 0 and w.fixed % 2 == 0:
        shape = (n, c * four, b.fixed(h.fixed // 2), b.fixed(w.fixed // 2))
        _emit(b, "SpaceToDepth", [x], shape, blocksize=2)


def triangle(b: Builder) -> None:
    x = _any(b, 2)
    if x is None or x.kind in ("i8", "u8", "i32"):
        return
    more = [b.constant(b.number(-1, 2), "i64")] if b.flip() else []
    _emit(b, "Trilu", [x, *more], x.shape, upper=b.number(0, 1))


def resize(b: Builder) -> None:
    x = b.pick_float(4, 4)
    if x is None or any(0 in size.values for size in x.shape):
        return
    mode = b.choice(("nearest", "linear"))
    where = b.choice(("half_pixel", "asymmetric", "align_corners"))
    wide = b.number(1, 2)
    scales = b.constant([1.0, 1.0, 2.0, wide])
    factors = b.shape(1, 1, 2, wide)
    shape = tuple(size * factor for size, factor in zip(x.shape, factors, strict=True))
    more = {"nearest_mode": b.choice(("floor", "round_prefer_floor"))} if mode == "nearest" else {}
    _emit(
        b,
        "Resize",
        [x, None, scales],
        shape,
        mode=mode,
        coordinate_transformation_mode=where,
        **more,
    )


RULES = {
    transpose: 5, reshape: 6, flatten: 1, squeeze: 3, expand: 2, tile: 1, cut: 5, part_by_shape: 1,
    concat: 4, split: 2, pad: 2, blocks: 1, triangle: 1, resize: 1,
}  # fmt: skip
