"""Loop: what its carried values are in every round, sequences among them."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from .....compiler.ir import Dim, DType, Graph, Sym, TensorType, Value, symbol
from .....compiler.ir.dims import symbols_of
from .....compiler.ir.ops.control import loop_varying
from ...containers import Content, Growing, Maybe, Text, ValueList, flattened, refilled, shape_of
from ...site import NotSupported, Site
from ...table import lowers
from ..shared.growing import as_growing, common_form, growing, varying_axis
from .control import flag
from .sequence import MAX_STEPS, unrolled_loop

_FOREVER = (1 << 63) - 1
_ROUNDS = 4  # trials until the types of carried values hold in every round


class _ChangesType(NotSupported):
    """A carried value has another rank or element type behind a round, so no region is the body."""


@lowers("Loop")
def loop(s: Site) -> Sequence[Content]:
    body = s.graph("body")
    carried = len(s.entries) - 2
    if len(body.input) != 2 + carried or len(body.output) < 1 + carried:
        raise ValueError(
            f"the body takes {len(body.input)} and gives {len(body.output)} values "
            f"for {carried} carried ones"
        )
    entries: list[Content] | None
    if any(isinstance(entry, (ValueList, Growing, Maybe)) for entry in s.entries):
        entries = _growing_entries(s, body)
        if entries is None:
            return unrolled_loop(s)
    else:
        entries = [
            entry if isinstance(entry, Text) else s.input(place)
            for place, entry in enumerate(s.entries[2:], 2)
        ]
    trip, condition = s.optional(0), s.optional(1)
    count = s.scalar(_FOREVER, DType.I64) if trip is None else s.reshape(trip, ())
    start = s.scalar(True, DType.BOOL) if condition is None else flag(s, condition)
    try:
        graph, bound = _settled_body(s, body, entries)
    except _ChangesType:
        if not _rounds_known(s):
            raise
        return unrolled_loop(s)
    operands = [count, start, *flattened(entries)]
    names = _bound_names(s, operands, graph, bound)
    results = iter(s.emitter.emit_node("loop", operands, {"bound": names}, regions=[graph]))
    return [*refilled(entries, results), *results]


def _settled_body(
    s: Site, proto: onnx.GraphProto, entries: Sequence[Content]
) -> tuple[Graph, set[str]]:
    """The body with input types that hold in every step: dims that change become symbols."""
    carried = list(flattened(entries))
    shapes: list[list[Dim]] = [list(value.shape) for value in carried]
    for _ in range(_ROUNDS):
        inner = [
            Value(TensorType(v.dtype, tuple(shape)))
            for v, shape in zip(carried, shapes, strict=True)
        ]
        graph, bound = _body(s, proto, entries, inner)
        changed = False
        for value, shape, result in zip(carried, shapes, graph.outputs[1:], strict=False):
            if result.dtype is not value.dtype or result.type.rank != len(shape):
                raise _ChangesType(
                    f"a carried value turns from {value.type} to {result.type}",
                    "make the number of rounds a constant",
                )
            for axis, dim in enumerate(result.shape):
                if dim != shape[axis] and not _is_own(shape[axis], value.shape[axis]):
                    shape[axis] = symbol(s.emitter.fresh("carried"))
                    changed = True
        if not changed:
            return graph, bound
    raise NotSupported("the shapes of its carried values do not settle")


def _body(
    s: Site, proto: onnx.GraphProto, entries: Sequence[Content], inner: Sequence[Value]
) -> tuple[Graph, set[str]]:
    """The region for carried values `inner`, which make up what the entries do."""
    index = Value(TensorType(DType.I64, ()), proto.input[0].name)
    going = Value(TensorType(DType.BOOL, ()), proto.input[1].name)
    s.emitter.enter()
    try:
        found = _called(s, proto, [index, going, *refilled(entries, iter(inner))])
        for place, entry in enumerate(entries, 1):
            if isinstance(entry, Growing):
                found[place] = as_growing(s, found[place], entry)
        ends = found[1 : 1 + len(entries)]
        if [shape_of(end) for end in ends] != [shape_of(entry) for entry in entries]:
            raise NotSupported("a carried sequence or optional changes its structure")
        if not all(isinstance(entry, Value) for entry in (found[0], *found[1 + len(entries) :])):
            raise NotSupported("it stacks sequences or optionals")
        if isinstance(found[0], Value):
            found[0] = flag(s, found[0])
        outputs = [s.emitter.real(value) for value in flattened(found)]
    finally:
        nodes, bound = s.emitter.leave()
    return Graph([index, going, *inner], outputs, nodes, proto.name or "body"), bound


def _called(s: Site, proto: onnx.GraphProto, inputs: Sequence[Content]) -> list[Content]:
    """What the body gives, in the region where it is emitted."""
    named = {info.name: entry for info, entry in zip(proto.input, inputs, strict=True)}
    return s.importer.region_entries(proto, s.scope, named)


def _growing_entries(s: Site, body: onnx.GraphProto) -> list[Content] | None:
    """What a loop carries, its sequences being such that grow; None where it is to be unrolled.

    It is unrolled where the number of rounds is known. The elements are those that a trial of the
    body puts into the sequences.
    """
    carried = [entry if entry is not None else Maybe(None) for entry in s.entries[2:]]
    known = _rounds_known(s)
    found, local = _trial(s, body, carried)
    ending = found and isinstance(found[0], Value) and s.known(found[0]) is not None
    grown = any(isinstance(entry, Growing) for entry in carried)
    if known and not grown and (found is None or ending):
        return None
    if found is None:
        raise NotSupported("only a run knows how many rounds a loop over sequences has", _REMEDY)
    entries: list[Content] = []
    for entry, result in zip(carried, found[1:], strict=False):
        before = entry.items if isinstance(entry, ValueList) else ()
        after = result.items if isinstance(result, ValueList) else ()
        items = (*before, *(item for item in after if item not in before))
        if not isinstance(entry, ValueList) or (
            before == after and not isinstance(result, Growing)
        ):
            entries.append(entry)
        elif isinstance(result, Growing):
            form = common_form(s, [entry, result], local)
            entries.append(as_growing(s, entry, form or result))
        else:
            axis, each = varying_axis([item.shape for item in items], local)
            dtype, shape = items[0].dtype, items[-1].shape
            entries.append(growing(s, before, dtype, shape, axis, each))
    return entries


_REMEDY = "make the number of rounds a constant, or let the body only append, take and join"


def _rounds_known(s: Site) -> bool:
    """Whether the model says how often a loop runs at most, and that it begins."""
    trip, going = s.optional(0), s.optional(1)
    count = None if trip is None else s.known(trip)
    if count is None or not isinstance(count.reshape(-1)[0], int) or count > MAX_STEPS:
        return False
    return going is None or s.known(going) is not None


def _trial(
    s: Site, body: onnx.GraphProto, carried: Sequence[Content]
) -> tuple[list[Content] | None, frozenset[str]]:
    """What one round gives, and the symbols that may differ from round to round.

    None for a body that cannot be expressed. Sizes of tensors that a round changes are symbols.
    """
    problems = dict(s.importer.problems)
    shapes = [list(entry.shape) if isinstance(entry, Value) else [] for entry in carried]
    varying: set[str] = set()
    for _ in range(_ROUNDS):
        inputs = [
            Value(TensorType(entry.dtype, tuple(shape))) if isinstance(entry, Value) else entry
            for entry, shape in zip(carried, shapes, strict=True)
        ]
        s.emitter.enter()
        try:
            index = Value(TensorType(DType.I64, ()))
            found = _called(s, body, [index, s.scalar(True, DType.BOOL), *inputs])
        except NotSupported:
            s.importer.problems = problems
            return None, frozenset()
        finally:
            _, bound = s.emitter.leave()
        changed = False
        for shape, result in zip(shapes, found[1:], strict=False):
            dims = result.shape if isinstance(result, Value) else ()
            for axis, (dim, now) in enumerate(zip(shape, dims, strict=False)):
                if dim != now and not symbols_of(dim) & varying:
                    name = s.emitter.fresh("carried")
                    varying.add(name)
                    shape[axis] = symbol(name)
                    changed = True
        if not changed:
            return found, frozenset(varying | bound)
    return None, frozenset()


def _is_own(dim: Dim, first: Dim) -> bool:
    """Whether the dim is a symbol that was made because it changes from step to step."""
    return isinstance(dim, Sym) and dim != first


def _bound_names(
    s: Site, operands: Sequence[Value], graph: Graph, bound: set[str]
) -> tuple[str, ...]:
    count, local = 0, set(bound)
    for inner, axes in zip(graph.inputs[2:], loop_varying(operands, graph), strict=True):
        count += len(axes)
        for axis in axes:
            local |= symbols_of(inner.shape[axis])
    for value in graph.outputs[len(operands) - 1 :]:
        count += 1 + sum(bool(symbols_of(dim) & local) for dim in value.shape)
    return tuple(s.emitter.fresh("loop") for _ in range(count))
