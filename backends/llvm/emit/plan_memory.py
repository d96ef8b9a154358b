"""Where the tensors of a plan are at run time: addresses of places, memory that runs obtain."""

from __future__ import annotations

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Dim, size_of, symbols_of
from ....compiler.kernel.plan.plan import Allocate, Place, Plan, Space, View
from .builder import I8, I64, POINTER, VOID, Emitter
from .guards import Guards
from .indices import Int
from .plan_symbols import PlanSymbols

# Functions of runtime/plan_abi.h and of runtime/cuda/: more memory of a space.
ALLOCATORS = {Space.HOST: "ts_rt_alloc", Space.DEVICE: "ts_dev_alloc"}


class PlanMemory:
    """Addresses in every space. Those of a device are numbers to the host, which it only adds to.

    inputs, weights, arenas: where each begins, inputs by number where the space has them. outputs:
    variables for their addresses.
    """

    def __init__(
        self, e: Emitter, plan: Plan, frame: ir.Value, guards: Guards, symbols: PlanSymbols
    ) -> None:
        self.e, self.plan, self.frame = e, plan, frame
        self.guards, self.symbols = guards, symbols
        self.inputs: dict[tuple[Space, int], ir.Value] = {}
        self.weights: dict[Space, ir.Value] = {}
        self.arenas: dict[Space, ir.Value] = {}
        self.outputs: dict[tuple[Space, int], ir.Value] = {}
        self.heap: dict[tuple[Space, int], ir.Value] = {}
        self.heap_bytes: dict[tuple[Space, int], ir.Value] = {}
        self.offsets: dict[Dim, Int] = {}

    def place_arena(self) -> None:
        """Compute every offset in the arena once, each from the one before it."""
        before: Dim = 0
        value: Int = 0
        for buffer in sorted(self.plan.arena, key=lambda b: size_of(b.offset)):
            if buffer.offset not in self.offsets:
                value = self.e.add(value, self.symbols.dim(buffer.offset - before))
                before = buffer.offset
                self.offsets[before] = value

    def pointer(self, place: Place) -> ir.Value:
        """The address of a place."""
        base, offset = self._base(place)
        total = self.e.add(offset, self.symbols.dim(place.offset))
        if isinstance(total, int) and total == 0:
            return base
        return self.e.b.gep(base, [self.e.as_index(total)], source_etype=I8)

    def _base(self, place: Place) -> tuple[ir.Value, Int]:
        if place.kind == "heap":
            return self.e.b.load(self.heap[place.space, place.number], typ=POINTER), 0
        if place.kind == "weights" and place.space in self.weights:
            return self.weights[place.space], self.plan.weights[place.number].offset
        if place.kind == "arena" and place.space in self.arenas:
            offset = self.offsets[self.plan.arena[place.number].offset]
            return self.arenas[place.space], offset
        key = place.space, place.number
        if place.kind == "input" and key in self.inputs:
            return self.inputs[key], 0
        if place.kind == "output" and key in self.outputs:
            return self.e.b.load(self.outputs[key], typ=POINTER), 0
        raise InternalError(f"there is no address for {place}")

    def heap_size(self, place: Place) -> ir.Value:
        """Bytes of the heap's memory that a place is in; -1: it is other memory."""
        return self.e.b.load(self.heap_bytes[place.space, place.number], typ=I64)

    def provide(self, step: Allocate | View) -> None:
        """Obtain memory of the heap, or let it be other memory."""
        if isinstance(step, View):
            self._view(step)
        else:
            self._allocate(step)

    def _allocate(self, step: Allocate) -> None:
        e, key = self.e, (step.space, step.number)
        self._reserve(key)
        slot, held_slot = self.heap[key], self.heap_bytes[key]
        self.guards.fits(step.size, self.symbols.env(symbols_of(step.size)))
        wanted, keep = e.as_index(self.symbols.dim(step.size)), self.symbols.dim(step.keep)
        held = e.b.load(held_slot, typ=I64)
        with e.when(e.b.icmp_signed(">", wanted, held)):
            size = e.as_index(e.minmax("max", wanted, e.mul(held, 2)))
            memory = self.guards.not_null(
                e.call(ALLOCATORS[step.space], POINTER, [self.frame, size])
            )
            if keep != 0:
                old = e.b.load(slot, typ=POINTER)
                self._keep(step.space, memory, old, e.as_index(keep))
            e.b.store(memory, slot)
            e.b.store(size, held_slot)

    def _keep(self, space: Space, memory: ir.Value, old: ir.Value, size: ir.Value) -> None:
        if space is Space.HOST:
            volatile = ir.Constant(ir.IntType(1), 0)
            self.e.call("llvm.memcpy.p0.p0.i64", VOID, [memory, old, size, volatile])
        else:
            self.guards.succeeds("ts_dev_copy", memory, old, size)

    def _view(self, step: View) -> None:
        key = (step.source.space, step.number)
        self._reserve(key)
        self.e.b.store(self.pointer(step.source), self.heap[key])

    def _reserve(self, key: tuple[Space, int]) -> None:
        """Variables for the address and the size of heap memory, that at first is none."""
        if key in self.heap:
            return
        e = self.e
        self.heap[key] = e.local(POINTER, align=8)
        self.heap_bytes[key] = e.local(I64, align=8)
        with e.b.goto_block(e.entry):
            e.b.position_before(e.entry.terminator)
            e.b.store(ir.Constant(POINTER, None), self.heap[key])
            e.b.store(e.as_index(-1), self.heap_bytes[key])
