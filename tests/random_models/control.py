"""Rules of If, Loop and Scan, nested, whose regions capture values and reuse each other's names."""

from __future__ import annotations

from .builder import Builder, Scope, Shape, Size, Value

MAX_DEPTH = 4


def _condition(b: Builder) -> Value | None:
    """A boolean of one element: computed, or made of a size."""
    if b.flip(0.7):
        x = b.pick(
            lambda v: v.kind == "f32" and all(0 not in size.values for size in v.shape)
        )  # fmt: skip
        if x is None:
            return None
        whole = b.emit("ReduceMean", [x], ("f32", (), x.bound), keepdims=0)[0]
        return b.emit("Greater", [whole, b.constant(0.05)], ("bool", (), 1.0))[0]
    x = b.pick(lambda v: v.rank > 0)
    if x is None:
        return None
    sizes = b.emit("Shape", [x], ("i64", b.shape(x.rank), 8.0))[0]
    one = b.emit("Gather", [sizes, b.constant(0, "i64")], ("i64", (), 8.0), axis=0)[0]
    return b.emit("Greater", [one, b.constant(2, "i64")], ("bool", (), 1.0))[0]


def _steps(b: Builder) -> None:
    """A few nodes in the region at hand."""
    from .generate import step

    for _ in range(b.number(0, 4)):
        step(b)


def _like(b: Builder, scope: Scope, shape: Shape, start: Value) -> Value:
    """A value of the region with the shape of `start`, that depends on what else is made there."""
    same = [v for v in scope.pool if v.kind == "f32" and v.texts == start.texts and v is not start]
    if same and b.flip(0.7):
        return b.same("Tanh", b.choice(same), 1.0)
    others = [v for v in scope.pool if v.kind == "f32" and v.rank > 0]
    if others and all(0 not in s.values for v in others[-1:] for s in v.shape):
        mean = b.emit("ReduceMean", [others[-1]], ("f32", (), others[-1].bound), keepdims=0)[0]
        start = b.emit("Add", [start, mean], ("f32", shape, start.bound + mean.bound))[0]
    return b.same(b.choice(("Tanh", "Sin", "Softsign")), start, 1.0)


def branch(b: Builder) -> None:
    x, condition = b.pick_float(), _condition(b)
    if x is None or condition is None or not _allowed(b):
        return
    count = b.number(1, 2)
    prefix = b.scopes[-1].prefix + f"i{len(b.scopes[-1].nodes)}_"
    graphs = []
    for name in ("then_branch", "else_branch"):
        own = prefix if b.flip() else f"{prefix}{name[0]}"  # names may be those of the other branch
        with b.region(own) as scope:
            _steps(b)
            results = [_like(b, scope, x.shape, x) for _ in range(count)]
            if b.flip(0.2):
                results[0] = b.same("Identity", x)
        graphs.append(b.graph(scope, name, [], results))
    kinds = [("f32", x.shape, max(1.0, x.bound))] * count
    made = b.emit("If", [condition], *kinds, then_branch=graphs[0], else_branch=graphs[1])
    for value in made:
        b.keep(value)


def _allowed(b: Builder) -> bool:
    return b.features.control and len(b.scopes) < MAX_DEPTH


def _trip(b: Builder) -> tuple[Value, Size | None]:
    """How often a loop runs, and the size of what is stacked if it is known."""
    x = b.pick(lambda v: v.rank > 0 and 0 < max(v.shape[0].values) <= 8)
    if x is not None and b.flip():
        sizes = b.emit("Shape", [x], ("i64", b.shape(x.rank), 8.0))[0]
        return b.emit("Gather", [sizes, b.constant(0, "i64")], ("i64", (), 8.0), axis=0)[
            0
        ], x.shape[0]
    rounds = b.number(1, 4)
    return b.constant(rounds, "i64"), b.fixed(rounds)


def loop(b: Builder) -> None:
    x = b.pick_float(0, 3)
    if x is None or not _allowed(b):
        return
    trip, rounds = _trip(b)
    start = b.constant(True, "bool")
    stops = b.flip(0.3)
    stacks = b.flip() and not stops
    prefix = b.scopes[-1].prefix + f"l{len(b.scopes[-1].nodes)}_"
    number = Value(f"{prefix}i", "i64", (), 8.0)
    flag = Value(f"{prefix}c", "bool", (), 1.0)
    state = Value(f"{prefix}s", "f32", x.shape, max(1.0, x.bound))
    with b.region(prefix, [state]) as scope:
        real = b.emit("Cast", [number], ("f32", (), 8.0), to=1)[0]
        shifted = b.emit("Add", [state, real], ("f32", x.shape, x.bound + 8))[0]
        scope.pool.append(b.same("Tanh", shifted, 1.0))
        _steps(b)
        after = _like(b, scope, x.shape, scope.pool[0])
        if stops:
            again = b.emit("Less", [number, b.constant(1, "i64")], ("bool", (), 1.0))[0]
        else:
            again = b.same("Identity", flag)
        results = [again, after]
        if stacks:
            results.append(_like(b, scope, x.shape, after))
    body = b.graph(scope, "body", [number, flag, state], results)
    kinds = [("f32", x.shape, max(1.0, x.bound))]
    if stacks and rounds is not None:
        kinds.append(("f32", (rounds, *x.shape), 1.0))
    for value in b.emit("Loop", [trip, start, x], *kinds, body=body):
        b.keep(value)


def scan(b: Builder) -> None:
    x = b.pick_float(2, 4)
    if x is None or not _allowed(b):
        return
    axis = b.number(0, x.rank - 1)
    rest = tuple(size for i, size in enumerate(x.shape) if i != axis)
    if min(x.shape[axis].values) < 1 or any(0 in size.values for size in rest):
        return
    target = b.dims(rest)
    if target is None:
        return
    zero = b.emit("Expand", [b.weight(1), target], ("f32", rest, 1.0))[0] if rest else None
    if zero is None:
        return
    prefix = b.scopes[-1].prefix + f"s{len(b.scopes[-1].nodes)}_"
    state, item = (Value(f"{prefix}{n}", "f32", rest, x.bound + 1) for n in ("state", "item"))
    with b.region(prefix, [item, state]) as scope:
        total = b.emit("Add", [state, item], ("f32", rest, 2 * x.bound + 1))[0]
        after = b.same("Tanh", total, 1.0)
        scope.pool.append(after)
        _steps(b)
        results = [after, _like(b, scope, rest, item)]
    body = b.graph(scope, "body", [state, item], results)
    back = b.number(0, len(rest))
    stacked = (*rest[:back], x.shape[axis], *rest[back:])
    made = b.emit(
        "Scan",
        [zero, x],
        ("f32", rest, 1.0),
        ("f32", stacked, 1.0),
        body=body,
        num_scan_inputs=1,
        scan_input_axes=[axis],
        scan_input_directions=[b.number(0, 1)],
        scan_output_axes=[back],
        scan_output_directions=[b.number(0, 1)],
    )
    for value in made:
        b.keep(value)


RULES = {branch: 3, loop: 3, scan: 3}
