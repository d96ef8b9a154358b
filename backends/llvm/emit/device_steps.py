"""Steps of a plan that concern a device: calls of its services, declared in runtime/device.h."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.kernel.plan.devices import all_steps, places_of
from ....compiler.kernel.plan.plan import (
    Deliver,
    Launch,
    OpenOutput,
    Place,
    Plan,
    Receive,
    Space,
    Transfer,
    View,
)
from .builder import I64, POINTER
from .plan_memory import PlanMemory

Memories = set[tuple[Space, str]]


def memories(plan: Plan) -> Memories:
    """Which kinds of memory, in which spaces, the steps name."""
    if not plan.functions:
        return {(Space.HOST, "arena")} if plan.arena else set()
    steps = list(all_steps(plan.steps))
    places = [place for step in steps for place in places_of(step)]
    places += [step.source for step in steps if isinstance(step, View)]
    places += [s.staging for s in steps if isinstance(s, Receive | OpenOutput) and s.staging]
    return {(place.space, place.kind) for place in places}


class DeviceSteps:
    """Emits calls of the device's services; each ends the run where it fails."""

    def __init__(self, memory: PlanMemory) -> None:
        self.memory = memory
        self.e, self.guards = memory.e, memory.guards

    def obtain(self, needed: Memories) -> None:
        """The device's arena and weights, where the plan names them."""
        e, memory, space = self.e, self.memory, Space.DEVICE
        if (space, "arena") in needed:
            size = memory.plan.arena_bytes
            self.guards.fits(size, memory.symbols.env(set(memory.plan.symbols)))
            arguments = [memory.frame, e.as_index(memory.symbols.dim(size))]
            memory.arenas[space] = self.guards.not_null(e.call("ts_dev_arena", POINTER, arguments))
        if (space, "weights") in needed:
            weights = e.call("ts_dev_weights", POINTER, [memory.frame])
            memory.weights[space] = self.guards.not_null(weights)

    def emit(self, step: Launch | Transfer | Receive | Deliver) -> None:
        """Have the device do a step, behind what it was asked for before."""
        match step:
            case Launch():
                self._launch(step)
            case Transfer():
                self._transfer(step)
            case Receive():
                self._receive(step)
            case Deliver():
                self._deliver(step)

    def open(self, number: int, staging: Place) -> None:
        """The address of an output on the device."""
        arguments = [self.memory.frame, self.e.as_index(number), self.memory.pointer(staging)]
        slot = self.memory.outputs[Space.DEVICE, number] = self.e.local(POINTER, align=8)
        found = self.guards.not_null(self.e.call("ts_dev_output", POINTER, arguments))
        self.e.b.store(found, slot)

    def _receive(self, step: Receive) -> None:
        e = self.e
        size = e.as_index(self.memory.symbols.dim(step.size))
        staging = self.memory.pointer(step.staging)
        arguments = [self.memory.frame, e.as_index(step.number), staging, size]
        found = self.guards.not_null(e.call("ts_dev_input", POINTER, arguments))
        self.memory.inputs[Space.DEVICE, step.number] = found

    def _deliver(self, step: Deliver) -> None:
        source = ir.Constant(POINTER, None)
        if step.on_device:
            source = self.memory.pointer(Place("output", step.number, 0, Space.DEVICE))
        size = self.e.as_index(self.memory.symbols.dim(step.size))
        self.guards.succeeds("ts_dev_deliver", self.e.as_index(step.number), source, size)

    def _launch(self, step: Launch) -> None:
        e = self.e
        places = e.local(POINTER, max(1, len(step.places)), align=8)
        sizes = e.local(I64, max(1, len(step.sizes)), align=8)
        for number, place in enumerate(step.places):
            slot = e.b.gep(places, [e.as_index(number)], source_etype=POINTER)
            e.b.store(self.memory.pointer(place), slot)
        for number, size in enumerate(step.sizes):
            slot = e.b.gep(sizes, [e.as_index(number)], source_etype=I64)
            e.b.store(e.as_index(self.memory.symbols.dim(size)), slot)
        programs = e.as_index(self.memory.symbols.dim(step.programs))
        self.guards.succeeds("ts_dev_launch", e.as_index(step.function), programs, places, sizes)

    def _transfer(self, step: Transfer) -> None:
        upload = step.target.space is Space.DEVICE
        pointers = [self.memory.pointer(place) for place in (step.target, step.source)]
        if step.size is None:
            size = self.memory.heap_size(step.source)
        else:
            size = self.e.as_index(self.memory.symbols.dim(step.size))
        self.guards.succeeds("ts_dev_upload" if upload else "ts_dev_download", *pointers, size)
