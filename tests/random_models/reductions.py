"""Rules of reductions, softmax, normalisation, running sums and selection by rank."""

from __future__ import annotations

import numpy as np

from .builder import Builder, Shape, Value, largest

MOST_FACTORS = 12  # of up to 1.5 each
KINDS = ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
         "ReduceSumSquare", "ReduceProd", "ReduceLogSumExp")  # fmt: skip
SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")


def _without(b: Builder, x: Value, axes: list[int], keep: bool) -> Shape:
    one = b.fixed(1)
    found = [one if axis in axes else size for axis, size in enumerate(x.shape)]
    return tuple(size for axis, size in enumerate(found) if keep or axis not in axes)


def _is_empty(x: Value) -> bool:
    return any(0 in size.values for size in x.shape)


def reduce(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None:
        return
    op = b.choice(KINDS)
    if _is_empty(x) and op in ("ReduceMax", "ReduceMin", "ReduceMean", "ReduceLogSumExp"):
        return
    axes = [axis for axis in range(x.rank) if b.flip(0.4)] or [b.number(0, x.rank - 1)]
    count = largest([x.shape[axis] for axis in axes])
    if op == "ReduceProd":
        x = b.emit("Add", [b.same("Tanh", x, 1.0), b.constant(0.5)], ("f32", x.shape, 1.5))[0]
        if count > MOST_FACTORS:
            return
    product = 1.5 ** min(count, MOST_FACTORS)
    bound = {"ReduceSumSquare": x.bound**2 * count, "ReduceProd": product}.get(op, x.bound)
    bound = bound * count if op in SUMS[:3] else bound + 4
    keep = b.number(0, 1)
    shape = _without(b, x, axes, bool(keep))
    given = [axis - x.rank if b.flip(0.2) else axis for axis in axes]
    b.keep(b.reduce(op, x, given, shape, bound, bool(keep)))


def arg(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None or _is_empty(x):
        return
    axis, keep = b.number(0, x.rank - 1), b.number(0, 1)
    shape = _without(b, x, [axis], bool(keep))
    more = {"select_last_index": 1} if b.flip(0.3) else {}
    op = b.choice(("ArgMax", "ArgMin"))
    more |= {"axis": b.axis(axis, x.rank), "keepdims": keep}
    b.keep(b.emit(op, [x], ("i64", shape, 16.0), **more)[0])


def softmax(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None or _is_empty(x):
        return
    op = b.choice(("Softmax", "Softmax", "LogSoftmax", "Hardmax"))
    axis = b.number(-x.rank, x.rank - 1)
    b.keep(b.same(op, x, 1.0 if op != "LogSoftmax" else 2 * x.bound + 8, axis=axis))


def running(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None:
        return
    axis = b.number(0, x.rank - 1)
    bound = x.bound * max(1, *x.shape[axis].values)
    flags = {"exclusive": b.number(0, 1), "reverse": b.number(0, 1)}
    given = b.constant(b.axis(axis, x.rank), "i64")
    result = b.emit("CumSum", [x, given], ("f32", x.shape, bound), **flags)
    b.keep(result[0])


def layer_norm(b: Builder) -> None:
    x = b.pick_float(2)
    if x is None or x.shape[-1].fixed is None or x.shape[-1].fixed < 2 or _is_empty(x):
        return
    width = x.shape[-1].fixed
    inputs = [x, b.weight(width), *([b.weight(width)] if b.flip() else [])]
    b.keep(b.emit("LayerNormalization", inputs, ("f32", x.shape, 4.0), axis=-1, epsilon=1e-2)[0])


def written_norm(b: Builder) -> None:
    """Layer normalisation as exporters write it out."""
    x = b.pick_float(2)
    if x is None or _is_empty(x) or min(x.shape[-1].values) < 2:
        return
    shape = (*x.shape[:-1], b.fixed(1))
    mean = b.reduce("ReduceMean", x, [-1], shape, x.bound, keep=True)
    centred = b.emit("Sub", [x, mean], ("f32", x.shape, 2 * x.bound))[0]
    squares = b.emit("Pow", [centred, b.constant(2.0)], ("f32", x.shape, x.bound**2))[0]
    variance = b.reduce("ReduceMean", squares, [-1], shape, x.bound**2, keep=True)
    eased = b.emit("Add", [variance, b.constant(1e-2)], ("f32", shape, x.bound**2))[0]
    root = b.same("Sqrt", eased)
    b.keep(b.emit("Div", [centred, root], ("f32", x.shape, 4.0))[0])


def channel_norm(b: Builder) -> None:
    x = b.pick_float(3, 4)
    if x is None or x.shape[1].fixed is None or _is_empty(x):
        return
    channels = x.shape[1].fixed
    if largest(x.shape[2:]) < 2 or channels == 0:
        return
    scale, bias = b.weight(channels), b.weight(channels)
    if b.flip():
        mean, spread = b.weight(channels), b.constant(b.rng.uniform(0.5, 2, channels))
        inputs = [x, scale, bias, mean, spread]
        result = b.emit("BatchNormalization", inputs, ("f32", x.shape, 2 * x.bound + 2))
    elif min(value for size in x.shape[2:] for value in size.values) > 1:
        inputs = [x, scale, bias]
        result = b.emit("InstanceNormalization", inputs, ("f32", x.shape, 6.0), epsilon=1e-2)
    else:
        return
    b.keep(result[0])


def other_norm(b: Builder) -> None:
    x = b.pick_float(2)
    if x is None or _is_empty(x):
        return
    if b.flip():
        shifted = b.emit("Add", [b.same("Abs", x), b.constant(0.5)], ("f32", x.shape, x.bound))[0]
        axis = b.number(0, x.rank - 1)
        b.keep(b.same("LpNormalization", shifted, 1.0, axis=axis, p=b.number(1, 2)))
    elif x.rank == 4:
        b.keep(b.same("LRN", x, x.bound, size=b.choice((1, 3)), alpha=0.1, beta=0.75, bias=1.0))


def top(b: Builder) -> None:
    x = b.pick_float(1)
    if x is None:
        return
    axis = b.number(0, x.rank - 1)
    count = min(x.shape[axis].values)
    if count < 1:
        return
    wanted = b.number(1, min(count, 3))
    shape = (*x.shape[:axis], b.fixed(wanted), *x.shape[axis + 1 :])
    flags = {"axis": b.axis(axis, x.rank), "largest": b.number(0, 1)}
    number = b.constant([wanted], "i64")
    values, places = b.emit(
        "TopK", [x, number], ("f32", shape, x.bound), ("i64", shape, 16.0), **flags
    )
    b.keep(values)
    if b.flip():
        b.keep(places)


def attention(b: Builder) -> None:
    """Scores, softmax and weighted sum over the last two axes, with a mask now and then."""
    q = b.pick_float(2, 4)
    if q is None or q.shape[-1].fixed is None or _is_empty(q):
        return
    others = [
        b.pick(lambda v: v.kind == "f32" and v.texts == q.texts and v.small) or q for _ in range(2)
    ]
    k, v = others
    perm = [*range(q.rank - 2), q.rank - 1, q.rank - 2]
    turned = b.emit("Transpose", [k], ("f32", tuple(k.shape[i] for i in perm), k.bound), perm=perm)
    scores = (*q.shape[:-1], q.shape[-2])
    if largest(scores) > 4096:
        return
    width = float(q.shape[-1].fixed)
    product = b.emit("MatMul", [q, turned[0]], ("f32", scores, q.bound * k.bound * width))[0]
    factor = b.constant(1 / (1 + product.bound / 4))
    found = b.emit("Mul", [product, factor], ("f32", scores, 4.0))[0]
    mask = b.pick(lambda m: m.kind == "bool" and m.texts == found.texts)
    if mask is not None:
        low = b.constant(float(np.float32(-1e4)))
        found = b.emit("Where", [mask, found, low], ("f32", scores, 4.0))[0]
    weights = b.same("Softmax", found, 1.0, axis=-1)
    b.keep(b.emit("MatMul", [weights, v], ("f32", v.shape, v.bound))[0])


RULES = {
    reduce: 6, arg: 1, softmax: 3, running: 1, layer_norm: 2, written_norm: 1, channel_norm: 1,
    other_norm: 1, top: 1, attention: 2,
}  # fmt: skip
