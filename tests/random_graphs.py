"""Small random graphs of what passes rewrite, driven by a list of numbers that shrinks well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from suites.case import CaseBuilder, N

from tensmith.compiler.ir import Graph, Value

Step = Callable[[CaseBuilder, Value, np.random.Generator, list[Value]], Value]


def _known(x: Value) -> list[int]:
    """The axes whose dims are numbers."""
    return [axis for axis, dim in enumerate(x.shape) if isinstance(dim, int)]


def _channels(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if not _known(x):
        return x
    axis = int(rng.choice(_known(x)))
    shape = [1] * x.type.rank
    shape[axis] = x.shape[axis]
    op = str(rng.choice(["add", "mul", "sub", "max"]))
    return c.op(op, x, c.weight(*shape[axis if rng.integers(2) else 0 :]))


def _scalar(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    op = str(rng.choice(["add", "mul", "sub", "div", "max", "min"]))
    return c.op(op, x, c.scalar(float(rng.choice([0.5, 1, 2, -3]))))


def _unary(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    return c.op(str(rng.choice(["neg", "abs", "tanh", "sigmoid"])), x)


def _transpose(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    perm = tuple(int(axis) for axis in rng.permutation(x.type.rank))
    return c.op("transpose", x, perm=perm)


def _merge(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if x.type.rank < 3:
        return x
    axis = int(rng.integers(x.type.rank - 1))
    shape = (*x.shape[:axis], x.shape[axis] * x.shape[axis + 1], *x.shape[axis + 2 :])
    return c.op("reshape", x, shape=shape)


def _split(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    even = [axis for axis in _known(x) if x.shape[axis] % 2 == 0]
    if not even or x.type.rank > 4:
        return x
    axis = int(rng.choice(even))
    shape = (*x.shape[:axis], 2, x.shape[axis] // 2, *x.shape[axis + 1 :])
    return c.op("reshape", x, shape=shape)


def _slice(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axis = int(rng.integers(x.type.rank))
    if axis not in _known(x) or x.shape[axis] < 2:
        return x
    starts = tuple(int(i == axis) for i in range(x.type.rank))
    return c.op("slice", x, starts=starts, stops=x.shape, steps=(1,) * x.type.rank)


def _reduce(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axes = (int(rng.integers(x.type.rank)),)
    keepdims = bool(rng.integers(2)) or x.type.rank < 3
    return c.op(str(rng.choice(["reduce_mean", "reduce_max"])), x, axes=axes, keepdims=keepdims)


def _softmax(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    return c.op("softmax", x, axis=int(rng.integers(x.type.rank)))


def _pad(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    pads = tuple(int(pad) for pad in rng.integers(0, 2, 2 * x.type.rank))
    return c.op("pad", x, pads=pads)


def _conv(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if x.type.rank != 4 or 1 not in _known(x):
        return x
    size = int(rng.choice([1, 3]))
    filters = c.weight(4, x.shape[1], size, size)
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (size // 2,) * 4}
    inputs = (x, filters, c.weight(4)) if rng.integers(2) else (x, filters)
    return c.op("conv", *inputs, **window)


def _pool(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if x.type.rank != 4:
        return x
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 1, 1, 0), "kernel": (2, 2)}
    return c.op(str(rng.choice(["max_pool", "avg_pool"])), x, **window)


def _matmul(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    if x.type.rank < 2 or x.type.rank - 1 not in _known(x):
        return x
    return c.op("matmul", x, c.weight(x.shape[-1], 6))


def _join(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    same = [value for value in made if value.shape == x.shape]
    other = same[int(rng.integers(len(same)))] if same else x
    if rng.integers(2):
        return c.op("add", other, x)
    return c.op("concat", x, other, axis=int(rng.integers(x.type.rank)))


STEPS: tuple[Step, ...] = (
    _unary, _scalar, _channels, _transpose, _merge, _split, _slice, _reduce, _softmax, _pad, _conv,
    _pool, _matmul, _join, _join, _transpose, _conv,
)  # fmt: skip


def _chain(c: CaseBuilder, x: Value, numbers: Sequence[int]) -> list[Value]:
    made = [x]
    for number in numbers:
        rng = np.random.default_rng(number)
        made.append(STEPS[number % len(STEPS)](c, made[-1], rng, made))
    return made


def build(numbers: Sequence[int], *, symbolic: bool = False, branches: bool = False) -> Graph:
    """One step per number; the last value and one from the middle are the outputs.

    symbolic: the first axis of the input is a symbol. branches: the second half of the steps is in
    both branches of an `if`.
    """
    c = CaseBuilder("random")
    x = c.input(N if symbolic else 2, 3, 4, 6)
    half = len(numbers) // 2 if branches else len(numbers)
    made = _chain(c, x, numbers[:half])
    if branches:
        made.append(_branch(c, made[-1], numbers[half:]))
    results = dict.fromkeys((made[-1], made[len(made) // 2]))
    c.output(*(value for value in results if value.producer is not None))
    return c.graph()


def _branch(c: CaseBuilder, x: Value, numbers: Sequence[int]) -> Value:
    total = c.op("reduce_sum", x, axes=tuple(range(x.type.rank)), keepdims=False)
    regions = []
    for op in ("neg", "abs"):
        inner = CaseBuilder(f"branch.{op}")
        last = inner.op(op, _chain(inner, x, numbers)[-1])
        inner.output(last)
        regions.append(inner.graph())
    return c.node("if", [c.op("gt", total, c.scalar(0))], {}, regions).output
