"""Control flow in the plan: branches and loops over the steps of regions, copies of a condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ...ir.dims import Dim, symbol, symbols_of
from ...ir.graph import Graph, Node, Value
from ...ir.ops.control import loop_varying
from ...ir.ops.registry import make_node
from ...ir.types import DENSE
from ..forms.region import lower_region
from ..schedule.chooser import Request
from .in_place import origin
from .plan import Allocate, Assign, Branch, Place, Repeat, Step, View, bytes_of
from .planner import Planner, Rule


def _made_inside(region: Graph, value: Value) -> bool:
    """Whether kernels of the region itself make the value."""
    node = value.producer
    return node is not None and node.op in ("fused", "concat") and node in region.nodes


def _branch(planner: Planner, node: Node, steps: list[Step]) -> None:
    condition = planner.use(node.inputs[0])
    bound = set(node.attrs.get("bound", ()))
    grown = [any(bound & symbols_of(dim) for dim in value.shape) for value in node.outputs]
    targets: list[Place] = []
    for value, late in zip(node.outputs, grown, strict=True):
        if late:
            planner.heap += 1
            planner.places[value] = Place("heap", planner.heap)
            planner.final.pop(value, None)
            targets.append(planner.places[value])
        else:
            targets.append(planner.reserve(value, steps))
    bodies: list[tuple[Step, ...]] = []
    known = set(planner.known)
    for region in node.regions:
        body: list[Step] = []
        planner.known = set(known)
        planner.clock += 1
        for target in targets:
            planner.touch(target)
        _aim(planner, region, targets, grown, node.outputs)
        planner.block(region, body)
        for result, target, late in zip(region.outputs, targets, grown, strict=True):
            if late:
                size = result.type.elements * result.dtype.bytes
                body.append(Allocate(target.number, size))
            if planner.place(result) != target:
                planner.copy(result, target, body)
        for target in targets:
            planner.touch(target)
        bodies.append(tuple(body))
    planner.known = known | bound
    pairs = _bound_dims(node)
    steps.append(Branch(condition, bodies[0], bodies[1], pairs))


def _bound_dims(node: Node) -> tuple[tuple[str, Dim, Dim], ...]:
    """(symbol, dim in the first region, dim in the second) of every symbol that `if` binds."""
    found: list[tuple[str, Dim, Dim]] = []
    names = set(node.attrs.get("bound", ()))
    for position, value in enumerate(node.outputs):
        first, second = (region.outputs[position] for region in node.regions)
        for dim, a, b in zip(value.shape, first.shape, second.shape, strict=True):
            used = names & symbols_of(dim)
            if used and dim == symbol(next(iter(used))):
                found.append((next(iter(used)), a, b))
    return tuple(found)


def _aim(
    planner: Planner,
    region: Graph,
    targets: list[Place],
    late: list[bool],
    outputs: list[Value],
) -> None:
    """Let kernels of a region write its results where they are wanted."""
    for result, target, dynamic, wanted in zip(region.outputs, targets, late, outputs, strict=True):
        source = origin(result)
        if dynamic or source in planner.places or not _made_inside(region, source):
            continue
        if result.type == wanted.type and source.type.layout == DENSE:
            planner.places[source] = target


def _renew(
    planner: Planner, region: Graph, old: list[Value], new: list[Value], held: list[Place]
) -> None:
    """Let kernels of a region make new states over the old ones, where that is safe."""
    for before, after, place in zip(old, new, held, strict=True):
        source = origin(after)
        if source in planner.places or not _made_inside(region, source):
            continue
        if before.type == after.type and source.type.layout == DENSE:
            planner.states.setdefault(source, (before, place))


def _scan(planner: Planner, node: Node, steps: list[Step]) -> None:
    attrs, region = node.attrs, node.regions[0]
    states = attrs["num_state"]
    begin = planner.clock
    held: list[Place] = []
    for value, initial in zip(node.outputs[:states], node.inputs[:states], strict=True):
        place = planner.reserve(value, steps)
        planner.copy(initial, place, steps)
        held.append(place)
    trip, counter = attrs["trip"], planner.fresh("step")
    for parameter, place in zip(region.inputs[:states], held, strict=True):
        planner.places[parameter] = place
    scanned = zip(node.inputs[states:], region.inputs[states:], attrs["reverse_in"], strict=True)
    for source, parameter, backwards in scanned:
        planner.places[parameter] = _slice(planner.use(source), parameter, counter, trip, backwards)
    stacked: list[Place] = []
    for value, result, backwards in zip(
        node.outputs[states:], region.outputs[states:], attrs["reverse_out"], strict=True
    ):
        whole = planner.reserve(value, steps)
        place = _slice(whole, result, counter, trip, backwards)
        stacked.append(place)
        source = origin(result)
        if source not in planner.places and _made_inside(region, source):
            planner.places[source] = place
    _renew(planner, region, region.inputs[:states], region.outputs[:states], held)
    body: list[Step] = []
    planner.known.add(counter)
    planner.block(region, body)
    for result, place in zip(region.outputs[states:], stacked, strict=True):
        if planner.place(result) != place:
            planner.copy(result, place, body)
    _update_state(planner, region.outputs[:states], held, [False] * states, body)
    _keep_alive(planner, begin, [*held, *stacked, *map(planner.place, node.inputs)])
    steps.append(Repeat(counter, trip, tuple(body)))


def _slice(whole: Place, part: Value, counter: str, trip: Dim, backwards: bool) -> Place:
    """The part of a stacked tensor that belongs to the present step."""
    size = part.type.elements * part.dtype.bytes
    at = trip - 1 - symbol(counter) if backwards else symbol(counter)
    return replace(whole, offset=whole.offset + at * size)


def _update_state(
    planner: Planner,
    results: list[Value],
    held: list[Place],
    resized: list[bool],
    body: list[Step],
) -> None:
    """Copy the new state over the old one, all at once even where states trade places.

    resized: which states may need more memory than they have.
    """
    pending: list[tuple[Value, Place, bool]] = []
    for result, place, grows in zip(results, held, resized, strict=True):
        if planner.place(result) == place:
            continue
        if planner.place(result) in held:
            saved = Value(result.type)
            planner.places[saved] = planner.memory(result.type, body)
            planner.copy(result, planner.places[saved], body)
            result = saved
        pending.append((result, place, grows))
    for result, place, grows in pending:
        if grows:
            body.append(Allocate(place.number, bytes_of(result.dtype, result.type.elements)))
        planner.copy(result, place, body)


def _keep_alive(planner: Planner, begin: int, places: list[Place]) -> None:
    """What existed before a loop and is used in it is needed until the loop ends."""
    planner.clock += 1
    for place in places:
        planner.touch(place)
    for buffer in planner.plan.arena:
        if buffer.first <= begin < buffer.last:
            buffer.last = max(buffer.last, planner.clock)


@dataclass
class _Loop:
    """A `loop` node while its steps are made. varying: per carried value the axes that change."""

    node: Node
    region: Graph
    carried: int
    varying: list[list[int]]
    counter: str
    held: list[Place] = field(default_factory=list)
    stacked: list[Place] = field(default_factory=list)

    @property
    def results(self) -> list[Value]:
        """The region's step results, which the node stacks."""
        return self.region.outputs[1 + self.carried :]

    def own_symbols(self) -> tuple[str, ...]:
        """The symbols that the carried values' dims are in each round."""
        pairs = zip(self.region.inputs[2:], self.varying, strict=True)
        return tuple(
            name for value, axes in pairs for axis in axes for name in symbols_of(value.shape[axis])
        )

    def dims(self, values: Sequence[Value]) -> tuple[Dim, ...]:
        """Of values that stand for the carried ones, the dims that `own_symbols` name."""
        pairs = zip(values, self.varying, strict=True)
        return tuple(value.shape[axis] for value, axes in pairs for axis in axes)

    def result_dims(self) -> tuple[list[str], list[Dim]]:
        """Symbols of stacked results that only the region knows, and what they are there."""
        names: list[str] = []
        dims: list[Dim] = []
        outputs = self.node.outputs[self.carried :]
        for outer, inner in zip(outputs, self.results, strict=True):
            for bound, dim in zip(outer.shape[1:], inner.shape, strict=True):
                if bound != dim:
                    names += symbols_of(bound)
                    dims.append(dim)
        return names, dims


