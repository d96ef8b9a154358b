"""Rules of operators whose amounts a call brings: how far, how often, how many, from where.

Amounts are inputs of the model, other ones in each call; none is such that ONNX Runtime refuses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from onnx import numpy_helper

from .builder import MAX_ELEMENTS, Builder, Shape, Value, largest

EXTREMES = (2**63 - 1, -(2**63), 2**31 - 1, -(2**31))
TRIES = 20


def _sizes(x: Value, call: int) -> list[int]:
    return [size.values[call] for size in x.shape]


def _least(b: Builder) -> int:
    """The least size that an amount may make of a dim."""
    return 0 if b.features.empty else 1


def _unknown(b: Builder, sizes: Sequence[Sequence[int]]) -> Shape:
    """A shape of dims that only calls know; sizes: by call, then axis."""
    return tuple(b.size(own) for own in zip(*sizes, strict=True))


def _picked(b: Builder, low: int, high: int) -> Value | None:
    """A visible f32 tensor that has elements in every call, where amounts may be computed."""
    if not b.features.amounts:
        return None
    x = b.pick_float(low, high)
    return None if x is None or any(0 in size.values for size in x.shape) else x


def _keep(b: Builder, op: str, inputs: list[Value | None], shape: Shape, **more: object) -> None:
    x = inputs[0]
    assert x is not None
    if largest(shape) <= 2 * MAX_ELEMENTS:
        b.keep(b.emit(op, inputs, (x.kind, shape, x.bound), **more)[0])


def _tried(b: Builder, draw: Callable[[], list[int]], good: Callable[[list[int]], bool]
           ) -> list[int] | None:  # fmt: skip
    found = (draw() for _ in range(TRIES))
    return next((numbers for numbers in found if good(numbers)), None)


def pad_by(b: Builder) -> None:
    """Elements added on each side, or, where numbers are negative, taken away."""
    x = _picked(b, 1, 4)
    if x is None:
        return
    mode = b.choice(("constant", "constant", "edge", "reflect"))
    calls, after = [], []
    for call in range(b.calls):
        sizes = _sizes(x, call)
        pads = [0] * (2 * x.rank)
        for axis, size in enumerate(sizes):
            most = size - 1 if mode == "reflect" else 2
            low = -2 if mode == "constant" and b.flip() else 0

            def draw(low: int = low, most: int = most) -> list[int]:
                return [b.number(low, max(low, min(2, most))) for _ in range(2)]

            pair = _tried(b, draw, lambda two, size=size: _fits(b, size, two)) or [0, 0]
            pads[axis], pads[axis + x.rank] = pair
        calls.append(pads)
        after.append([n + pads[i] + pads[i + x.rank] for i, n in enumerate(sizes)])
    inputs: list[Value | None] = [x, b.amounts(calls)]
    if mode == "constant" and b.flip():
        inputs.append(b.run_time([0.5 * b.number(-3, 3) for _ in range(b.calls)], "f32"))
    _keep(b, "Pad", inputs, _unknown(b, after), mode=mode)


def _fits(b: Builder, size: int, pair: Sequence[int]) -> bool:
    return all(size + min(0, n) >= 0 for n in pair) and size + sum(pair) >= _least(b)


def slice_by(b: Builder) -> None:
    """From and to anywhere, beyond both ends too, forwards and backwards."""
    x = _picked(b, 1, 4)
    if x is None:
        return
    axes = sorted(int(n) for n in b.rng.permutation(x.rank)[: b.number(1, 2)])
    calls: list[list[list[int]]] = []
    sizes = [_sizes(x, call) for call in range(b.calls)]
    for own in sizes:
        rows = []
        for axis in axes:
            row = _range(b, own[axis])
            if row is None:
                return
            rows.append(row)
            own[axis] = _length(row, own[axis])
        calls.append(rows)
    starts, stops, steps = (
        b.amounts([[row[place] for row in rows] for rows in calls]) for place in range(3)
    )
    given = b.constant([b.axis(axis, x.rank) for axis in axes], "i64")
    shape = list(x.shape)
    for axis in axes:
        shape[axis] = b.size([own[axis] for own in sizes])
    _keep(b, "Slice", [x, starts, stops, given, steps], tuple(shape))


def _range(b: Builder, size: int) -> list[int] | None:
    return _tried(b, lambda: _ends(b, size), lambda row: _length(row, size) >= _least(b))


def _ends(b: Builder, size: int) -> list[int]:
    ends = [b.choice(EXTREMES) if b.flip(0.2) else b.number(-size - 2, size + 2) for _ in range(2)]
    return [*ends, b.choice((1, 1, 2, -1, -2, 3))]


def _length(row: Sequence[int], size: int) -> int:
    return len(range(*slice(*row).indices(size)))


def resize_by(b: Builder) -> None:
    """Pictures to a size that a call brings, or by its factors."""
    x = _picked(b, 4, 4)
    if x is None:
        return
    mode = b.choice(("nearest", "linear", "cubic"))
    where = b.choice(("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"))
    more: dict[str, object] = {"mode": mode, "coordinate_transformation_mode": where}
    if mode == "nearest":
        rounded = ("floor", "ceil", "round_prefer_floor", "round_prefer_ceil")
        more["nearest_mode"] = b.choice(rounded)
    # between corners, ONNX Runtime rounds a length by a factor, and the standard's code does not
    by_factor = where != "align_corners" and b.flip(0.3)
    factors, after = [], []
    for call in range(b.calls):
        n, c, h, w = _sizes(x, call)
        scales = [1.0, 1.0, b.choice((0.5, 1.0, 2.0, 3.0)), b.choice((0.75, 1.0, 1.5, 2.0))]
        new = [int(h * scales[2]), int(w * scales[3])]
        if not by_factor:
            new = [b.number(1, 9), b.number(1, 9)]
        if 0 in new:
            return
        factors.append(scales)
        after.append([n, c, *new])
    shape = (*x.shape[:2], *_unknown(b, [own[2:] for own in after]))
    if by_factor:
        _keep(b, "Resize", [x, None, b.run_time(factors, "f32")], shape, **more)
    else:
        _keep(b, "Resize", [x, None, None, b.amounts(after)], shape, **more)


def tile_by(b: Builder) -> None:
    x = _picked(b, 1, 4)
    if x is None:
        return
    calls = [[b.number(_least(b), 3) for _ in range(x.rank)] for _ in range(b.calls)]
    after = [[n * m for n, m in zip(_sizes(x, call), calls[call], strict=True)]
             for call in range(b.calls)]  # fmt: skip
    _keep(b, "Tile", [x, b.amounts(calls)], _unknown(b, after))


def top_by(b: Builder) -> None:
    x = _picked(b, 1, 4)
    if x is None:
        return
    axis = b.number(0, x.rank - 1)
    counts = [b.number(_least(b), own) for own in x.shape[axis].values]
    shape = (*x.shape[:axis], b.size(counts), *x.shape[axis + 1 :])
    flags = {"axis": b.axis(axis, x.rank), "largest": b.number(0, 1)}
    number = b.amounts([[count] for count in counts])
    values, places = b.emit(
        "TopK", [x, number], ("f32", shape, x.bound), ("i64", shape, 16.0), **flags
    )
    b.keep(values)
    b.keep(places)


def one_hot_by(b: Builder) -> None:
    x = b.pick(lambda v: v.kind == "i64" and 1 <= v.rank <= 3 and v.small)
    if x is None or not b.features.amounts:
        return
    counts = [b.number(1, 6) for _ in range(b.calls)]
    depth = b.amounts([[count] for count in counts] if b.flip() else counts)
    axis = b.number(0, x.rank)
    shape = (*x.shape[:axis], b.size(counts), *x.shape[axis:])
    if largest(shape) <= 2 * MAX_ELEMENTS:
        inputs = [x, depth, b.constant([0.0, 1.0])]
        given = b.axis(axis, x.rank + 1)
        b.keep(b.emit("OneHot", inputs, ("f32", shape, 1.0), axis=given)[0])


def split_by(b: Builder) -> None:
    """Into parts of sizes that a call brings; some may be empty where the features say so."""
    x = _picked(b, 1, 4)
    if x is None:
        return
    axis, count = b.number(0, x.rank - 1), b.number(2, 3)
    calls = []
    for whole in x.shape[axis].values:
        if whole < count * _least(b):
            return
        cuts = sorted(b.number(0, whole - count * _least(b)) for _ in range(count - 1))
        ends = [0, *cuts, whole - count * _least(b)]
        calls.append([ends[n + 1] - ends[n] + _least(b) for n in range(count)])
    sizes = [b.size([own[n] for own in calls]) for n in range(count)]
    results = [(x.kind, (*x.shape[:axis], s, *x.shape[axis + 1 :]), x.bound) for s in sizes]
    for value in b.emit("Split", [x, b.amounts(calls)], *results, axis=b.axis(axis, x.rank)):
        b.keep(value)


def new_by(b: Builder) -> None:
    """Tensors that are made of sizes alone: filled, counted, or spread."""
    if not b.features.amounts:
        return
    way = b.number(0, 2)
    if way == 0:
        rank = b.number(1, 3)
        calls = [[b.number(_least(b), 5) for _ in range(rank)] for _ in range(b.calls)]
        fill = numpy_helper.from_array(np.float32([b.number(-2, 2)]))
        result = ("f32", _unknown(b, calls), 2.0)
        b.keep(b.emit("ConstantOfShape", [b.amounts(calls)], result, value=fill)[0])
        return
    if way == 1:
        _range_by(b)
        return
    x = _picked(b, 0, 3)
    if x is None:
        return
    calls, after = [], []
    ones = [axis for axis in range(x.rank) if x.texts[axis] == "1" and b.flip()]
    for call in range(b.calls):
        own = _sizes(x, call)
        front = b.number(_least(b), 3)
        new = [b.number(_least(b), 4) if i in ones else n for i, n in enumerate(own)]
        calls.append([front, *(n if i in ones else b.choice((1, n)) for i, n in enumerate(new))])
        after.append([front, *new])
    _keep(b, "Expand", [x, b.amounts(calls)], _unknown(b, after))


def _range_by(b: Builder) -> None:
    """Numbers from one to another, downwards too."""
    kind = b.choice(("i64", "f32", "i32"))
    calls = []
    for _ in range(b.calls):
        step = b.choice((1, 2, -1, -3))
        start = b.number(-5, 5)
        count = b.number(_least(b), 6)
        calls.append((start, start + step * count, step, count))
    ends = [b.run_time([own[place] for own in calls], kind) for place in range(3)]
    shape = (b.size([own[3] for own in calls]),)
    b.keep(b.emit("Range", ends, (kind, shape, 24.0))[0])


def reshape_by(b: Builder) -> None:
    """To a shape that a call brings, -1 and 0 in it."""
    x = _picked(b, 1, 4)
    if x is None:
        return
    calls, after = [], []
    for call in range(b.calls):
        total = int(np.prod(_sizes(x, call)))
        first = b.choice([n for n in range(1, total + 1) if total % n == 0])
        pair = [first, total // first]
        after.append(pair)
        asked = list(pair)
        if b.flip(0.3):
            asked[b.number(0, 1)] = -1
        calls.append(asked)
    _keep(b, "Reshape", [x, b.amounts(calls)], _unknown(b, after))


def reduce_by(b: Builder) -> None:
    """Over axes that a call brings, which stay as ones."""
    x = _picked(b, 1, 4)
    if x is None:
        return
    op = b.choice(("ReduceSum", "ReduceMean", "ReduceMax")) if b.opset >= 18 else "ReduceSum"
    count = b.number(1, min(2, x.rank))
    chosen = [[int(n) for n in b.rng.permutation(x.rank)[:count]] for _ in range(b.calls)]
    after = [[1 if i in chosen[call] else n for i, n in enumerate(_sizes(x, call))]
             for call in range(b.calls)]  # fmt: skip
    given = b.amounts([[b.axis(axis, x.rank) for axis in own] for own in chosen])
    bound = x.bound * (largest(x.shape) if op == "ReduceSum" else 1)
    b.keep(b.emit(op, [x, given], ("f32", _unknown(b, after), bound), keepdims=1)[0])


def one_by(b: Builder) -> None:
    """Rows, a diagonal and a running sum where a call says."""
    x = _picked(b, 2, 4)
    if x is None:
        return
    way = b.number(0, 2)
    if way == 0:
        axis = b.number(0, x.rank - 1)
        count = b.number(0, 3)
        calls = [[b.number(-n, n - 1) for _ in range(count)] if count else b.number(-n, n - 1)
                 for n in x.shape[axis].values]  # fmt: skip
        places = b.amounts(calls)
        shape = (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
        _keep(b, "Gather", [x, places], shape, axis=b.axis(axis, x.rank))
    elif way == 1:
        numbers = [b.choice((-9, -1, 0, 1, 2, 9)) for _ in range(b.calls)]
        _keep(b, "Trilu", [x, b.amounts(numbers)], x.shape, upper=b.number(0, 1))
    else:
        axes = [b.number(-x.rank, x.rank - 1) for _ in range(b.calls)]
        most = max(1, largest(x.shape))
        result = ("f32", x.shape, x.bound * most)
        b.keep(b.emit("CumSum", [x, b.amounts(axes)], result, reverse=b.number(0, 1))[0])


RULES = {
    pad_by: 2, slice_by: 3, resize_by: 2, tile_by: 1, top_by: 1, one_hot_by: 1, split_by: 2,
    new_by: 2, reshape_by: 1, reduce_by: 1, one_by: 2,
}  # fmt: skip
