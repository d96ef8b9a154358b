"""Emission of a plan as the function `int32_t plan(ts_frame *)` of runtime/plan_abi.h."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ....compiler.ir.assumptions import AT_MOST, FITS, may_wrap
from ....compiler.ir.dims import Dim, product, symbol, symbols_of
from ....compiler.kernel.plan.plan import (
    Allocate,
    Assign,
    Bind,
    Branch,
    Deliver,
    External,
    KernelCall,
    Launch,
    OpenOutput,
    Place,
    Plan,
    Receive,
    Repeat,
    Require,
    Space,
    Step,
    Transfer,
    View,
)
from .builder import I8, I32, I64, POINTER, Emitter
from .device_steps import DeviceSteps, memories
from .guards import MAX_BYTES, Guards
from .indices import Int
from .kernel_function import emit_kernel, parallel_count
from .plan_memory import PlanMemory
from .plan_symbols import PlanSymbols
from .sanitize import extent_of, store_extents
from .target_module import is_bare
from .thread_parts import divided_call
from .work import is_divided, work

FRAME = ir.LiteralStructType([POINTER, POINTER, POINTER, I64, POINTER, POINTER, I64])
MIN_CANCELLED_OPERATIONS = 1_000_000  # of a call before which a run may be cancelled
INPUTS, SYMBOLS, WEIGHTS, THREADS, INSTANCE, STOP, MAX_TRIPS = range(7)


class PlanEmitter:
    """Emits one plan and its kernels into a module. sanitize: with checks of every access."""

    def __init__(self, module: ir.Module, plan: Plan, symbol: str, sanitize: bool = False) -> None:
        self.module = module
        self.plan = plan
        self.sanitize = sanitize
        elsewhere = {function.kernel for function in plan.functions}
        self.kernels = {
            number: emit_kernel(module, k.symbol, k.kernel, k.schedule, k.aliased, sanitize)
            for number, k in enumerate(plan.kernels)
            if number not in elsewhere
        }
        for function in self.kernels.values():
            function.linkage = "internal"
            function.attributes.add("noinline")
        kind = ir.FunctionType(I32, [POINTER])
        self.function = ir.Function(module, kind, symbol)
        self.e = Emitter(module, self.function)
        self.symbols = PlanSymbols(self.e)
        self.divided: dict[int, ir.Function] = {}

    def emit(self) -> None:
        """Emit the whole plan."""
        e, frame = self.e, self.function.args[0]
        failed = self.function.append_basic_block("failed")
        self.guards = Guards(e, frame, failed)
        self.memory = PlanMemory(e, self.plan, frame, self.guards, self.symbols)
        self.device = DeviceSteps(self.memory)
        body = self.function.append_basic_block("body")
        e.b.branch(body)
        e.b.position_at_end(body)
        table = self._field(INPUTS, POINTER)
        for number in range(len(self.plan.inputs)):
            address = e.b.gep(table, [e.as_index(number)], source_etype=POINTER)
            self.memory.inputs[Space.HOST, number] = e.b.load(address, typ=POINTER)
        symbols = self._field(SYMBOLS, POINTER)
        held: dict[str, Int] = {}
        for number, name in enumerate(self.plan.symbols):
            address = e.b.gep(symbols, [e.as_index(number)], source_etype=I64)
            held[name] = e.b.load(address, typ=I64)
            self.symbols.assign(name, held[name])
        e.hold(held)
        self.memory.weights[Space.HOST] = self._field(WEIGHTS, POINTER)
        self.threads = self._field(THREADS, I64)
        self.guards.stop = self._field(STOP, POINTER)
        self.guards.max_trips = self._field(MAX_TRIPS, I64)
        first = [s for s in self.plan.steps if isinstance(s, Require) and self._is_early(s)]
        self._steps(first)
        self._arenas()
        self._steps([step for step in self.plan.steps if step not in first])
        e.b.ret(ir.Constant(I32, 0))
        e.b.position_at_end(failed)
        e.b.ret(ir.Constant(I32, 1))

    def _arenas(self) -> None:
        """Obtain the memory that the run needs from beginning to end, in the spaces it uses."""
        e, frame, needed = self.e, self.function.args[0], memories(self.plan)
        kernels = (self.plan.kernels[number].kernel for number in self.kernels)
        scratch = max((kernel.scratch_bytes for kernel in kernels), default=0)
        if (Space.HOST, "arena") in needed or scratch:
            self.guards.fits(self.plan.arena_bytes, self.symbols.env(set(self.plan.symbols)))
            tensors = self.symbols.dim(self.plan.arena_bytes)
            size = e.as_index(e.add(tensors, e.mul(self.threads, scratch)))
            arena = self.guards.not_null(e.call("ts_rt_arena", POINTER, [frame, size]))
            self.memory.arenas[Space.HOST] = arena
            self.scratch = e.b.gep(arena, [e.as_index(tensors)], source_etype=I8)
        self.device.obtain(needed)
        if self.memory.arenas:
            self.memory.place_arena()

    def _is_early(self, step: Require) -> bool:
        """Whether the inputs' shapes decide it: then it comes before memory is sized by them."""
        return symbols_of(step.left) | symbols_of(step.right) <= set(self.plan.symbols)

    # values --------------------------------------------------------------------------------

    def _field(self, number: int, type_: ir.Type) -> ir.Value:
        where = [ir.Constant(I32, 0), ir.Constant(I32, number)]
        address = self.e.b.gep(self.function.args[0], where, source_etype=FRAME)
        return self.e.b.load(address, typ=type_)

    # steps ---------------------------------------------------------------------------------

    def _steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case KernelCall():
                    self._call(step)
                case Launch() | Transfer() | Receive() | Deliver():
                    self.device.emit(step)
                case Bind():
                    self._bind(step)
                case Require():
                    self._require(step)
                case External():
                    self._external(step)
                case OpenOutput(number=number, staging=staging):
                    self._open(number)
                    if staging is not None:
                        self.device.open(number, staging)
                case Allocate() | View():
                    self.memory.provide(step)
                case Assign(symbols=names, dims=dims):
                    values = [self.symbols.dim(dim) for dim in dims]
                    for name, value in zip(names, values, strict=True):
                        self.symbols.assign(name, value)
                case Branch():
                    self._branch(step)
                case Repeat():
                    self._repeat(step)

    def _bind(self, step: Bind) -> None:
        e, pointer = self.e, self.memory.pointer(step.place)
        for number, name in enumerate(step.symbols):
            address = e.b.gep(pointer, [e.as_index(number)], source_etype=I64)
            self.symbols.assign(name, e.b.load(address, typ=I64))
            self._require(Require(AT_MOST, 0, symbol(name), f"{step.text} a negative size"))
            limit = f"{step.text} a size larger than any tensor's"
            self._require(Require(AT_MOST, symbol(name), MAX_BYTES, limit))

    def _require(self, step: Require) -> None:
        if step.relation == FITS:
            self.guards.fits(step.left, self.symbols.env(symbols_of(step.left)), step.text)
            return
        left, right = self.symbols.dim(step.left), self.symbols.dim(step.right)
        self.guards.require(step.relation, left, right, step.text)

    def _external(self, step: External) -> None:
        e = self.e
        pointers = e.local(POINTER, len(step.places) + 1, align=8)
        numbers = e.local(I64, max(1, len(step.arguments)), align=8)
        for position, place in enumerate(step.places):
            slot = e.b.gep(pointers, [e.as_index(position)], source_etype=POINTER)
            e.b.store(self.memory.pointer(place), slot)
        if step.text:
            slot = e.b.gep(pointers, [e.as_index(len(step.places))], source_etype=POINTER)
            e.b.store(self.guards.text(step.text), slot)
        for position, dim in enumerate(step.arguments):
            slot = e.b.gep(numbers, [e.as_index(position)], source_etype=I64)
            e.b.store(e.as_index(self.symbols.dim(dim)), slot)
        self.guards.succeeds(step.function, pointers, numbers)

    def _open(self, number: int) -> None:
        e, shape = self.e, self.plan.outputs[number].shape
        for size in (product(shape), *shape):
            if may_wrap(size):
                self.guards.fits(size, self.symbols.env(symbols_of(size)))
        dims = e.local(I64, max(1, len(shape)), align=8)
        for axis, dim in enumerate(shape):
            address = e.b.gep(dims, [e.as_index(axis)], source_etype=I64)
            e.b.store(e.as_index(self.symbols.dim(dim)), address)
        args = [self.function.args[0], e.as_index(number), dims]
        slot = self.memory.outputs[Space.HOST, number] = e.local(POINTER, align=8)
        e.b.store(self.guards.not_null(e.call("ts_rt_output", POINTER, args)), slot)

    def _call(self, step: KernelCall) -> None:
        e, planned = self.e, self.plan.kernels[step.kernel]
        kernel, function = planned.kernel, self.kernels[step.kernel]
        pointers = [self.memory.pointer(place) for place in step.places]
        if self.sanitize:
            pointers += [self.function.args[0], self._extents(step)]
        sizes = dict(zip(kernel.symbols, map(self.symbols.dim, step.sizes), strict=True))
        symbols = [e.as_index(size) for size in sizes.values()]
        count = e.as_index(parallel_count(e, kernel, planned.schedule, sizes))
        scratch = [self.scratch] if kernel.scratch_bytes else []
        direct = [*pointers, *symbols, *scratch, e.as_index(0), count]
        operations = work(planned, step.sizes)
        if operations >= MIN_CANCELLED_OPERATIONS:
            self.guards.proceed()
        if is_bare(self.module) or not is_divided(planned, operations):
            wide = zip(direct, function.args, strict=True)
            e.b.call(function, [self._as_wide(*pair) for pair in wide])
            self._unharmed()
            return
        if step.kernel not in self.divided:
            self.divided[step.kernel] = divided_call(function, planned, len(pointers), len(symbols))
        own = [self.function.args[0], self.threads, *pointers, *symbols, *scratch, count]
        e.b.call(self.divided[step.kernel], own)
        self._unharmed()

    def _as_wide(self, argument: ir.Value, parameter: ir.Argument) -> ir.Value:
        """An argument of a kernel: its numbers may be narrower than those of the plan."""
        kind = parameter.type
        return argument if argument.type == kind else self.e.b.trunc(argument, kind)

    def _unharmed(self) -> None:
        """End the run behind a kernel that touched memory outside its tensors."""
        if self.sanitize:
            status = self.e.call("ts_rt_failed", I32, [self.function.args[0]])
            self.guards.hold(self.e.b.icmp_signed("==", status, ir.Constant(I32, 0)))

    def _extents(self, step: KernelCall) -> ir.Value:
        """The sizes and names of what a call's tensors lie in."""
        found = []
        for place in step.places:
            size, name = extent_of(self.plan, place)
            if size is None:
                held = self.memory.heap_size(place)
                view = self.e.b.icmp_signed("<", held, self.e.as_index(0))  # of other memory
                held = self.e.b.select(view, self.e.as_index(MAX_BYTES), held)
                found.append((self.e.sub(held, self.symbols.dim(place.offset)), name))
            else:
                found.append((self.symbols.dim(size), name))
        return store_extents(self.e, found)

    def _branch(self, step: Branch) -> None:
        e = self.e
        chosen = self._holds(step.condition)
        with e.b.if_else(chosen) as (then, otherwise):
            with then:
                self._steps(step.then)
                for name, dim, _ in step.bound:
                    self.symbols.assign(name, self.symbols.dim(dim))
            with otherwise:
                self._steps(step.otherwise)
                for name, _, dim in step.bound:
                    self.symbols.assign(name, self.symbols.dim(dim))

    def _holds(self, condition: Place | tuple[tuple[Dim, Dim], ...]) -> ir.Value:
        b = self.e.b
        if isinstance(condition, Place):
            flag = b.load(self.memory.pointer(condition), typ=I8)
            return b.icmp_unsigned("!=", flag, ir.Constant(I8, 0))
        chosen = ir.Constant(ir.IntType(1), 1)
        for dims in condition:
            left, right = (self.e.as_index(self.symbols.dim(dim)) for dim in dims)
            chosen = b.and_(chosen, b.icmp_signed("==", left, right))
        return chosen

    def _repeat(self, step: Repeat) -> None:
        e = self.e
        if isinstance(step.count, Place):
            count: Int = e.b.load(self.memory.pointer(step.count), typ=I64)
        else:
            count = self.symbols.dim(step.count)
        count = e.as_index(count)
        self.symbols.assign(step.counter, 0)
        header, body, after = (
            self.function.append_basic_block(name) for name in ("rounds", "round", "done")
        )
        e.b.branch(header)
        e.b.position_at_end(header)
        index = e.as_index(self.symbols.env({step.counter})[step.counter])
        going = e.b.icmp_signed("<", index, count)
        if step.condition is not None:
            flag = e.b.load(self.memory.pointer(step.condition), typ=I8)
            going = e.b.and_(going, e.b.icmp_unsigned("!=", flag, ir.Constant(I8, 0)))
        e.b.cbranch(going, body, after)
        e.b.position_at_end(body)
        self.guards.proceed(index if step.text else None, step.text)
        self._steps(step.body)
        now = self.symbols.env({step.counter})[step.counter]
        self.symbols.assign(step.counter, e.add(now, 1))
        e.b.branch(header)
        e.b.position_at_end(after)


def emit_plan(module: ir.Module, plan: Plan, symbol: str, sanitize: bool = False) -> None:
    """Define the plan's function, and every kernel it calls, in the module.

    sanitize: accesses of kernels are checked at run time (see `sanitize.py`).
    """
    PlanEmitter(module, plan, symbol, sanitize).emit()