def _loop(planner: Planner, node: Node, steps: list[Step]) -> None:
    region = node.regions[0]
    varying = loop_varying(node.inputs, region)
    loop = _Loop(node, region, len(node.inputs) - 2, varying, planner.fresh("round"))
    trip, condition = node.inputs[:2]
    begin = planner.clock
    going = planner.memory(condition.type, steps)
    planner.copy(condition, going, steps)
    index = planner.memory(region.inputs[0].type, steps)
    planner.places.update(zip(region.inputs[:2], (index, going), strict=True))
    _hold(planner, loop, steps)
    names, dims = loop.result_dims()
    if names:
        steps.append(Assign(tuple(names), (0,) * len(names)))
    body: list[Step] = []
    planner.known.add(loop.counter)
    planner.write_dims((symbol(loop.counter),), index, body)
    fixed = [n for n, axes in enumerate(loop.varying) if not axes]
    old, new = ([values[n] for n in fixed] for values in (region.inputs[2:], region.outputs[1:]))
    _renew(planner, region, old, new, [loop.held[n] for n in fixed])
    planner.block(region, body)
    _stack(planner, loop, body)
    if names:
        body.append(Assign(tuple(names), tuple(dims)))
    _update_loop(planner, loop, [going, *loop.held], body)
    _keep_alive(planner, begin, [going, index, *loop.held])
    text = f"node '{node.name}' (loop)"
    steps.append(Repeat(loop.counter, planner.use(trip), tuple(body), going, text))
    _bind_loop(planner, loop, steps)


