"""Rules of sequences and optional values: made, changed, grown in loops, joined, asked for one."""

from __future__ import annotations

from collections.abc import Sequence

from .builder import Builder, Shape, Size, Value, largest


def _sequence(b: Builder, op: str, inputs: list[Value | None], kind: str, **more: object) -> Value:
    """A node that makes a sequence."""
    made = b.emit(op, inputs, (kind, (), 1.0), **more)[0]
    return Value(made.name, kind, (), 1.0, is_sequence=True)


def _position(
    b: Builder, count: int, ends: bool = False, brought: bool = False
) -> tuple[Value | None, int]:
    """A place in a sequence, as an operand and as a number; none is the last one, or behind it.

    ends: whether it may be behind the last one; brought: whether a call may bring it.
    """
    last = count if ends else count - 1
    if b.flip(0.2):
        return None, last
    at = b.number(0, last)
    given = at - count if at < count and b.flip(0.3) else at
    if brought and b.features.amounts and b.flip(0.3):
        return b.amounts([given] * b.calls), at
    return b.constant(given, "i64"), at


def _finished(b: Builder, sequence: Value, items: Sequence[Value]) -> None:
    """One element, all of them joined, or how many there are."""
    way = b.number(0, 3)
    kind = items[0].kind
    if way == 0:
        count = b.emit("SequenceLength", [sequence], ("i64", (), 8.0))[0]
        b.keep(b.emit("Cast", [count], ("f32", (), 8.0), to=1)[0])
    same = all(item.texts == items[0].texts for item in items)
    if way == 1 or not same:
        place, at = _position(b, len(items), brought=same)
        if place is None:
            place, at = b.constant(-1, "i64"), len(items) - 1
        own = items[at]
        b.keep(b.emit("SequenceAt", [sequence, place], (kind, own.shape, own.bound))[0])
        return
    bound = max(item.bound for item in items)
    first = items[0].shape
    if way == 2 or not first:
        axis = b.number(0, len(first))
        shape: Shape = (*first[:axis], b.fixed(len(items)), *first[axis:])
        more = {"axis": b.axis(axis, len(shape)), "new_axis": 1}
    else:
        axis = b.number(0, len(first) - 1)
        whole = first[axis]
        for item in items[1:]:
            whole = whole + item.shape[axis]
        shape = (*first[:axis], whole, *first[axis + 1 :])
        more = {"axis": b.axis(axis, len(first))}
    if largest(shape) <= 4096:
        b.keep(b.emit("ConcatFromSequence", [sequence], (kind, shape, bound), **more)[0])


def constructed(b: Builder) -> None:
    """Of visible tensors; then one more, or one less."""
    x = b.pick_float(0, 4)
    if x is None or not b.features.sequences:
        return
    others = (
        b.pick(lambda v: v.kind == "f32" and v.texts == x.texts) for _ in range(b.number(0, 2))
    )
    items = [x, *(v for v in others if v is not None)]
    if b.flip(0.3):
        sequence = _sequence(b, "SequenceEmpty", [], "f32", dtype=1)
        for item in items:
            sequence = _sequence(b, "SequenceInsert", [sequence, item], "f32")
    else:
        sequence = _sequence(b, "SequenceConstruct", list(items), "f32")
    if b.flip():
        place, at = _position(b, len(items), ends=True)
        other = b.same("Tanh", x, 1.0)
        sequence = _sequence(b, "SequenceInsert", [sequence, other, place], "f32")
        items.insert(at, other)
    if len(items) > 1 and b.flip(0.4):
        place, at = _position(b, len(items))
        sequence = _sequence(b, "SequenceErase", [sequence, place], "f32")
        del items[at]
    _finished(b, sequence, items)


