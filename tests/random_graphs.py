"""Small random graphs of what passes rewrite, driven by a list of numbers that shrinks well."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from suites.case import BOOL, F32, F64, I64, CaseBuilder, N, S

from tensmith.compiler.ir import Dim, Graph, Value, symbol
from tensmith.compiler.ir.dims import estimate, symbols_of
from tensmith.compiler.ir.ops.control import bound_symbols

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


def _alike(x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    """A value of the shape of x, where there is one, else x itself."""
    same = [value for value in made if value.shape == x.shape]
    return same[int(rng.integers(len(same)))] if same else x


def _join(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    other = _alike(x, rng, made)
    if rng.integers(2):
        return c.op("add", other, x)
    return c.op("concat", x, other, axis=int(rng.integers(x.type.rank)))


def _indices(c: CaseBuilder, x: Value, axis: int, shape: list[Dim], kind: int) -> Value:
    """Indices into an axis of x: of a constant, of what x holds, or one after the other."""
    size = x.shape[axis]
    if kind == 0 and isinstance(size, int) and size and all(isinstance(d, int) for d in shape):
        return c.weight(
            *(int(d) for d in shape if isinstance(d, int)), dtype=I64, low=-size, high=size
        )
    line = c.op("iota", shape=tuple(shape), axis=len(shape) - 1, dtype=I64)
    count = c.op("reshape", c.op("dims", values=(size,)), shape=())
    if kind == 1:
        return c.op("mod", c.op("mul", line, c.scalar(3, I64)), count)
    largest = c.op("reduce_max", x, axes=tuple(range(x.type.rank)), keepdims=False)
    largest = c.op("add", c.op("mul", largest, c.scalar(0.37)), c.scalar(0.123))
    moved = c.op("add", line, c.op("cast", c.op("floor", largest), dtype=I64))
    last = c.op("sub", count, c.scalar(1, I64))
    return c.op("min", c.op("max", moved, c.scalar(0, I64)), last)


def _gather(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axis, kind = int(rng.integers(x.type.rank)), int(rng.integers(3))
    length: Dim = x.shape[axis] if rng.integers(2) else 2
    shape: list[Dim] = [length] if rng.integers(2) or x.type.rank > 4 else [2, length]
    return c.op("gather", x, _indices(c, x, axis, shape, kind), axis=axis)


def _gather_elements(
    c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]
) -> Value:
    axis, kind = int(rng.integers(x.type.rank)), int(rng.integers(3))
    return c.op("gather_elements", x, _indices(c, x, axis, list(x.shape), kind), axis=axis)


def _scatter(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    axis, kind = int(rng.integers(x.type.rank)), int(rng.integers(3))
    places = _indices(c, x, axis, list(x.shape), kind)
    reduction = str(rng.choice(["none", "add", "max"]))
    return c.op("scatter_elements", x, places, c.op("neg", x), axis=axis, reduction=reduction)


def _sort(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    order = c.op("argsort", x, count=x.shape[-1], descending=bool(rng.integers(2)))
    return c.op("gather_elements", x, order, axis=x.type.rank - 1)


def _select(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    """The rows along the first axis of the largest elements: a run tells how many, one at least."""
    rest = tuple(range(1, x.type.rank))
    top = c.op("reduce_max", x, axes=rest, keepdims=False) if rest else x
    ends = [c.op(f"reduce_{end}", top, axes=(0,), keepdims=False) for end in ("max", "min")]
    middle = c.op("sub", c.op("mul", c.op("add", *ends), c.scalar(0.5)), c.scalar(0.001))
    found = c.node("nonzero", [c.op("ge", top, middle)], {})
    name = f"picked{len(c.nodes)}_{c.name.replace('.', '_')}"
    c.node("read_dims", [found.outputs[1]], {"symbols": (name,)})
    places = c.op("slice", found.outputs[0], starts=(0,), stops=(symbol(name),), steps=(1,))
    return c.op("gather", x, places, axis=0)


def _loop(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    """A few rounds that change x, and the step results of which all are stacked."""
    if x.type.rank > 4:
        return x
    body = c.region(f"loop{len(c.nodes)}")
    step, cond, state = body.input(dtype=I64), body.input(dtype=BOOL), body.input(*x.shape)
    factor = body.op("cast", body.op("add", step, body.scalar(1, I64)), dtype=F32)
    moved = body.op("tanh", body.op("add", state, factor))
    if rng.integers(2):
        moved = body.op("mul", moved, _alike(x, rng, made))
    body.results = [cond, moved, body.op("neg", moved)]
    trip = c.scalar(int(rng.integers(4)), I64)
    name = f"rounds{len(c.nodes)}_{c.name.replace('.', '_')}"
    results = c.node("loop", [trip, c.scalar(1, BOOL), x], {"bound": (name,)}, [body.graph()])
    total = c.op("reduce_sum", results.outputs[1], axes=(0,), keepdims=False)
    return c.op("add", results.outputs[0], total) if rng.integers(2) else results.outputs[1]


def _scan(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    """A running state over the first axis; its steps are the result."""
    if x.type.rank < 2:
        return x
    reverse = bool(rng.integers(2))
    body = c.region(f"scan{len(c.nodes)}")
    state, item = body.input(*x.shape[1:]), body.input(*x.shape[1:])
    moved = body.op("tanh", body.op("add", state, item))
    body.results = [moved, body.op("mul", moved, item)]
    start = c.op("reduce_max", x, axes=(0,), keepdims=False) if rng.integers(2) else c.op(
        "broadcast_to", c.scalar(0.5), shape=x.shape[1:]
    )  # fmt: skip
    attrs = {
        "num_state": 1,
        "trip": x.shape[0],
        "reverse_in": (reverse,),
        "reverse_out": (bool(rng.integers(2)),),
    }
    return c.node("scan", [start, x], attrs, [body.graph()]).outputs[1]


STEPS: tuple[Step, ...] = (
    _unary, _scalar, _channels, _transpose, _merge, _split, _slice, _reduce, _softmax, _pad, _conv,
    _pool, _matmul, _join, _join, _transpose, _conv,
)  # fmt: skip
# also what is no loop nest, or indexes by data, or decides sizes at run time
ALL_STEPS: tuple[Step, ...] = (
    *STEPS, _gather, _gather_elements, _scatter, _sort, _select, _loop, _scan,
)  # fmt: skip


def _chain(
    c: CaseBuilder, x: Value, numbers: Sequence[int], steps: tuple[Step, ...]
) -> list[Value]:
    made = [x]
    for number in numbers:
        rng = np.random.default_rng(number)
        made.append(steps[number % len(steps)](c, made[-1], rng, made))
    return made


def build(
    numbers: Sequence[int],
    *,
    symbols: int = 0,
    branches: bool = False,
    steps: tuple[Step, ...] = STEPS,
) -> Graph:
    """One step per number; the last value and one from the middle are the outputs.

    symbols: 1 for a symbolic first axis of the input, 2 for the last one, 3 for both. branches: the
    second half of the steps is in both branches of an `if`.
    """
    c = CaseBuilder("random")
    x = c.input(N if symbols & 1 else 2, 3, 4, S if symbols & 2 else 6)
    half = len(numbers) // 2 if branches else len(numbers)
    made = _chain(c, x, numbers[:half], steps)
    if branches:
        made.append(_branch(c, made[-1], numbers[half:], steps))
    results = dict.fromkeys((made[-1], made[len(made) // 2]))
    c.output(*(value for value in results if value.producer is not None))
    return c.graph()


def _joins(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    """One value joined twice, each time with another."""
    axis = int(rng.integers(min(2, x.type.rank)))
    last = x.type.rank - 1
    shared = c.op("softmax", x, axis=last)
    first = c.op("concat", shared, c.op("softmax", _alike(x, rng, made), axis=0), axis=axis)
    made.append(c.op("softmax", first, axis=last))
    return c.op("softmax", c.op("concat", x, shared, axis=axis), axis=0)


def _wide(c: CaseBuilder, x: Value, rng: np.random.Generator, made: list[Value]) -> Value:
    """Elements of twice the size in between."""
    wide = c.op("softmax", c.op("cast", x, dtype=F64), axis=x.type.rank - 1)
    return c.op("cast", c.op("softmax", wide, axis=0), dtype=F32)


# what shares memory: joins, other shapes, and kernels between them that are not fused into one
TANGLED_STEPS: tuple[Step, ...] = (
    _join, _join, _merge, _merge, _split, _unary, _unary, _scalar, _softmax, _softmax, _matmul,
    _transpose, _slice, _reduce, _channels, _conv, _scatter, _scan, _loop,
    _joins, _joins, _wide, _wide, _sort, _loop,
)  # fmt: skip
MOST_ELEMENTS = 2000


def build_tangled(numbers: Sequence[int], *, symbols: int = 0) -> Graph:
    """One step per number, on any of the last values; up to four values are outputs.

    Among the outputs are other shapes of values that are outputs or read elsewhere. symbols: as in
    `build`.
    """
    c = CaseBuilder("tangled")
    x = c.input(N if symbols & 1 else 2, 3, 4, S if symbols & 2 else 6)
    made = [c.op("softmax", x, axis=3)]
    for number in numbers:
        rng = np.random.default_rng(number)
        source = made[-1 - int(rng.integers(min(3, len(made))))]
        if estimate(source.type.elements, 4) > MOST_ELEMENTS:
            source = made[0]
        made.append(TANGLED_STEPS[number % len(TANGLED_STEPS)](c, source, rng, made))
    results = dict.fromkeys((made[-1], *made[:: max(2, len(made) // 3)]))
    flat = [c.op("reshape", value, shape=(value.type.elements,)) for value in (*results,)[:2]]
    c.output(*results, *flat)
    return c.graph()


def _branch(c: CaseBuilder, x: Value, numbers: Sequence[int], steps: tuple[Step, ...]) -> Value:
    total = c.op("reduce_sum", x, axes=tuple(range(x.type.rank)), keepdims=False)
    regions = []
    for op in ("neg", "abs"):
        inner = CaseBuilder(f"branch.{op}")
        last = inner.op(op, _chain(inner, x, numbers, steps)[-1])
        inner.output(last)
        regions.append(inner.graph())
    local = bound_symbols(regions[0]) | bound_symbols(regions[1])
    pairs = zip(*(region.outputs[0].shape for region in regions), strict=True)
    late = [a for a, b in pairs if a != b or symbols_of(a) & local]
    bound = tuple(f"branch{number}" for number in range(len(late)))
    return c.node("if", [c.op("gt", total, c.scalar(0))], {"bound": bound}, regions).output
