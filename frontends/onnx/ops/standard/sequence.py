"""Sequences and optionals whose structure is known at import, and loops over them, unrolled."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import helper

from .....compiler.ir import Dim, DType, Sym, Value
from .....compiler.ir.assumptions import EQUAL
from .....compiler.ir.dims import ceildiv
from ...containers import Content, Growing, Maybe, ValueList
from ...site import NotSupported, Site
from ...table import lowers
from ..shared import growing
from .control import either

MAX_STEPS = 1024  # of a loop that is unrolled


def _list(s: Site, index: int) -> ValueList:
    entry = s.entries[index] if index < len(s.entries) else None
    if isinstance(entry, Maybe):
        entry = entry.content
    if isinstance(entry, Growing):
        raise NotSupported("a sequence whose length a run decides", "stack it before")
    if not isinstance(entry, ValueList):
        raise ValueError(f"input {index} is no sequence")
    return entry


def _growing(s: Site) -> Growing | None:
    """Input 0 where it is a sequence whose length a run decides."""
    entry = s.entries[0] if s.entries else None
    return entry if isinstance(entry, Growing) else None


def _position(s: Site, index: int, size: int, default: int, *, behind: bool = False) -> int | None:
    """A position in a sequence, made non-negative; None when only a run knows it.

    behind: that after the last element is one, too.
    """
    value = s.optional(index)
    if value is None:
        return default
    known = s.known(value)
    if known is None or isinstance(known.reshape(-1)[0], Sym):
        return None
    place = int(known.reshape(-1)[0])
    if not -size <= place < max(size, 1) + (behind and size > 0):
        raise ValueError(f"position {place} is out of range for {size} elements")
    return place + size if place < 0 else place


@lowers("SequenceEmpty")
def sequence_empty(s: Site) -> Sequence[Content]:
    return [ValueList((), s.dtype("dtype", 1))]


@lowers("SequenceConstruct")
def sequence_construct(s: Site) -> Sequence[Content]:
    items = tuple(s.input(i) for i in range(len(s.inputs)))
    return [ValueList(items, items[0].dtype)]


@lowers("SequenceInsert")
def sequence_insert(s: Site) -> Sequence[Content]:
    sequence = _growing(s)
    if sequence is not None:
        return [growing.inserted(s, sequence, s.input(1), s.optional(2))]
    given, item = _list(s, 0), s.input(1)
    if given.items and given.items[0].dtype is not item.dtype:
        raise ValueError(f"{item.type} goes into a sequence of {given.items[0].dtype}")
    place = _position(s, 2, len(given.items), len(given.items), behind=True)
    items = _with(s, given.items, item) if place is None else _put(given.items, place, item)
    return [ValueList(items, item.dtype)]


def _put(items: tuple[Value, ...], place: int, item: Value) -> tuple[Value, ...]:
    return (*items[:place], item, *items[place:])


def _with(s: Site, items: tuple[Value, ...], item: Value) -> tuple[Value, ...]:
    """The items and one more, before the place that input 2 gives to a run."""
    place = _place(s, s.input(2), len(items), behind=True)
    found = _chosen(s, place, (item, *items), (*items, item))
    for number in range(1, len(found)):
        here = s.op_("eq", place, number)
        found[number] = _either(s, here, item, found[number])
    return tuple(found)


def _chosen(s: Site, place: Value, late: Sequence[Value], early: Sequence[Value]) -> list[Value]:
    """Of each pair the one of `early` before a place, of `late` from there on."""
    pairs = enumerate(zip(late, early, strict=True))
    return [_either(s, s.op_("le", place, number), *pair) for number, pair in pairs]


def _either(s: Site, condition: Value, then: Value, other: Value) -> Value:
    if then is other:
        return then
    if then.type.rank != other.type.rank:
        raise NotSupported("it picks one of several ranks at run time", "make its position known")
    return either(s, condition, then, other)


def _place(s: Site, index: Value, size: int, *, behind: bool = False) -> Value:
    """A position that a run gives, made non-negative. behind: that after the last item is one."""
    index = s.reshape(s.cast(index, DType.I64), ())
    place = s.op_("where", s.op_("lt", index, 0), s.op_("add", index, size), index)
    inside = s.op_("and", s.op_("ge", place, 0), s.op_("le", place, size if behind else size - 1))
    s.require_nonzero(inside, f"its position is out of range for {size} elements")
    return place


@lowers("SequenceErase")
def sequence_erase(s: Site) -> Sequence[Content]:
    sequence = _growing(s)
    if sequence is not None:
        return [growing.erased(s, sequence, s.optional(1))]
    given = _list(s, 0)
    place = _position(s, 1, len(given.items), len(given.items) - 1)
    if not given.items:
        raise ValueError("the sequence is empty")
    if place is None:
        index = _place(s, s.input(1), len(given.items))
        items = tuple(_chosen(s, index, given.items[1:], given.items[:-1]))
    else:
        items = given.items[:place] + given.items[place + 1 :]
    return [ValueList(items, given.dtype)]


@lowers("SequenceAt")
def sequence_at(s: Site) -> Value:
    sequence = _growing(s)
    if sequence is not None:
        return growing.element(s, sequence, s.input(1))
    items = _list(s, 0).items
    place = _position(s, 1, len(items), 0)
    if not items:
        raise ValueError("the sequence is empty")
    if place is not None:
        return items[place]
    index = s.reshape(s.cast(s.input(1), DType.I64), ())
    if any(item.shape != items[0].shape for item in items):
        return _one_of(s, items, index)
    stacked = s.emit("concat", [s.reshape(v, (1, *v.shape)) for v in items], axis=0)
    return s.emit("gather", [stacked, index], axis=0)


def _one_of(s: Site, items: Sequence[Value], index: Value) -> Value:
    """The item at a position that a run decides, where their sizes differ."""
    place = _place(s, index, len(items))
    found = items[-1]
    for number, item in reversed(list(enumerate(items[:-1]))):
        found = _either(s, s.op_("eq", place, number), item, found)
    return found


@lowers("SequenceLength")
def sequence_length(s: Site) -> Value:
    sequence = _growing(s)
    if sequence is not None:
        return s.reshape(s.emitter.virtual([growing.length(sequence)]), ())
    return s.scalar(len(_list(s, 0).items), DType.I64)


@lowers("ConcatFromSequence")
def concat_from_sequence(s: Site) -> Value:
    sequence, new = _growing(s), bool(s.integer("new_axis", 0))
    if sequence is not None:
        rank = 0 if sequence.axis is None else sequence.data.type.rank
        axis = s.axis(s.integer("axis"), rank + new)
        return growing.joined(s, sequence, axis, new)
    items = _list(s, 0).items
    if not items:
        raise ValueError("the sequence is empty")
    axis = s.axis(s.integer("axis"), items[0].type.rank + new)
    if new:
        parts = [s.reshape(v, (*v.shape[:axis], 1, *v.shape[axis:])) for v in items]
    else:
        parts = list(items)
    return s.emit("concat", parts, axis=axis)


@lowers("SplitToSequence")
def split_to_sequence(s: Site) -> Sequence[Content]:
    x, split = s.input(0), s.optional(1)
    axis = s.axis(s.integer("axis", 0), x.type.rank)
    size = x.shape[axis]
    if split is None and not isinstance(size, int):
        return [_single_parts(s, x, axis)]
    if split is not None and not split.type.is_static:
        return [growing.split(s, x, axis, s.cast(split, DType.I64))]
    if split is not None and not split.type.rank and not _is_number(s, split, size):
        return [growing.split_evenly(s, x, axis, s.dims(s.reshape(split, (1,)))[0])]
    if split is None:
        sizes: list[Dim] = [1] * _fixed(size)
    elif split.type.rank == 0:
        each = s.numbers(split, "split")[0]
        if each < 1:
            raise ValueError(f"parts of {each} elements")
        whole = _fixed(size)
        count = int(ceildiv(whole, each))  # type: ignore[arg-type]
        sizes = [min(each, whole - each * i) for i in range(count)]
    else:
        sizes = list(s.dims(split))
    text = ", ".join(map(str, sizes))
    s.require(sum(sizes), EQUAL, size, f"parts of {text} elements of {size}")
    parts, start = [], 0
    for length in sizes:
        parts.append(s.slice(x, axis, start, start + length))
        start = start + length  # type: ignore[assignment]
    if split is None and not s.integer("keepdims", 1):
        shape = (*x.shape[:axis], *x.shape[axis + 1 :])
        parts = [s.reshape(part, shape) for part in parts]
    return [ValueList(tuple(parts), x.dtype)]


def _is_number(s: Site, split: Value, size: Dim) -> bool:
    """Whether the number of equal parts is known."""
    known = s.known(split)
    return isinstance(size, int) and known is not None and not isinstance(known[()], Sym)


def _single_parts(s: Site, x: Value, axis: int) -> Growing:
    """As many parts as there are elements along the axis, which stays in them or does not."""
    count = x.shape[axis]
    if s.integer("keepdims", 1):
        front = s.transpose(x, [axis, *(a for a in range(x.type.rank) if a != axis)])
        return Growing(front, s.expand(s.scalar(1, DType.I64), (count,)), axis, 1)
    if x.type.rank == 1:
        return Growing(x, s.expand(s.scalar(1, DType.I64), (count,)), None, 1)
    front = s.transpose(x, [axis, *(a for a in range(x.type.rank) if a != axis)])
    data = s.reshape(front, (front.shape[0] * front.shape[1], *front.shape[2:]))
    each = front.shape[1]
    sizes = s.expand(s.reshape(s.emitter.virtual([each]), (1,)), (count,))
    return Growing(data, sizes, 0, each)


def _fixed(size: Dim) -> int:
    if not isinstance(size, int):
        raise NotSupported(f"the number of parts, {size}, is not known", "pin the input shapes")
    if size > MAX_STEPS:
        raise NotSupported(f"{size} parts are more than {MAX_STEPS}")
    return size


@lowers("SequenceMap")
def sequence_map(s: Site) -> Sequence[Content]:
    """The body once for each element."""
    body = s.graph("body")
    if len(body.input) != len(s.entries):
        raise ValueError(f"the body takes {len(body.input)} inputs, not {len(s.entries)}")
    if any(isinstance(entry, Growing) for entry in s.entries):
        return s.importer.region_entries(_mapping_loop(s, body), s.scope, {})
    first = _list(s, 0)
    columns: list[list[Value]] = [[] for _ in body.output]
    for index in range(len(first.items)):
        inputs: dict[str, Content] = {}
        for info, entry in zip(body.input, s.entries, strict=True):
            if isinstance(entry, ValueList):
                if len(entry.items) != len(first.items):
                    raise ValueError("the sequences differ in length")
                inputs[info.name] = entry.items[index]
            elif entry is not None:
                inputs[info.name] = entry
        for column, value in zip(columns, s.importer.region(body, s.scope, inputs), strict=True):
            column.append(value)
    return [ValueList(tuple(c), c[0].dtype if c else None) for c in columns]


def _mapping_loop(s: Site, body: onnx.GraphProto) -> onnx.GraphProto:
    """SequenceMap as the loop that the standard defines it by: for sequences of open length.

    What the body is given is picked from the sequences; what it makes is appended to others.
    """
    of_map = f"{s.emitter.name}$"  # in no name of an exporter
    count, index, going, more = (of_map + part for part in ("count", "index", "going", "more"))
    pairs = zip(body.input, s.node.input, s.entries, strict=True)
    steps = [
        helper.make_node("SequenceAt", [name, index], [info.name])
        if isinstance(entry, (ValueList, Growing))
        else helper.make_node("Identity", [name], [info.name])
        for info, name, entry in pairs
    ]
    steps += [*body.node, helper.make_node("Identity", [going], [more])]
    inputs = [onnx.ValueInfoProto(name=index), onnx.ValueInfoProto(name=going)]
    outputs, before, results = [onnx.ValueInfoProto(name=more)], [], []
    for place, made in enumerate(body.output):
        empty, held, grown, result = (f"{of_map}{part}{place}" for part in ("e", "h", "g", "r"))
        kind = made.type.tensor_type.elem_type or onnx.TensorProto.FLOAT
        before.append(helper.make_node("SequenceEmpty", [], [empty], dtype=kind))
        steps.append(helper.make_node("SequenceInsert", [held, made.name], [grown]))
        inputs.append(onnx.ValueInfoProto(name=held))
        outputs.append(onnx.ValueInfoProto(name=grown))
        results.append(onnx.ValueInfoProto(name=result))
    graph = helper.make_graph(steps, "mapped", inputs, outputs, list(body.initializer))
    graph.sparse_initializer.extend(body.sparse_initializer)
    nodes = [
        helper.make_node("SequenceLength", [s.node.input[0]], [count]),
        *before,
        helper.make_node(
            "Loop",
            [count, "", *(node.output[0] for node in before)],
            [info.name for info in results],
            body=graph,
        ),
    ]
    return helper.make_graph(nodes, "map", [], results)


@lowers("Optional")
def optional(s: Site) -> Sequence[Content]:
    entry = s.entries[0] if s.entries else None
    return [entry if isinstance(entry, Maybe) else Maybe(entry)]


@lowers("OptionalHasElement")
def optional_has_element(s: Site) -> Value:
    entry = s.entries[0] if s.entries else None
    held = entry.content is not None if isinstance(entry, Maybe) else entry is not None
    return s.scalar(held, DType.BOOL)


@lowers("OptionalGetElement")
def optional_get_element(s: Site) -> Sequence[Content]:
    entry = s.entries[0] if s.entries else None
    content = entry.content if isinstance(entry, Maybe) else entry
    if content is None:
        raise ValueError("the optional is empty")
    return [content]


def unrolled_loop(s: Site) -> list[Content]:
    """A loop that carries sequences: as many copies of the body as it has steps."""
    body = s.graph("body")
    carried: list[Content | None] = list(s.entries[2:])
    count = len(carried)
    if len(body.input) != 2 + count or len(body.output) < 1 + count:
        raise ValueError(f"the body takes {len(body.input)} and gives {len(body.output)} values")
    trip = s.optional(0)
    steps = MAX_STEPS + 1 if trip is None else s.numbers(trip, "the number of steps")[0]
    going = s.optional(1)
    alive = going is None or bool(s.numbers(going, "the condition")[0])
    stacks: list[list[Value]] = [[] for _ in body.output[1 + count :]]
    step = 0
    while alive and step < steps:
        if step == MAX_STEPS:
            raise NotSupported(f"a loop over sequences runs for more than {MAX_STEPS} steps")
        names = [info.name for info in body.input]
        inputs: dict[str, Content] = {names[0]: s.scalar(step, DType.I64)}
        inputs[names[1]] = s.scalar(True, DType.BOOL)
        inputs |= {n: v for n, v in zip(names[2:], carried, strict=True) if v is not None}
        found = s.importer.region_entries(body, s.scope, inputs)
        flag = found[0]
        if not isinstance(flag, Value):
            raise ValueError("the condition is no tensor")
        alive = bool(s.numbers(flag, "the condition of a loop over sequences")[0])
        carried = list(found[1 : 1 + count])
        for stack, value in zip(stacks, found[1 + count :], strict=True):
            if not isinstance(value, Value):
                raise NotSupported("a loop stacks sequences")
            stack.append(s.reshape(value, (1, *value.shape)))
        step += 1
    if any(not stack for stack in stacks):
        raise NotSupported("a loop over sequences has no steps to stack results of")
    results = [entry if entry is not None else Maybe(None) for entry in carried]
    return [*results, *(s.emit("concat", stack, axis=0) for stack in stacks)]