def _hold(planner: Planner, loop: _Loop, steps: list[Step]) -> None:
    """Memory for the carried values, initialised; on the heap for those that change shape."""
    initial = loop.node.inputs[2:]
    outputs = loop.node.outputs[: loop.carried]
    for value, first, axes in zip(outputs, initial, loop.varying, strict=True):
        if axes:
            planner.heap += 1
            planner.places[value] = Place("heap", planner.heap)
            steps.append(Allocate(planner.heap, bytes_of(first.dtype, first.type.elements)))
        place = planner.reserve(value, steps)
        planner.copy(first, place, steps)
        loop.held.append(place)
    planner.places.update(zip(loop.region.inputs[2:], loop.held, strict=True))
    if names := loop.own_symbols():
        steps.append(Assign(names, loop.dims(initial)))
    for value in loop.node.outputs[loop.carried :]:
        planner.heap += 1
        planner.places[value] = Place("heap", planner.heap)
        steps.append(Allocate(planner.heap, 0))
        loop.stacked.append(planner.places[value])


def _stack(planner: Planner, loop: _Loop, body: list[Step]) -> None:
    """Append the round's results to the stacked ones, which grow."""
    done = symbol(loop.counter)
    for result, whole in zip(loop.results, loop.stacked, strict=True):
        size = bytes_of(result.dtype, result.type.elements)
        body.append(Allocate(whole.number, (done + 1) * size, keep=done * size))
        planner.copy(result, replace(whole, offset=done * size), body)


def _update_loop(planner: Planner, loop: _Loop, held: list[Place], body: list[Step]) -> None:
    """The new carried values and their dims, for the next round."""
    results = loop.region.outputs[: 1 + loop.carried]
    resized = [False, *(bool(axes) for axes in loop.varying)]
    _update_state(planner, results, held, resized, body)
    if names := loop.own_symbols():
        body.append(Assign(names, loop.dims(results[1:])))


def _bind_loop(planner: Planner, loop: _Loop, steps: list[Step]) -> None:
    """The symbols of the node's outputs, once the rounds are over."""
    outputs = loop.node.outputs
    names: list[str] = []
    for dim in loop.dims(outputs[: loop.carried]):
        names += symbols_of(dim)
    dims: list[Dim] = [symbol(name) for name in loop.own_symbols()]
    for value in outputs[loop.carried :]:
        names += symbols_of(value.shape[0])
        dims.append(symbol(loop.counter))
    if names:
        steps.append(Assign(tuple(names), tuple(dims)))
    planner.known.update(loop.node.attrs.get("bound", ()))


def _expand(planner: Planner, node: Node, steps: list[Step]) -> None:
    """The operand itself where a run finds the sizes equal, else a copy on the heap."""
    source, result = node.inputs[0], node.output
    place = planner.use(source)
    view, made = planner.heap + 1, planner.heap + 2
    planner.heap = made
    operand = Value(source.type)
    inner = make_node("expand", [operand], node.attrs)
    kernel = lower_region(Graph([operand], [inner.output], [inner])).kernel
    copy: list[Step] = [Allocate(made, bytes_of(result.dtype, result.type.elements))]
    planner.append_call(planner.choose(Request(kernel)), (place, Place("heap", made)), copy)
    pairs = zip(source.shape, result.shape, strict=True)
    equal = tuple((dim, size) for dim, size in pairs if dim != size)
    copy.append(View(view, Place("heap", made)))
    steps.append(Branch(equal, (View(view, place),), tuple(copy)))
    planner.views[view] = place
    planner.places[result] = Place("heap", view)


CONTROL: dict[str, Rule] = {"if": _branch, "scan": _scan, "loop": _loop, "expand": _expand}
