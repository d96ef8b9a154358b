"""A plan for the host becomes one whose kernels run on a device, with transfers where they must be.

The device has its own arena, heap and weights, laid out as those of the host: a tensor has a place
in either, at the same offset, and the pass knows which of the two holds it. What only the host can
do (control flow, functions of the runtime, kernels that the device has no code for) finds it there.
Inputs and outputs may be the caller's tensors on the device, which only a run knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ...ir.dims import Dim, ceildiv, dmax, substitute, symbols_of
from ...ir.graph import Value
from ...ir.types import TensorType
from ..lower.scope import storage_elements
from .plan import (
    ALIGNMENT,
    Allocate,
    ArenaBuffer,
    Bind,
    Branch,
    Deliver,
    DeviceFunction,
    External,
    KernelCall,
    Launch,
    OpenOutput,
    Place,
    Plan,
    Receive,
    Repeat,
    Space,
    Step,
    Transfer,
    View,
    bytes_of,
)
from .verify_plan import verify_plan

Memory = tuple[str, int]
HOST, DEVICE = frozenset({Space.HOST}), frozenset({Space.DEVICE})
READ_ONLY = ("input", "weights")
WORKSPACE_ALIGNMENT = 256  # bytes


def on_device(plan: Plan, functions: Mapping[int, Sequence[DeviceFunction]]) -> None:
    """Rewrite the steps of a plan so that kernels run on the device.

    functions: by kernel, what runs one behind the other for a call of it; kernels without any run
    on the host. Raises InternalError where the plan breaks an invariant.
    """
    for found in functions.values():
        plan.functions += found
    numbers = {function.symbol: n for n, function in enumerate(plan.functions)}
    steps_of_host = [s for s in all_steps(plan.steps) if not _is_launched(s, functions)]
    named = {memory_of(place) for step in steps_of_host for place in places_of(step)}
    placement = _Placement(plan, functions, numbers, frozenset(named))
    steps = placement.steps(plan.steps)
    steps += [placement.deliver(number) for number in range(len(plan.outputs))]
    plan.steps = (*placement.received(), *steps)
    placement.place_workspace()
    verify_plan(plan)


def host_inputs(plan: Plan) -> frozenset[int]:
    """The inputs that steps of the host read."""
    steps = list(all_steps(plan.steps))
    places = [place for step in steps for place in places_of(step)]
    places += [step.source for step in steps if isinstance(step, View)]
    return frozenset(p.number for p in places if p.kind == "input" and p.space is Space.HOST)


def all_steps(steps: Sequence[Step]) -> Iterator[Step]:
    """Every step, those of branches and loops included."""
    for step in steps:
        yield step
        if isinstance(step, Branch):
            yield from all_steps(step.then)
            yield from all_steps(step.otherwise)
        elif isinstance(step, Repeat):
            yield from all_steps(step.body)


def places_of(step: Step) -> tuple[Place, ...]:
    """The places that a step itself names, views apart."""
    match step:
        case KernelCall() | Launch() | External():
            return step.places
        case Transfer(source=source, target=target):
            return source, target
        case Bind(place=place) | Branch(condition=Place() as place):
            return (place,)
        case Repeat(count=count, condition=condition):
            return tuple(place for place in (count, condition) if isinstance(place, Place))
        case _:
            return ()


def memory_of(place: Place) -> Memory:
    """What a place lies in, in whichever space."""
    return place.kind, place.number


def _is_launched(step: Step, functions: Mapping[int, Sequence[DeviceFunction]]) -> bool:
    return isinstance(step, KernelCall) and bool(functions.get(step.kernel))


@dataclass
class _Placement:
    """Walks steps in order.

    of_host: memory that steps of the host name. held: the spaces that hold what a memory is to
    contain; none: nothing was written there yet. own: memory of the device for inputs and outputs,
    which the host is given. heap: numbers of its memory so far. workspace: the number of the buffer
    that calls have one behind the other. views: what a number may stand for
    instead of memory of its own. clock: a time, of the lifetimes of buffers, that was reached.
    """

    plan: Plan
    functions: Mapping[int, Sequence[DeviceFunction]]
    numbers: Mapping[str, int]
    of_host: frozenset[Memory]
    held: dict[Memory, frozenset[Space]] = field(default_factory=dict)
    own: dict[Memory, Place] = field(default_factory=dict)
    heap: set[int] = field(default_factory=set)
    workspace: int | None = None
    views: dict[int, Memory] = field(default_factory=dict)
    clock: int = 0

    def steps(self, steps: Sequence[Step]) -> list[Step]:
        """The steps with what they need before and behind them."""
        made: list[Step] = []
        for step in steps:
            match step:
                case KernelCall() if self.functions.get(step.kernel):
                    self._launch(step, made)
                case KernelCall():
                    outputs = self.plan.kernels[step.kernel].kernel.outputs
                    self._on_host(step, step.places, outputs, made)
                case External(places=places, outputs=outputs):
                    self._on_host(step, places, outputs, made)
                case Bind(place=place):
                    self.reach(place, Space.HOST, made)
                    made.append(step)
                case OpenOutput():
                    self._open(step.number, made)
                case Allocate():
                    made += [step, replace(step, space=Space.DEVICE)]
                case View():
                    self._view(step, made)
                case Branch():
                    self._branch(step, made)
                case Repeat():
                    self._repeat(step, made)
                case _:
                    made.append(step)
        return made

    # places --------------------------------------------------------------------------------

    def _spaces(self, memory: Memory) -> frozenset[Space]:
        usual = HOST | DEVICE if memory[0] in READ_ONLY else frozenset[Space]()
        return self.held.get(memory, usual)

    def _there(self, place: Place, space: Space) -> Place:
        """A place of the host's plan in a space."""
        memory = memory_of(place)
        if space is Space.DEVICE and place.kind == "input" and memory not in self.own:
            self.own[memory] = self._behind_arena(self.plan.inputs[place.number])
        return replace(place, space=space)

    def received(self) -> list[Step]:
        """The inputs that the device reads, before all else."""
        return [
            Receive(number, place, _bytes(self.plan.inputs[number].type))
            for (kind, number), place in self.own.items()
            if kind == "input"
        ]

    def deliver(self, number: int) -> Step:
        """Hand an output over from the memory that holds it."""
        held = self._spaces(("output", number))
        return Deliver(number, Space.HOST not in held, _bytes(self.plan.outputs[number].type))

    def _behind_arena(self, value: Value) -> Place:
        """Memory of the device for as long as the run lasts."""
        size = _bytes(value.type)
        end = max((buffer.last for buffer in self.plan.arena), default=0)
        buffer = ArenaBuffer(size, 0, end, self.plan.arena_bytes, value.name)
        self.plan.arena.append(buffer)
        rounded = ceildiv(size, ALIGNMENT) * ALIGNMENT
        self.plan.arena_bytes = self.plan.arena_bytes + rounded
        return Place("arena", len(self.plan.arena) - 1, 0, Space.DEVICE)

    def _size(self, memory: Memory) -> Dim | None:
        kind, number = memory
        if kind == "heap":
            return None
        if kind == "arena":
            return self.plan.arena[number].size
        return _bytes((self.plan.inputs if kind == "input" else self.plan.outputs)[number].type)

    def reach(self, place: Place, space: Space, made: list[Step]) -> Place:
        """The place in a space, which then holds what the other one may have got."""
        memory = memory_of(place)
        spaces = self._spaces(memory)
        if spaces and space not in spaces:
            whole = Place(*memory)
            other = Space.DEVICE if space is Space.HOST else Space.HOST
            source, target = self._there(whole, other), self._there(whole, space)
            made.append(Transfer(source, target, self._size(memory)))
            self.held[memory] = spaces | {space}
        return self._there(place, space)

    def _wrote(self, place: Place, space: Space) -> None:
        """Note that a place was written in a space: the other one is out of date."""
        memory = memory_of(place)
        for other in {memory, *self._aliases(memory)}:
            self.held[other] = frozenset({space})
            if other[0] == "arena":
                self.clock = max(self.clock, self.plan.arena[other[1]].first)

    def _aliases(self, memory: Memory) -> set[Memory]:
        """What may be the same memory: what a number of the heap stands for, and what stands for
        this."""
        found = {("heap", n) for n, source in self.views.items() if source == memory}
        if memory[0] == "heap" and memory[1] in self.views:
            found.add(self.views[memory[1]])
        return {alias for alias in found if alias[0] not in READ_ONLY}

    def _is_dead(self, memory: Memory) -> bool:
        """Whether a buffer is read no more, so that another one may lie where it did."""
        seen = set[Memory]()
        while memory[0] == "heap" and memory[1] in self.views and memory not in seen:
            seen.add(memory)
            memory = self.views[memory[1]]
        kind, number = memory
        return kind == "arena" and self.plan.arena[number].last < self.clock

    # steps ---------------------------------------------------------------------------------

    def _launch(self, step: KernelCall, made: list[Step]) -> None:
        kernel = self.plan.kernels[step.kernel].kernel
        places = [self.reach(place, Space.DEVICE, made) for place in step.places]
        sizes = dict(zip(kernel.symbols, step.sizes, strict=True))
        for function in self.functions[step.kernel]:
            shared = (self._workspace(function.workspace),) if function.workspace else ()
            made.append(
                Launch(
                    self.numbers[function.symbol],
                    (*(places[number] for number in function.params), *shared),
                    tuple(sizes[name] for name in function.symbols),
                    substitute(function.programs, sizes),
                )
            )
        for place in step.places[len(places) - kernel.outputs :]:
            self._wrote(place, Space.DEVICE)

    def _workspace(self, size: int) -> Place:
        """Memory of at least so many bytes that the functions of a call share."""
        arena = self.plan.arena
        if self.workspace is None:
            self.workspace = len(arena)
            arena.append(ArenaBuffer(0, 0, max((b.last for b in arena), default=0)))
        arena[self.workspace].size = dmax(arena[self.workspace].size, size)
        return Place("arena", self.workspace, 0, Space.DEVICE)

    def place_workspace(self) -> None:
        """Put the workspace, which has its size once all calls are known, behind all else."""
        if self.workspace is not None:
            buffer = self.plan.arena[self.workspace]
            start = ceildiv(self.plan.arena_bytes, WORKSPACE_ALIGNMENT) * WORKSPACE_ALIGNMENT
            buffer.offset, size = start, buffer.size
            self.plan.arena_bytes = start + ceildiv(size, ALIGNMENT) * ALIGNMENT

    def _on_host(self, step: Step, places: Sequence[Place], outputs: int, made: list[Step]) -> None:
        for place in places:
            self.reach(place, Space.HOST, made)
        made.append(step)
        for place in places[len(places) - outputs :] if outputs else ():
            self._wrote(place, Space.HOST)

    def _open(self, number: int, made: list[Step]) -> None:
        """Memory of the device for an output, for the whole run unless only that tells its size."""
        size = _bytes(self.plan.outputs[number].type)
        if symbols_of(size) <= set(self.plan.symbols):
            staging = self._behind_arena(self.plan.outputs[number])
        else:
            if not self.heap:
                kinds = Allocate | View
                taken = (s.number for s in all_steps(self.plan.steps) if isinstance(s, kinds))
                self.heap = {0, *taken}
            heap = 1 + max(self.heap)
            self.heap.add(heap)
            staging = Place("heap", heap, 0, Space.DEVICE)
            made.append(Allocate(heap, size, space=Space.DEVICE))
        made.append(OpenOutput(number, staging))

    def _view(self, step: View, made: list[Step]) -> None:
        """A view is made where it is read, of what is there."""
        memory = ("heap", step.number)
        self.views[step.number] = memory_of(step.source)
        self.held[memory] = DEVICE
        made.append(replace(step, source=self.reach(step.source, Space.DEVICE, made)))
        if memory in self.of_host:
            made.append(replace(step, source=self.reach(step.source, Space.HOST, made)))
            self.held[memory] = HOST | DEVICE

    def _settle(self, made: list[Step]) -> None:
        """Have the device hold all that lives: where ways part or meet, nothing else is known."""
        self.held = {
            memory: held for memory, held in self.held.items() if not self._is_dead(memory)
        }
        for memory in list(self.held):
            self.reach(Place(*memory), Space.DEVICE, made)
        for memory in self.held:
            kept = memory[0] in READ_ONLY or (memory[0] == "heap" and memory[1] in self.views)
            if not kept:
                self.held[memory] = DEVICE

    def _branch(self, step: Branch, made: list[Step]) -> None:
        if isinstance(step.condition, Place):
            self.reach(step.condition, Space.HOST, made)
        self._settle(made)
        bodies = []
        before = dict(self.held)
        for steps in (step.then, step.otherwise):
            self.held = {**self.held, **before}
            body = self.steps(steps)
            self._settle(body)
            bodies.append(tuple(body))
        made.append(replace(step, then=bodies[0], otherwise=bodies[1]))

    def _repeat(self, step: Repeat, made: list[Step]) -> None:
        for place in (step.count, step.condition):
            if isinstance(place, Place):
                self.reach(place, Space.HOST, made)
        self._settle(made)
        for inner in all_steps(step.body):  # what one round writes, the next one may read
            for place in places_of(inner):
                if not self._spaces(memory_of(place)):
                    self.held[memory_of(place)] = DEVICE
        body = self.steps(step.body)
        if step.condition is not None:
            self.reach(step.condition, Space.HOST, body)
        self._settle(body)
        made.append(replace(step, body=tuple(body)))


def _bytes(type_: TensorType) -> Dim:
    return bytes_of(type_.dtype, storage_elements(type_))


__all__ = ["all_steps", "host_inputs", "on_device", "places_of"]
