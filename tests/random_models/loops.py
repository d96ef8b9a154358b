"""Rules of control flow of other forms: states of several types, loops without a count or with none
of their rounds, states that grow, scans of several tensors, branches of other sizes.
"""

from __future__ import annotations

from .builder import Builder, Shape, Size, Value, largest


def _allowed(b: Builder) -> bool:
    return b.features.control and len(b.scopes) < 4


def _names(b: Builder, sign: str) -> tuple[str, Value, Value]:
    """A prefix of names, and the first two inputs of a loop's body."""
    prefix = b.scopes[-1].prefix + f"{sign}{len(b.scopes[-1].nodes)}_"
    return prefix, Value(f"{prefix}i", "i64", (), 8.0), Value(f"{prefix}c", "bool", (), 1.0)


def _rounds(b: Builder, least: int = 1) -> tuple[Value, tuple[int, ...]]:
    """How often, in every call; an operand that says so."""
    if b.features.amounts and b.flip(0.7):
        rounds = tuple(b.number(least, 4) for _ in range(b.calls))
        return b.amounts(rounds), rounds
    count = b.number(max(least, 1), 4)
    return b.constant(count, "i64"), (count,) * b.calls


def _size_of(b: Builder, values: tuple[int, ...]) -> Size:
    return b.fixed(values[0]) if len(set(values)) == 1 else b.size(values)


def _steps(b: Builder) -> None:
    from .generate import step

    for _ in range(b.number(0, 3)):
        step(b)


def several_states(b: Builder) -> None:
    """Floats, an integer and a flag that go round, ended by any of count and flag."""
    x = b.pick_float(0, 3)
    if x is None or not _allowed(b):
        return
    # of no round, ONNX Runtime stacks nothing of the size 0 along every dim that has a name
    none = b.features.empty and len(x.fixed_axes) == x.rank
    trip, rounds = _rounds(b, 0 if none else 1)
    prefix, number, flag = _names(b, "m")
    bound = max(1.0, x.bound)
    state = Value(f"{prefix}s", "f32", x.shape, bound)
    count = Value(f"{prefix}n", "i64", (), 64.0)
    odd = Value(f"{prefix}o", "bool", (), 1.0)
    without_count = b.flip(0.3)
    with b.region(prefix, [state]) as scope:
        real = b.emit("Cast", [count], ("f32", (), 64.0), to=1)[0]
        moved = b.emit("Add", [state, real], ("f32", x.shape, bound + 64))[0]
        after = b.same("Sin", moved, 1.0)
        scope.pool.append(after)
        _steps(b)
        kept = b.emit("Where", [odd, after, state], ("f32", x.shape, bound))[0]
        two = b.constant(2, "i64")
        more = b.emit("Add", [count, two], ("i64", (), 64.0))[0]
        turned = b.same("Not", odd)
        if without_count:
            next_number = b.emit("Add", [number, b.constant(1, "i64")], ("i64", (), 8.0))[0]
            again = b.emit("Less", [next_number, trip], ("bool", (), 1.0))[0]
        else:
            again = b.same("Identity", flag)
        stacked = b.same("Tanh", kept, 1.0)
    results = [again, kept, more, turned, stacked]
    body = b.graph(scope, "body", [number, flag, state, count, odd], results)
    rounds = tuple(max(1, n) for n in rounds) if without_count else rounds
    kinds = [("f32", x.shape, bound), ("i64", (), 64.0), ("bool", (), 1.0)]
    kinds.append(("f32", (_size_of(b, rounds), *x.shape), 1.0))
    start = [b.constant(b.number(0, 3), "i64"), b.constant(b.flip(), "bool")]
    condition = b.constant(True, "bool") if without_count or b.flip() else None
    inputs = [None if without_count else trip, condition, x, *start]
    for value in b.emit("Loop", inputs, *kinds, body=body):
        b.keep(value)


