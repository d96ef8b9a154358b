"""Small random networks over pictures, with what arithmetic is saved on: filters that are equal,
zero or zero in part, repeated and joined channels, resizes, pixel shuffles, poolings, norms,
attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from suites.case import CaseBuilder

from tensmith.compiler.ir import Dim, Graph, Value, constant, symbol
from tensmith.compiler.ir.dims import estimate
from tensmith.compiler.ir.ops.registry import Array

Step = Callable[[CaseBuilder, Value, np.random.Generator], Value]
ONES = {"strides": (1, 1), "dilations": (1, 1)}
MOST_ELEMENTS = 2500  # of a picture, for a symbol of SIZE
SIZE = 5


def channels(x: Value) -> int:
    """How many channels a picture has: always a number."""
    found = x.shape[1]
    assert isinstance(found, int)
    return found


def grid(x: Value) -> tuple[Dim, Dim]:
    """Rows and columns of a picture."""
    return x.shape[2], x.shape[3]


def _filters(rng: np.random.Generator, *shape: int) -> tuple[Array, Array]:
    """Weights and biases; filters that repeat, that are zero, and channels that none reads."""
    w = rng.uniform(-1, 1, shape).astype(np.float32)
    bias = rng.uniform(-1, 1, shape[0]).astype(np.float32)
    for kind in rng.integers(0, 5, 2):
        some = rng.integers(0, shape[0], max(1, shape[0] // 2))
        if kind == 0:
            w[some], bias[some] = w[some[0]], bias[some[0]]
        elif kind == 1:
            w[some] = 0
        elif kind == 2:
            w[:, rng.integers(0, shape[1], max(1, shape[1] // 2))] = 0
        elif kind == 3 and len(shape) == 4:
            w[:, :, : int(rng.integers(shape[2]))] = 0
            w[..., shape[3] - int(rng.integers(shape[3])) :] = 0
    return w, bias


def conv(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    size, made = int(rng.choice([1, 1, 3])), int(rng.integers(1, 9))
    w, bias = _filters(rng, made, channels(x), size, size)
    pad = size // 2 if grid(x) != (SIZE, SIZE) or rng.integers(2) else 0
    operands = [x, constant(w), *([constant(bias)] if rng.integers(2) else [])]
    return c.op("conv", *operands, pads=(pad,) * 4, **ONES)


def depthwise(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    w, bias = _filters(rng, channels(x), 1, 3, 3)
    return c.op("conv", x, constant(w), constant(bias), pads=(1,) * 4, groups=channels(x), **ONES)


def product(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """A map of channels as exporters of transformers write it."""
    w, bias = _filters(rng, int(rng.integers(1, 9)), channels(x))
    last = c.op("matmul", c.op("transpose", x, perm=(0, 2, 3, 1)), constant(w.T.copy()))
    return c.op("transpose", c.op("add", last, constant(bias)), perm=(0, 3, 1, 2))


def unpooled(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    w, _ = _filters(rng, channels(x), int(rng.integers(1, 6)), 2, 2)
    window = {"strides": (2, 2), "dilations": (1, 1), "pads": (0,) * 4, "output_padding": (0, 0)}
    return c.op("conv_transpose", x, constant(w), **window)


def enlarged(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Every pixel twice, as a run-time size is enlarged."""
    (h, w), n, m = grid(x), x.shape[0], channels(x)
    apart = c.op("reshape", x, shape=(n, m, h, 1, w, 1))
    return c.op(
        "reshape", c.op("broadcast_to", apart, shape=(n, m, h, 2, w, 2)), shape=(n, m, 2 * h, 2 * w)
    )