def parted(b: Builder) -> None:
    """Parts of a tensor: of one size, of several, or single elements of an axis."""
    x = b.pick_float(1, 4)
    if x is None or not b.features.sequences or not x.fixed_axes:
        return
    axis = b.choice(x.fixed_axes)
    size = x.shape[axis].fixed or 0
    if size < 2 or size > 8:
        return
    way = b.number(0, 2)
    inputs: list[Value | None] = [x]
    more: dict[str, object] = {"axis": b.axis(axis, x.rank)}
    if way == 0:
        more["keepdims"] = b.number(0, 1)
        sizes = [1] * size
    elif way == 1:
        part = b.number(1, size - 1)
        inputs.append(b.constant(part, "i64"))
        sizes = [min(part, size - start) for start in range(0, size, part)]
    else:
        first = b.number(1, size - 1)
        sizes = [first, size - first]
        inputs.append(b.constant(sizes, "i64"))
    dropped = more.get("keepdims") == 0
    own = [() if dropped else (b.fixed(n),) for n in sizes]
    inner: list[Shape] = [(*x.shape[:axis], *n, *x.shape[axis + 1 :]) for n in own]
    sequence = _sequence(b, "SplitToSequence", inputs, "f32", **more)
    _finished(b, sequence, [Value("", "f32", shape, x.bound) for shape in inner])


def grown(b: Builder) -> None:
    """A loop that puts a tensor into a sequence in every round, and what that is joined to."""
    x = b.pick_float(0, 3)
    if x is None or not b.features.sequences or not b.features.control or len(b.scopes) > 2:
        return
    rounds = [b.number(1, 4) for _ in range(b.calls)]
    if not b.features.amounts or b.flip():
        rounds = rounds[:1] * b.calls
        trip = b.constant(rounds[0], "i64")
    else:
        trip = b.amounts(rounds)
    start = _sequence(b, "SequenceEmpty", [], "f32", dtype=1)
    prefix = b.scopes[-1].prefix + f"q{len(b.scopes[-1].nodes)}_"
    number = Value(f"{prefix}i", "i64", (), 8.0)
    flag = Value(f"{prefix}c", "bool", (), 1.0)
    state = Value(f"{prefix}s", "f32", (), 1.0, is_sequence=True)
    with b.region(prefix) as scope:
        real = b.emit("Cast", [number], ("f32", (), 8.0), to=1)[0]
        item = b.emit("Add", [x, real], ("f32", x.shape, x.bound + 8))[0]
        if b.flip():
            item = b.same("Sin", item, 1.0)
        place = b.constant(0, "i64") if b.flip(0.2) else None
        after = _sequence(b, "SequenceInsert", [state, item, place], "f32")
        again = b.same("Identity", flag)
    body = b.graph(scope, "body", [number, flag, state], [again, after])
    found = _sequence(b, "Loop", [trip, b.constant(True, "bool"), start], "f32", body=body)
    axis = b.number(0, x.rank)
    count = b.size(rounds) if len(set(rounds)) > 1 else b.fixed(rounds[0])
    shape: tuple[Size, ...] = (*x.shape[:axis], count, *x.shape[axis:])
    if b.flip(0.3):
        count_of = b.emit("SequenceLength", [found], ("i64", (), 8.0))[0]
        b.keep(b.emit("Cast", [count_of], ("f32", (), 8.0), to=1)[0])
    result = ("f32", shape, x.bound + 8)
    b.keep(b.emit("ConcatFromSequence", [found], result, axis=axis, new_axis=1)[0])


def optional(b: Builder) -> None:
    """An optional value that is there, asked whether it is, and for what it holds."""
    x = b.pick_float(0, 4)
    if x is None or not b.features.sequences:
        return
    held = b.emit("Optional", [x], ("f32", x.shape, x.bound))[0]
    if b.flip(0.4):
        there = b.emit("OptionalHasElement", [held], ("bool", (), 1.0))[0]
        other = b.same("Neg", x)
        inner = b.emit("OptionalGetElement", [held], ("f32", x.shape, x.bound))[0]
        b.keep(b.emit("Where", [there, inner, other], ("f32", x.shape, x.bound))[0])
    else:
        b.keep(b.emit("OptionalGetElement", [held], ("f32", x.shape, x.bound))[0])


RULES = {constructed: 2, parted: 2, grown: 1, optional: 1}