def growing_state(b: Builder) -> None:
    """A state to which every round joins rows, as caches of decoders grow."""
    x = b.pick_float(1, 3)
    if x is None or not _allowed(b):
        return
    trip, rounds = _rounds(b)
    axis = b.number(0, x.rank - 1)
    prefix, number, flag = _names(b, "g")
    inner = tuple(Size(f"({prefix})", size.values) if i == axis else size
                  for i, size in enumerate(x.shape))  # fmt: skip
    state = Value(f"{prefix}s", "f32", inner, x.bound)
    whole = tuple(size * (1 + n) for size, n in zip(x.shape[axis].values, rounds, strict=True))
    shape: Shape = (*x.shape[:axis], _size_of(b, whole), *x.shape[axis + 1 :])
    if largest(shape) > 2048:
        return
    with b.region(prefix) as scope:
        real = b.emit("Cast", [number], ("f32", (), 8.0), to=1)[0]
        row = b.same("Sin", b.emit("Add", [x, real], ("f32", x.shape, x.bound + 8))[0], 1.0)
        parts = [state, row] if b.flip() else [row, state]
        longer = b.emit("Concat", parts, ("f32", inner, x.bound + 1), axis=b.axis(axis, x.rank))[0]
        again = b.same("Identity", flag)
    body = b.graph(scope, "body", [number, flag, state], [again, longer])
    result = ("f32", shape, x.bound + 1)
    b.keep(b.emit("Loop", [trip, b.constant(True, "bool"), x], result, body=body)[0])


def scans(b: Builder) -> None:
    """Two tensors at once, without a state or with one that is no float."""
    x = b.pick_float(2, 4)
    if x is None or not _allowed(b) or any(0 in size.values for size in x.shape):
        return
    other = b.pick(lambda v: v.kind == "f32" and v.rank >= 1 and v.texts[0] == x.texts[0]) or x
    if any(0 in size.values for size in other.shape):
        return
    prefix, _, _ = _names(b, "z")
    counts = b.flip()
    items = [Value(f"{prefix}x{n}", "f32", v.shape[1:], v.bound) for n, v in enumerate((x, other))]
    number = Value(f"{prefix}n", "i64", (), 32.0)
    with b.region(prefix, items) as scope:
        mean = items[1]
        if mean.rank:
            mean = b.emit("ReduceMean", [mean], ("f32", (), mean.bound), keepdims=0)[0]
        total = b.emit("Add", [items[0], mean], ("f32", items[0].shape, x.bound + other.bound))[0]
        scope.pool.append(b.same("Tanh", total, 1.0))
        _steps(b)
        results = [scope.pool[2], b.same("Neg", items[1])]
        states = []
        if counts:
            states = [b.emit("Add", [number, b.constant(1, "i64")], ("i64", (), 32.0))[0]]
    inputs = [number, *items] if counts else items
    body = b.graph(scope, "body", inputs, [*states, *results])
    kinds = [("i64", (), 32.0)] if counts else []
    kinds += [("f32", x.shape, 1.0), ("f32", other.shape, other.bound)]
    given = [b.constant(0, "i64"), x, other] if counts else [x, other]
    directions = [b.number(0, 1), b.number(0, 1)]
    for value in b.emit("Scan", given, *kinds, body=body, num_scan_inputs=2,
                        scan_input_directions=directions):  # fmt: skip
        b.keep(value)


def other_sizes(b: Builder) -> None:
    """Branches whose results differ in size; which of them is taken, a call says."""
    x = b.pick_float(1, 3)
    if x is None or not _allowed(b) or not b.features.amounts:
        return
    if any(0 in size.values for size in x.shape):
        return
    taken = [b.flip() for _ in range(b.calls)]
    condition = b.run_time(taken, "bool")
    prefix, _, _ = _names(b, "e")
    axis = b.number(0, x.rank - 1)
    graphs, sizes = [], []
    for name, way in (("then_branch", b.number(0, 2)), ("else_branch", b.number(0, 2))):
        with b.region(f"{prefix}{name[0]}") as scope:
            own = b.same("Sin", x, 1.0)
            factor = 1
            if way == 1:
                one = b.constant([0], "i64"), b.constant([1], "i64"), b.constant([axis], "i64")
                cut = (*x.shape[:axis], b.fixed(1), *x.shape[axis + 1 :])
                own = b.emit("Slice", [own, *one], ("f32", cut, 1.0))[0]
                factor = 0
            elif way == 2:
                twice = (*x.shape[:axis], x.shape[axis] + x.shape[axis], *x.shape[axis + 1 :])
                own = b.emit("Concat", [own, x], ("f32", twice, x.bound + 1), axis=axis)[0]
                factor = 2
        sizes.append([factor * n or 1 for n in x.shape[axis].values])
        graphs.append(b.graph(scope, name, [], [own]))
    values = tuple(sizes[0 if taken[call] else 1][call] for call in range(b.calls))
    shape = (*x.shape[:axis], b.size(values), *x.shape[axis + 1 :])
    if largest(shape) <= 2048:
        result = ("f32", shape, x.bound + 1)
        b.keep(b.emit("If", [condition], result, then_branch=graphs[0], else_branch=graphs[1])[0])


RULES = {several_states: 2, growing_state: 2, scans: 1, other_sizes: 2}
