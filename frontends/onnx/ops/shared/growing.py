"""Sequences whose length a run decides: tensors to which elements are appended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .....compiler.ir import Dim, DType, Value, constant
from .....compiler.ir.assumptions import AT_MOST, EQUAL
from .....compiler.ir.dims import ceildiv, symbols_of
from ...containers import Content, Growing, ValueList
from ...site import NotSupported, Site

REMEDY = "give its elements one shape, or shapes that differ in one size only"


def varying_axis(
    shapes: Sequence[tuple[Dim, ...]], local: frozenset[str]
) -> tuple[int | None, Dim | None]:
    """Along which axis elements of the shapes differ, and their size there if they do not.

    local: symbols that may be different for every element. Raises NotSupported for elements that
    differ in more.
    """
    first = shapes[0]
    if len({len(shape) for shape in shapes}) > 1:
        raise NotSupported("its elements differ in rank", REMEDY)
    if not first:
        return None, 1
    axes = [
        axis
        for axis, dim in enumerate(first)
        if symbols_of(dim) & local or any(shape[axis] != dim for shape in shapes)
    ]
    if len(axes) > 1:
        raise NotSupported("its elements differ in more than one size", REMEDY)
    return (axes[0], None) if axes else (0, first[0])


def growing(
    s: Site,
    items: Sequence[Value],
    dtype: DType,
    shape: tuple[Dim, ...],
    axis: int | None,
    each: Dim | None,
) -> Growing:
    """The sequence of some items, or of none, whose elements are like `shape` but for an axis."""
    rest = tuple(dim for at, dim in enumerate(shape) if at != axis)
    empty = s.expand(s.scalar(0, dtype), (0, *rest))
    made = Growing(empty, constant(np.zeros(0, np.int64)), axis, each)
    for item in items:
        made = inserted(s, made, item)
    return made


def _front(s: Site, item: Value, axis: int | None) -> Value:
    """An element with the axis first along which elements are joined."""
    if axis is None:
        return s.reshape(item, (1,))
    return s.transpose(item, [axis, *(a for a in range(item.type.rank) if a != axis)])


def _back(s: Site, part: Value, axis: int | None) -> Value:
    if axis is None:
        return s.reshape(part, ())
    rest = list(range(1, part.type.rank))
    return s.transpose(part, [*rest[:axis], 0, *rest[axis:]])


def length(sequence: Growing) -> Dim:
    """How many elements there are."""
    count: Dim = sequence.sizes.shape[0]
    return count


def _place(s: Site, sequence: Growing, index: Value | None, default: Dim) -> Dim:
    """A position, which may count from the end, as a dim."""
    if index is None:
        return default
    place = s.reshape(s.cast(index, DType.I64), (1,))
    count = s.emitter.virtual([length(sequence)])
    wrapped = s.op_("where", s.op_("lt", place, 0), s.op_("add", place, count), place)
    return s.dims(wrapped)[0]


def _inside(s: Site, sequence: Growing, index: Value | None, default: Dim) -> Dim:
    """The position of an element that is there, which a run checks."""
    place = _place(s, sequence, index, default)
    what = f"node '{s.emitter.name}' ({s.op}) needs an element at its position"
    attrs = {"relation": AT_MOST, "left": place + 1, "right": length(sequence), "what": what}
    s.emitter.emit_node("check_dims", [], attrs)
    return place


def _start(s: Site, sequence: Growing, place: Dim) -> Dim:
    """Where the element at a position begins in the data."""
    if place == length(sequence):
        total: Dim = sequence.data.shape[0]
        return total
    if sequence.each is not None:
        return place * sequence.each
    before = s.slice(sequence.sizes, 0, 0, place)
    return s.dims(s.reduce("sum", before, [0], keepdims=True))[0]


def _size(s: Site, sequence: Growing, place: Dim) -> Dim:
    if sequence.each is not None:
        return sequence.each
    return s.dims(s.slice(sequence.sizes, 0, place, place + 1))[0]


def inserted(s: Site, sequence: Growing, item: Value, index: Value | None = None) -> Growing:
    """The sequence with an element more, at the end unless a position is given."""
    data, sizes = sequence.data, sequence.sizes
    rank = 0 if sequence.axis is None else data.type.rank
    if item.dtype is not data.dtype or item.type.rank != rank:
        raise NotSupported(f"{item.type} goes into a sequence of other elements", REMEDY)
    piece = _front(s, item, sequence.axis)
    if sequence.each is not None:
        _need_equal(s, piece.shape[0], sequence.each, "elements of one size")
    size = s.emitter.virtual([piece.shape[0]])
    if index is None:
        parts, counts = [data, piece], [sizes, size]
    else:
        place = _place(s, sequence, index, 0)
        start = _start(s, sequence, place)
        ends = data.shape[0], length(sequence)
        parts = [s.slice(data, 0, 0, start), piece, s.slice(data, 0, start, ends[0])]
        counts = [s.slice(sizes, 0, 0, place), size, s.slice(sizes, 0, place, ends[1])]
    joined = s.emit("concat", parts, axis=0)
    return Growing(joined, s.emit("concat", counts, axis=0), sequence.axis, sequence.each)


def erased(s: Site, sequence: Growing, index: Value | None) -> Growing:
    """The sequence without one element, the last unless a position is given."""
    data, sizes, count = sequence.data, sequence.sizes, length(sequence)
    place = _inside(s, sequence, index, count - 1)
    start, size = _start(s, sequence, place), _size(s, sequence, place)
    rest = [s.slice(data, 0, 0, start), s.slice(data, 0, start + size, data.shape[0])]
    left = [s.slice(sizes, 0, 0, place), s.slice(sizes, 0, place + 1, count)]
    joined = s.emit("concat", rest, axis=0)
    return Growing(joined, s.emit("concat", left, axis=0), sequence.axis, sequence.each)


def element(s: Site, sequence: Growing, index: Value) -> Value:
    """The element at a position."""
    place = _inside(s, sequence, index, 0)
    start = _start(s, sequence, place)
    part = s.slice(sequence.data, 0, start, start + _size(s, sequence, place))
    return _back(s, part, sequence.axis)


def joined(s: Site, sequence: Growing, axis: int, new_axis: bool) -> Value:
    """The elements concatenated along an axis, or stacked along a new one."""
    data, count, own = sequence.data, length(sequence), sequence.axis
    if own is None or (axis == own and not new_axis):
        return data if own is None else _back(s, data, own)
    size = sequence.each if sequence.each is not None else _only_size(s, sequence)
    stacked = s.reshape(data, (count, size, *data.shape[1:]))
    rest = list(range(2, stacked.type.rank))
    order = [*rest[:own], 1, *rest[own:]]
    order.insert(axis, 0)
    found = s.transpose(stacked, order)
    if new_axis:
        return found
    shape = found.shape
    return s.reshape(found, (*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :]))


def _only_size(s: Site, sequence: Growing) -> Dim:
    """The size that all elements must have along their axis."""
    ends = [s.reduce(kind, sequence.sizes, [0], keepdims=True) for kind in ("min", "max")]
    low, high = (s.dims(end)[0] for end in ends)
    _need_equal(s, low, high, "elements of one size")
    return high


def _need_equal(s: Site, left: Dim, right: Dim, what: str) -> None:
    """End a run in which two sizes differ. Raises NotSupported where they certainly do."""
    if left == right:
        return
    if isinstance(left - right, int):
        raise NotSupported(f"{what} are needed, these have {left} and {right}", REMEDY)
    text = f"node '{s.emitter.name}' ({s.op}) needs {what}"
    attrs = {"relation": EQUAL, "left": left, "right": right, "what": text}
    s.emitter.emit_node("check_dims", [], attrs)


def split(s: Site, x: Value, axis: int, sizes: Value) -> Growing:
    """Parts of the given sizes along an axis; a run checks that they make up the whole."""
    each = _only_element(s, sizes)
    if each is None:
        total = s.dims(s.reduce("sum", sizes, [0], keepdims=True))[0]
    else:
        total = sizes.shape[0] * each
    _need_equal(s, total, x.shape[axis], "parts that make up the whole")
    return Growing(_front(s, x, axis), sizes, axis, each)


def _only_element(s: Site, value: Value) -> Dim | None:
    """What all elements of a vector are, whatever its length, where its making tells."""
    node = value.producer
    while node is not None and node.op in ("broadcast_to", "expand", "reshape"):
        value, node = node.inputs[0], node.inputs[0].producer
    if node is not None and node.op == "cast":
        return _only_element_cast(s, node.inputs[0], value.dtype)
    known = s.known(value) if value.type.is_static and value.type.elements == 1 else None
    return None if known is None else known.item()


def _only_element_cast(s: Site, value: Value, dtype: DType) -> Dim | None:
    """The same of a vector before a cast to `dtype`, where that leaves the element as it is."""
    if not value.dtype.is_integer or not dtype.is_integer:
        return None
    element, held = _only_element(s, value), np.iinfo(dtype.numpy)
    if isinstance(element, int):
        return element if held.min <= element <= held.max else None
    return element if dtype in (DType.I64, DType.I32) else None


def split_evenly(s: Site, x: Value, axis: int, each: Dim) -> Growing:
    """Parts of one size along an axis, of which the last may be smaller."""
    size = x.shape[axis]
    starts = s.op_("mul", s.iota((ceildiv(size, each),), 0, DType.I64), _number(s, each))
    sizes = s.op_("min", s.op_("sub", _number(s, size), starts), _number(s, each))
    return Growing(_front(s, x, axis), sizes, axis, None)


def _number(s: Site, dim: Dim) -> Value:
    return s.reshape(s.emitter.virtual([dim]), ())


def as_growing(s: Site, entry: Content, like: Growing) -> Content:
    """A sequence of known items, or one that grows, in the form of another; others as they are."""
    if isinstance(entry, ValueList):
        shape = _back(s, like.data, like.axis).shape
        return growing(s, entry.items, like.data.dtype, shape, like.axis, like.each)
    if isinstance(entry, Growing) and entry.axis == like.axis and like.each is None:
        return replace(entry, each=None)
    return entry


def common_form(s: Site, entries: Sequence[Content], local: frozenset[str]) -> Growing | None:
    """The form that sequences can all be given; None where they need none, or are no sequences.

    local: symbols that may be different for every element.
    """
    sequences = [entry for entry in entries if isinstance(entry, (ValueList, Growing))]
    lengths = {len(entry.items) for entry in sequences if isinstance(entry, ValueList)}
    grown = [entry for entry in sequences if isinstance(entry, Growing)]
    if len(sequences) < len(entries) or not (grown or len(lengths) > 1):
        return None
    items = [item for entry in sequences if isinstance(entry, ValueList) for item in entry.items]
    shapes = [item.shape for item in items]
    if not grown:
        axis, each = varying_axis(shapes, local)
        return growing(s, (), items[0].dtype, shapes[0], axis, each)
    first = grown[0]
    sizes = {entry.each for entry in grown} | {shape[first.axis or 0] for shape in shapes if shape}
    return first if len(sizes) == 1 else replace(first, each=None)