def interpolated(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Twice as many rows, linear between those that there are."""
    size = x.shape[2]
    if not isinstance(size, int):
        return enlarged(c, x, rng)
    places = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    low = np.floor(places).astype(np.int64)
    share = (places - low).astype(np.float32).reshape(-1, 1)
    ends = (low, np.minimum(low + 1, size - 1))
    first, second = (c.op("gather", x, constant(end), axis=2) for end in ends)
    kept = c.op("mul", first, constant(1 - share))
    return c.op("add", kept, c.op("mul", second, constant(share)))


def shuffled(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Depth to space."""
    (h, w), n, m = grid(x), x.shape[0], channels(x)
    if m % 4:
        return x
    apart = c.op("reshape", x, shape=(n, 2, 2, m // 4, h, w))
    moved = c.op("transpose", apart, perm=(0, 3, 4, 1, 5, 2))
    return c.op("reshape", moved, shape=(n, m // 4, 2 * h, 2 * w))


def gathered_pixels(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Space to depth."""
    (h, w), n, m = grid(x), x.shape[0], channels(x)
    if not isinstance(h, int) or not isinstance(w, int) or h % 2 or w % 2 or m > 4:
        return x
    apart = c.op("reshape", x, shape=(n, m, h // 2, 2, w // 2, 2))
    moved = c.op("transpose", apart, perm=(0, 3, 5, 1, 2, 4))
    return c.op("reshape", moved, shape=(n, 4 * m, h // 2, w // 2))


def grey(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """One channel, as often as there were channels."""
    (h, w), n = grid(x), x.shape[0]
    one = c.op("slice", x, starts=(0,) * 4, stops=(n, 1, h, w), steps=(1,) * 4)
    return c.op("broadcast_to", one, shape=(n, max(3, channels(x)), h, w))


def joined(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    other = (x, c.op("tanh", x), c.op("neg", x))[int(rng.integers(3))]
    return c.op("concat", x, other, axis=1)


def picked(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Some channels, in any order, some of them twice."""
    return c.op("gather", x, constant(rng.integers(0, channels(x), 4)), axis=1)


def cropped(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    (h, w), n = grid(x), x.shape[0]
    if not isinstance(h, int) or h < 3:
        return x
    return c.op("slice", x, starts=(0, 0, 1, 0), stops=(n, channels(x), h - 1, w), steps=(1,) * 4)


def padded(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    value = c.scalar(float(rng.integers(2)))
    return c.op("pad", x, value, pads=(0, 0, 1, 0, 0, 0, 0, 1))


def pooled(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    window = {"kernel": (2, 2), "pads": (1, 0, 0, 1), **ONES}
    return c.op(str(rng.choice(["avg_pool", "max_pool"])), x, **window)


def gated(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Squeeze and excitation."""
    mean = c.op("reduce_mean", x, axes=(2, 3), keepdims=True)
    w, bias = _filters(rng, channels(x), channels(x), 1, 1)
    gate = c.op("conv", mean, constant(w), constant(bias), pads=(0,) * 4, **ONES)
    return c.op("mul", x, c.op("sigmoid", gate))


def normed(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Over the channels."""
    if rng.integers(2):
        return c.op("softmax", x, axis=1)
    last = c.op("transpose", x, perm=(0, 2, 3, 1))
    last = c.op("layer_norm", last, c.weight(channels(x)), axis=3)
    return c.op("transpose", last, perm=(0, 3, 1, 2))


def attended(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """Pixels of a row, or of the whole picture, meet under a mask; rows and pictures are one axis
    then, or pictures are the second one."""
    (h, w), n, m = grid(x), x.shape[0], channels(x)
    rows = bool(rng.integers(2))
    length, count = (w, n * h) if rows else (h * w, n)
    flat = c.op("reshape", c.op("transpose", x, perm=(0, 2, 3, 1)), shape=(count, length, m))
    if rng.integers(2):
        three = c.op("matmul", flat, c.weight(m, 3 * m))
        three = c.op("transpose", c.op("reshape", three, shape=(count, length, 3, m)),
                     perm=(2, 0, 1, 3))  # fmt: skip
        parts = [
            c.op(
                "slice", three, starts=(i, 0, 0, 0), stops=(i + 1, count, length, m), steps=(1,) * 4
            )
            for i in range(3)
        ]
        q, k, v = (c.op("reshape", part, shape=flat.shape) for part in parts)
    else:
        q = k = v = flat
    scores = c.op("matmul", q, c.op("transpose", k, perm=(0, 2, 1)))
    if isinstance(length, int) and rng.integers(2):
        hidden = np.where(np.tri(length, dtype=bool), 0, -np.inf).astype(np.float32)
        scores = c.op("add", scores, constant(hidden))
    mixed = c.op("matmul", c.op("softmax", scores, axis=2), v)
    return c.op("transpose", c.op("reshape", mixed, shape=(n, h, w, m)), perm=(0, 3, 1, 2))


def scaled(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    vector = rng.choice(np.array([1, 2, 0.5], np.float32), (channels(x), 1, 1))
    return c.op(str(rng.choice(["add", "mul"])), x, constant(vector))


def function(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    if rng.integers(2):
        return c.op("max", x, c.scalar(0))
    return c.op("tanh", x)


STEPS: tuple[Step, ...] = (
    conv, conv, conv, product, depthwise, unpooled, enlarged, interpolated, shuffled,
    gathered_pixels, grey, joined, picked, cropped, padded, pooled, gated, normed, scaled,
    function, function, conv, attended,
)  # fmt: skip


def build(numbers: Sequence[int], *, symbols: int = 0, forks: bool = False) -> Graph:
    """One step per number; the last value is the result, with forks the one before it too.

    symbols: 1 for a symbolic number of pictures, 2 for symbolic rows, 3 for both. forks: whether
    steps may take the value before the last.
    """
    c = CaseBuilder("pictures")
    rows: Any = symbol("h") if symbols & 2 else SIZE
    made = [c.input(symbol("n") if symbols & 1 else 2, 3, rows, SIZE)]
    for number in numbers:
        rng = np.random.default_rng(number)
        x = made[-2] if forks and len(made) > 1 and number % 3 == 0 else made[-1]
        if estimate(x.type.elements, SIZE) > MOST_ELEMENTS or channels(x) > 24:
            x = made[0]
        made.append(STEPS[number // 3 % len(STEPS)](c, x, rng))
    last = dict.fromkeys(made[-2:] if forks else made[-1:])
    c.output(*(value for value in last if value.producer is not None))
    return c.graph()
