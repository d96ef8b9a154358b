"""Scan: the same for every element along an axis, states handed on; of opset 8 in batches."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from .....compiler.ir import Dim, DType, Graph, TensorType, Value
from .....compiler.ir.dims import symbols_of
from ...site import NotSupported, Site
from ...table import lowers

_ONE_SIZE = "give states and results of the body one size in all steps"


@lowers("Scan")
def scan(s: Site) -> list[Value]:
    if s.opset < 9:
        return _scan_of_batches(s)
    count = s.integer("num_scan_inputs")
    values = [s.input(i) for i in range(len(s.inputs))]
    states = len(values) - count
    results = _results(s, len(values), count)
    scanned = []
    for value, axis in zip(values[states:], s.ints("scan_input_axes", [0] * count), strict=True):
        scanned.append(_axis_first(s, value, s.axis(axis, value.type.rank)))
    reverse_in = _flags(s, "scan_input_directions", count)
    reverse_out = _flags(s, "scan_output_directions", results)
    outputs = _steps(s, values[:states], scanned, reverse_in, reverse_out)
    axes = s.ints("scan_output_axes", [0] * results)
    stacked = [
        _axis_back(s, value, s.axis(axis, value.type.rank))
        for value, axis in zip(outputs[states:], axes, strict=True)
    ]
    return [*outputs[:states], *stacked]


def _results(s: Site, values: int, count: int) -> int:
    """How many results the body gives in every step; `count` of the `values` are scanned."""
    body = s.graph("body")
    if not 1 <= count <= values or len(body.input) != values:
        raise ValueError(f"{count} scan inputs of {values}, {len(body.input)} in the body")
    results = len(body.output) - (values - count)
    if results < 0 or len(s.node.output) > len(body.output):
        raise ValueError(f"the body has {len(body.output)} outputs")
    return results


def _steps(
    s: Site,
    states: Sequence[Value],
    scanned: Sequence[Value],
    reverse_in: Sequence[bool],
    reverse_out: Sequence[bool],
) -> list[Value]:
    """The last states and the stacked results; the step is axis 0 of what is scanned."""
    body = s.graph("body")
    names = [info.name for info in body.input]
    inner = [Value(v.type, name) for v, name in zip(states, names, strict=False)]
    inner += _slices(scanned, names[len(states) :])
    graph, _ = _body_region(s, body, inner)
    attributes = {
        "num_state": len(states),
        "reverse_in": tuple(reverse_in),
        "reverse_out": tuple(reverse_out),
        "trip": _trip(scanned),
    }
    return s.emitter.emit_node("scan", [*states, *scanned], attributes, regions=[graph])


def _slices(scanned: Sequence[Value], names: Sequence[str]) -> list[Value]:
    """What a step sees of values whose axis 0 is the step."""
    pairs = zip(scanned, names, strict=True)
    return [Value(TensorType(v.dtype, v.shape[1:]), name) for v, name in pairs]


def _trip(scanned: Sequence[Value]) -> Dim:
    lengths = [value.shape[0] for value in scanned]
    return next((length for length in lengths if isinstance(length, int)), lengths[0])


def _scan_of_batches(s: Site) -> list[Value]:
    """Scan of opset 8: axis 0 of everything is a batch, each element of which is scanned alone.

    An element may end earlier than others: behind that its results are zeros.
    """
    lengths = s.optional(0)
    values = [s.input(i) for i in range(1, len(s.inputs))]
    count = s.integer("num_scan_inputs")
    results = _results(s, len(values), count)
    reverse = _flags(s, "directions", count)
    states, steps = len(values) - count, values[-1].shape[1]
    names = [info.name for info in s.graph("body").input]
    if lengths is not None:
        values.append(_possible_lengths(s, lengths, steps))
        names.append("length")
    inner = _slices(values, names)
    s.emitter.enter()
    try:
        if lengths is None:
            outputs = _steps(s, inner[:states], inner[states:], reverse, [False] * results)
        else:
            outputs = _steps_until(s, inner[:states], inner[states:-1], reverse, inner[-1])
    finally:
        nodes, _ = s.emitter.leave()
    attributes = {
        "num_state": 0,
        "reverse_in": (False,) * len(values),
        "reverse_out": (False,) * len(outputs),
        "trip": _trip(values),
    }
    batch = Graph(inner, outputs, nodes, "batch")
    return s.emitter.emit_node("scan", values, attributes, regions=[batch])


def _possible_lengths(s: Site, lengths: Value, steps: Dim) -> Value:
    """The lengths of sequences, each at least 1 and at most `steps`, which a run checks."""
    found = s.cast(lengths, DType.I64)
    most = s.reshape(s.emitter.virtual([steps]), ())
    fits = s.op_("and", s.op_("ge", found, 1), s.op_("le", found, most))
    s.require_nonzero(fits, f"a sequence has 1 to {steps} steps")
    return found


def _steps_until(
    s: Site, states: Sequence[Value], scanned: Sequence[Value], reverse: Sequence[bool], end: Value
) -> list[Value]:
    """Like `_steps`, up to a number of steps that a run knows: 1 at least, all at most.

    What is scanned in reverse begins with its element before the end. Behind the end the body does
    not run, on padding that may be out of its domain: states stay, results are zeros.
    """
    body, count = s.graph("body"), len(states)
    steps = s.iota((_trip(scanned),), 0, DType.I64)
    back = s.op_("max", s.op_("sub", s.op_("sub", end, 1), steps), 0)
    turned = [
        s.emit("gather", [value, back], axis=0) if turn else value
        for value, turn in zip(scanned, reverse, strict=True)
    ]
    names = [info.name for info in body.input]
    inner = [Value(v.type, name) for v, name in zip(states, names, strict=False)]
    inner += _slices([*turned, steps], [*names[count:], "step"])
    s.emitter.enter()
    try:
        going = s.emitter.real(s.op_("lt", inner[-1], end))
        step, local = _body_region(s, body, inner[:-1])
        taken = Graph([], step.outputs, step.nodes, step.name)  # of the scan's own inputs
        other = _without_step(s, inner[:count], step.outputs, local)
        outputs = s.emitter.emit_node("if", [going], {"bound": ()}, regions=[taken, other])
    finally:
        nodes, _ = s.emitter.leave()
    attributes = {
        "num_state": count,
        "reverse_in": (False,) * (len(turned) + 1),
        "reverse_out": (False,) * (len(outputs) - count),
        "trip": _trip(scanned),
    }
    graph = Graph(inner, outputs, nodes, body.name or "body")
    return s.emitter.emit_node("scan", [*states, *turned, steps], attributes, regions=[graph])


def _without_step(
    s: Site, states: Sequence[Value], outputs: Sequence[Value], local: set[str]
) -> Graph:
    """The states as they are, and zeros for the results of a step.

    local: symbols that are bound in a step, of which no result may have its size.
    """
    results = outputs[len(states) :]
    for old, new in zip(states, outputs, strict=False):
        if old.type != new.type:
            raise NotSupported(f"its state {old.type} becomes {new.type}", _ONE_SIZE)
    if any(symbols_of(dim) & local for value in results for dim in value.shape):
        raise NotSupported("the elements of a step decide the size of its result", _ONE_SIZE)
    s.emitter.enter()
    try:
        zeros = (s.expand(s.scalar(0, value.dtype), value.shape) for value in results)
        values = [s.emitter.real(value) for value in (*states, *zeros)]
    finally:
        nodes, _ = s.emitter.leave()
    return Graph([], values, nodes, "padding")


def _flags(s: Site, name: str, count: int) -> tuple[bool, ...]:
    values = s.ints(name, [0] * count)
    if len(values) != count or any(value not in (0, 1) for value in values):
        raise ValueError(f"{name} must be {count} zeros and ones")
    return tuple(bool(value) for value in values)


def _axis_first(s: Site, value: Value, axis: int) -> Value:
    rank = value.type.rank
    return s.transpose(value, [axis, *(a for a in range(rank) if a != axis)])


def _axis_back(s: Site, value: Value, axis: int) -> Value:
    rest = list(range(1, value.type.rank))
    return s.transpose(value, [*rest[:axis], 0, *rest[axis:]])


def _body_region(
    s: Site, proto: onnx.GraphProto, inputs: Sequence[Value]
) -> tuple[Graph, set[str]]:
    """The region of a loop body, and the symbols that are bound in it."""
    s.emitter.enter()
    try:
        named = {info.name: value for info, value in zip(proto.input, inputs, strict=True)}
        outputs = [s.emitter.real(value) for value in s.importer.region(proto, s.scope, named)]
    finally:
        nodes, bound = s.emitter.leave()
    return Graph(list(inputs), outputs, nodes, proto.name or "body"), bound
