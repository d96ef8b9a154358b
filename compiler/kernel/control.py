"""Control flow in the plan: branches and loops over the steps of regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import InternalError
from ..ir.dims import Dim, symbol
from ..ir.graph import Graph, Node, Value
from .plan import Allocate, Branch, Place, Repeat, Step

if TYPE_CHECKING:
    from .planner import Planner

Rule = Callable[["Planner", Node, list[Step]], None]
UNBOUNDED = (1 << 63) - 1


def _made_inside(region: Graph, value: Value) -> bool:
    """Whether a kernel of the region itself makes the value."""
    node = value.producer
    return node is not None and node.op == "fused" and node in region.nodes


def _branch(planner: Planner, node: Node, steps: list[Step]) -> None:
    condition = planner.use(node.inputs[0])
    bound = set(node.attrs.get("bound", ()))
    grown = [any(bound & _names(dim) for dim in value.shape) for value in node.outputs]
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


def _names(dim: Dim) -> frozenset[str]:
    from ..ir.dims import symbols_of

    return symbols_of(dim)


def _bound_dims(node: Node) -> tuple[tuple[str, Dim, Dim], ...]:
    """(symbol, dim in the first region, dim in the second) of every symbol that `if` binds."""
    found: list[tuple[str, Dim, Dim]] = []
    names = set(node.attrs.get("bound", ()))
    for position, value in enumerate(node.outputs):
        first, second = (region.outputs[position] for region in node.regions)
        for dim, a, b in zip(value.shape, first.shape, second.shape, strict=True):
            used = names & _names(dim)
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
        if dynamic or result in planner.places or not _made_inside(region, result):
            continue
        if result.type == wanted.type:
            planner.places[result] = target


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
        if result not in planner.places and _made_inside(region, result):
            planner.places[result] = place
    body: list[Step] = []
    planner.known.add(counter)
    planner.block(region, body)
    for result, place in zip(region.outputs[states:], stacked, strict=True):
        if planner.place(result) != place:
            planner.copy(result, place, body)
    _update_state(planner, region, region.outputs[:states], held, body)
    _keep_alive(planner, begin, [*held, *stacked, *map(planner.place, node.inputs)])
    steps.append(Repeat(counter, trip, tuple(body)))


def _slice(whole: Place, part: Value, counter: str, trip: Dim, backwards: bool) -> Place:
    """The part of a stacked tensor that belongs to the present step."""
    size = part.type.elements * part.dtype.bytes
    at = trip - 1 - symbol(counter) if backwards else symbol(counter)
    return replace(whole, offset=whole.offset + at * size)


def _update_state(
    planner: Planner, region: Graph, results: list[Value], held: list[Place], body: list[Step]
) -> None:
    """Copy the new state over the old one, all at once even where states trade places."""
    parameters = set(region.inputs)
    pending: list[tuple[Value, Place]] = []
    for result, place in zip(results, held, strict=True):
        if planner.place(result) == place:
            continue
        if result in parameters:
            saved = Value(result.type)
            planner.places[saved] = planner.memory(result.type, body)
            planner.copy(result, planner.places[saved], body)
            result = saved
        pending.append((result, place))
    for result, place in pending:
        planner.copy(result, place, body)


def _keep_alive(planner: Planner, begin: int, places: list[Place]) -> None:
    """What existed before a loop and is used in it is needed until the loop ends."""
    planner.clock += 1
    for place in places:
        planner.touch(place)
    for buffer in planner.plan.arena:
        if buffer.first <= begin < buffer.last:
            buffer.last = max(buffer.last, planner.clock)


def _loop(planner: Planner, node: Node, steps: list[Step]) -> None:
    region, carried = node.regions[0], len(node.inputs) - 2
    trip, condition = node.inputs[:2]
    begin = planner.clock
    counter = planner.fresh("round")
    going = planner.memory(condition.type, steps)
    planner.copy(condition, going, steps)
    index = planner.memory(region.inputs[0].type, steps)
    planner.places[region.inputs[0]] = index
    planner.places[region.inputs[1]] = going
    held: list[Place] = []
    for value, initial in zip(node.outputs[:carried], node.inputs[2:], strict=True):
        if value.shape != initial.shape:
            raise InternalError("a loop changes the shape of what it carries", where=node.name)
        place = planner.reserve(value, steps)
        planner.copy(initial, place, steps)
        held.append(place)
    for parameter, place in zip(region.inputs[2:], held, strict=True):
        planner.places[parameter] = place
    stacked = _loop_results(planner, node, counter, steps)
    body: list[Step] = []
    planner.known.add(counter)
    planner.write_dims((symbol(counter),), index, body)
    planner.block(region, body)
    for result, place in zip(region.outputs[1 + carried :], stacked, strict=True):
        planner.copy(result, place, body)
    results = region.outputs[: 1 + carried]
    _update_state(planner, region, results, [going, *held], body)
    _keep_alive(planner, begin, [going, index, *held, *stacked])
    done = next(iter(node.attrs.get("bound", ())), "")
    planner.known.update(node.attrs.get("bound", ()))
    steps.append(Repeat(counter, planner.use(trip), tuple(body), going, done))


def _loop_results(planner: Planner, node: Node, counter: str, steps: list[Step]) -> list[Place]:
    """Memory for stacked results: as many rounds as the trip count, which must be a constant."""
    region, carried = node.regions[0], len(node.inputs) - 2
    found: list[Place] = []
    for value, result in zip(node.outputs[carried:], region.outputs[1 + carried :], strict=True):
        trip = node.inputs[0].data
        if trip is None or int(trip) == UNBOUNDED:
            raise InternalError(
                "a loop stacks results and its largest number of rounds is not a constant",
                where=node.name,
            )
        size = result.type.elements * result.dtype.bytes
        planner.heap += 1
        steps.append(Allocate(planner.heap, size * int(trip)))
        planner.places[value] = Place("heap", planner.heap)
        found.append(_slice(planner.places[value], result, counter, 0, False))
    return found


CONTROL: dict[str, Rule] = {"if": _branch, "scan": _scan, "loop": _loop}
