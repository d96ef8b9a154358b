"""Emission of a plan as the function `int32_t plan(ts_frame *)` of runtime/plan_abi.h."""

from __future__ import annotations

from collections.abc import Sequence

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.assumptions import AT_MOST, FITS, may_wrap
from ....compiler.ir.dims import Dim, product, size_of, symbol, symbols_of
from ....compiler.kernel.plan.plan import (
    Allocate,
    Assign,
    Bind,
    Branch,
    External,
    KernelCall,
    OpenOutput,
    Place,
    Plan,
    Repeat,
    Require,
    Space,
    Step,
    View,
)
from .access import index_value
from .builder import I8, I32, I64, POINTER, VOID, Emitter, Int
from .guards import MAX_BYTES, Guards
from .kernel_function import emit_kernel, parallel_count
from .sanitize import extent_of, store_extents
from .thread_parts import part_wrapper
from .work import work

FRAME = ir.LiteralStructType([POINTER, POINTER, POINTER, I64, POINTER, POINTER, I64])
MIN_CANCELLED_OPERATIONS = 1_000_000  # of a call before which a run may be cancelled
INPUTS, SYMBOLS, WEIGHTS, THREADS, INSTANCE, STOP, MAX_TRIPS = range(7)


class PlanEmitter:
    """Emits one plan and its kernels into a module. sanitize: with checks of every access."""

    def __init__(self, module: ir.Module, plan: Plan, symbol: str, sanitize: bool = False) -> None:
        self.module = module
        self.plan = plan
        self.sanitize = sanitize
        self.kernels = [
            emit_kernel(module, k.symbol, k.kernel, k.schedule, k.aliased, sanitize)
            for k in plan.kernels
        ]
        for function in self.kernels:
            function.linkage = "internal"
            function.attributes.add("noinline")
        kind = ir.FunctionType(I32, [POINTER])
        self.function = ir.Function(module, kind, symbol)
        self.e = Emitter(module, self.function)
        self.slots: dict[str, ir.Value] = {}
        self.heap: dict[int, ir.Value] = {}
        self.heap_bytes: dict[int, ir.Value] = {}
        self.outputs: dict[int, ir.Value] = {}
        self.wrappers: dict[int, ir.Function] = {}
        self.inputs: list[ir.Value] = []
        self.offsets: dict[Dim, Int] = {}

    def emit(self) -> None:
        """Emit the whole plan."""
        e, frame = self.e, self.function.args[0]
        failed = self.function.append_basic_block("failed")
        self.guards = Guards(e, frame, failed)
        body = self.function.append_basic_block("body")
        e.b.branch(body)
        e.b.position_at_end(body)
        table = self._field(INPUTS, POINTER)
        for number in range(len(self.plan.inputs)):
            address = e.b.gep(table, [e.i64(number)], source_etype=POINTER)
            self.inputs.append(e.b.load(address, typ=POINTER))
        symbols = self._field(SYMBOLS, POINTER)
        held: dict[str, Int] = {}
        for number, name in enumerate(self.plan.symbols):
            address = e.b.gep(symbols, [e.i64(number)], source_etype=I64)
            held[name] = e.b.load(address, typ=I64)
            self._set(name, held[name])
        e.hold(held)
        self.weights = self._field(WEIGHTS, POINTER)
        self.threads = self._field(THREADS, I64)
        self.guards.stop = self._field(STOP, POINTER)
        self.guards.max_trips = self._field(MAX_TRIPS, I64)
        first = [s for s in self.plan.steps if isinstance(s, Require) and self._is_early(s)]
        self._steps(first)
        self.arena: ir.Value | None = None
        scratch = max((k.kernel.scratch_bytes for k in self.plan.kernels), default=0)
        if self.plan.arena or scratch:
            self.guards.fits(self.plan.arena_bytes, self._env(set(self.plan.symbols)))
            tensors = self._dim(self.plan.arena_bytes)
            size = e.i64(e.add(tensors, e.mul(self.threads, scratch)))
            self.arena = self.guards.not_null(e.call("ts_rt_arena", POINTER, [frame, size]))
            self.scratch = e.b.gep(self.arena, [e.i64(tensors)], source_etype=I8)
            self._arena_offsets()
        self._steps([step for step in self.plan.steps if step not in first])
        e.b.ret(ir.Constant(I32, 0))
        e.b.position_at_end(failed)
        e.b.ret(ir.Constant(I32, 1))

    def _is_early(self, step: Require) -> bool:
        """Whether the inputs' shapes decide it: then it comes before memory is sized by them."""
        return symbols_of(step.left) | symbols_of(step.right) <= set(self.plan.symbols)

    def _arena_offsets(self) -> None:
        """Compute every offset in the arena once, each from the one before it."""
        before: Dim = 0
        value: Int = 0
        for buffer in sorted(self.plan.arena, key=lambda b: size_of(b.offset)):
            if buffer.offset not in self.offsets:
                value = self.e.add(value, self._dim(buffer.offset - before))
                before = buffer.offset
                self.offsets[before] = value

    # values --------------------------------------------------------------------------------

    def _field(self, number: int, type_: ir.Type) -> ir.Value:
        where = [ir.Constant(I32, 0), ir.Constant(I32, number)]
        address = self.e.b.gep(self.function.args[0], where, source_etype=FRAME)
        return self.e.b.load(address, typ=type_)

    def _set(self, name: str, value: Int) -> None:
        if name not in self.slots:
            self.slots[name] = self.e.local(I64, align=8)
        self.e.b.store(self.e.i64(value), self.slots[name])

    def _env(self, names: frozenset[str] | set[str]) -> dict[str, Int]:
        missing = [name for name in names if name not in self.slots]
        if missing:
            raise InternalError(f"the symbolic dimension(s) {missing} are used before they are set")
        held = self.e.held
        return {
            name: held[name] if name in held else self.e.b.load(self.slots[name], typ=I64)
            for name in sorted(names)
        }

    def _dim(self, dim: Dim) -> Int:
        return index_value(self.e, dim, self._env(symbols_of(dim)))

    def _pointer(self, place: Place) -> ir.Value:
        base, offset = self._base(place)
        total = self.e.add(offset, self._dim(place.offset))
        if isinstance(total, int) and total == 0:
            return base
        return self.e.b.gep(base, [self.e.i64(total)], source_etype=I8)

    def _base(self, place: Place) -> tuple[ir.Value, Int]:
        if place.space is not Space.HOST:
            raise InternalError(f"the host has no address for {place}")
        if place.kind == "input":
            return self.inputs[place.number], 0
        if place.kind == "output":
            return self.e.b.load(self.outputs[place.number], typ=POINTER), 0
        if place.kind == "weights":
            return self.weights, self.plan.weights[place.number].offset
        if place.kind == "heap":
            return self.e.b.load(self.heap[place.number], typ=POINTER), 0
        return self.arena, self.offsets[self.plan.arena[place.number].offset]

    # steps ---------------------------------------------------------------------------------

    def _steps(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case KernelCall():
                    self._call(step)
                case Bind():
                    self._bind(step)
                case Require():
                    self._require(step)
                case External():
                    self._external(step)
                case OpenOutput(number=number):
                    self._open(number)
                case Allocate():
                    self._allocate(step)
                case Assign(symbols=names, dims=dims):
                    values = [self._dim(dim) for dim in dims]
                    for name, value in zip(names, values, strict=True):
                        self._set(name, value)
                case Branch():
                    self._branch(step)
                case View(number=number, source=source):
                    self._reserve(number)
                    self.e.b.store(self._pointer(source), self.heap[number])
                case Repeat():
                    self._repeat(step)

    def _bind(self, step: Bind) -> None:
        e, pointer = self.e, self._pointer(step.place)
        for number, name in enumerate(step.symbols):
            address = e.b.gep(pointer, [e.i64(number)], source_etype=I64)
            self._set(name, e.b.load(address, typ=I64))
            self._require(Require(AT_MOST, 0, symbol(name), f"{step.text} a negative size"))
            limit = f"{step.text} a size larger than any tensor's"
            self._require(Require(AT_MOST, symbol(name), MAX_BYTES, limit))

    def _require(self, step: Require) -> None:
        if step.relation == FITS:
            self.guards.fits(step.left, self._env(symbols_of(step.left)), step.text)
            return
        left, right = self._dim(step.left), self._dim(step.right)
        self.guards.require(step.relation, left, right, step.text)

    def _allocate(self, step: Allocate) -> None:
        e = self.e
        self._reserve(step.number)
        slot, held_slot = self.heap[step.number], self.heap_bytes[step.number]
        self.guards.fits(step.size, self._env(symbols_of(step.size)))
        wanted, keep = e.i64(self._dim(step.size)), self._dim(step.keep)
        held = e.b.load(held_slot, typ=I64)
        with e.when(e.b.icmp_signed(">", wanted, held)):
            size = e.i64(e.minmax("max", wanted, e.mul(held, 2)))
            memory = self.guards.not_null(
                e.call("ts_rt_alloc", POINTER, [self.function.args[0], size])
            )
            if keep != 0:
                volatile = ir.Constant(ir.IntType(1), 0)
                old = e.b.load(slot, typ=POINTER)
                e.call("llvm.memcpy.p0.p0.i64", VOID, [memory, old, e.i64(keep), volatile])
            e.b.store(memory, slot)
            e.b.store(size, held_slot)

    def _reserve(self, number: int) -> None:
        """Variables for the address and the size of heap memory, that at first is none."""
        if number in self.heap:
            return
        e = self.e
        self.heap[number] = e.local(POINTER, align=8)
        self.heap_bytes[number] = e.local(I64, align=8)
        with e.b.goto_block(e.entry):
            e.b.position_before(e.entry.terminator)
            e.b.store(ir.Constant(POINTER, None), self.heap[number])
            e.b.store(e.i64(-1), self.heap_bytes[number])

    def _external(self, step: External) -> None:
        e = self.e
        pointers = e.local(POINTER, len(step.places) + 1, align=8)
        numbers = e.local(I64, max(1, len(step.arguments)), align=8)
        for position, place in enumerate(step.places):
            slot = e.b.gep(pointers, [e.i64(position)], source_etype=POINTER)
            e.b.store(self._pointer(place), slot)
        if step.text:
            slot = e.b.gep(pointers, [e.i64(len(step.places))], source_etype=POINTER)
            e.b.store(self.guards.text(step.text), slot)
        for position, dim in enumerate(step.arguments):
            slot = e.b.gep(numbers, [e.i64(position)], source_etype=I64)
            e.b.store(e.i64(self._dim(dim)), slot)
        status = e.call(step.function, I32, [self.function.args[0], pointers, numbers])
        self.guards.hold(e.b.icmp_signed("==", status, ir.Constant(I32, 0)))

    def _open(self, number: int) -> None:
        e, shape = self.e, self.plan.outputs[number].shape
        for size in (product(shape), *shape):
            if may_wrap(size):
                self.guards.fits(size, self._env(symbols_of(size)))
        dims = e.local(I64, max(1, len(shape)), align=8)
        for axis, dim in enumerate(shape):
            address = e.b.gep(dims, [e.i64(axis)], source_etype=I64)
            e.b.store(e.i64(self._dim(dim)), address)
        args = [self.function.args[0], e.i64(number), dims]
        self.outputs[number] = e.local(POINTER, align=8)
        e.b.store(self.guards.not_null(e.call("ts_rt_output", POINTER, args)), self.outputs[number])

    def _call(self, step: KernelCall) -> None:
        e, planned = self.e, self.plan.kernels[step.kernel]
        kernel, function = planned.kernel, self.kernels[step.kernel]
        pointers = [self._pointer(place) for place in step.places]
        if self.sanitize:
            pointers += [self.function.args[0], self._extents(step)]
        sizes = dict(zip(kernel.symbols, map(self._dim, step.sizes), strict=True))
        symbols = [e.i64(size) for size in sizes.values()]
        count = e.i64(parallel_count(e, kernel, planned.schedule, sizes))
        scratch = [self.scratch] if kernel.scratch_bytes else []
        direct = [*pointers, *symbols, *scratch, e.i64(0), count]
        operations, schedule = work(planned, step.sizes), planned.schedule
        if operations >= MIN_CANCELLED_OPERATIONS:
            self.guards.proceed()
        if operations < schedule.fork or not (kernel.shared or schedule.parallel):
            e.b.call(function, direct)
            self._unharmed()
            return
        alone = e.b.icmp_signed("==", self.threads, e.i64(1))
        with e.b.if_else(alone) as (then, otherwise):
            with then:
                e.b.call(function, direct)
            with otherwise:
                self._fork(step.kernel, pointers, symbols, count)
        self._unharmed()

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
                held = self.e.b.load(self.heap_bytes[place.number], typ=I64)
                view = self.e.b.icmp_signed("<", held, self.e.i64(0))  # of other memory
                held = self.e.b.select(view, self.e.i64(MAX_BYTES), held)
                found.append((self.e.sub(held, self._dim(place.offset)), name))
            else:
                found.append((self._dim(size), name))
        return store_extents(self.e, found)

    def _fork(
        self, number: int, pointers: list[ir.Value], symbols: list[ir.Value], count: ir.Value
    ) -> None:
        """Share the kernel's parallel iterations among the threads."""
        e = self.e
        values = pointers + symbols
        if self.plan.kernels[number].kernel.scratch_bytes:
            values = [*values, self.scratch]
        args = e.local(I64, len(values), align=8)
        for position, value in enumerate(values):
            e.b.store(value, e.b.gep(args, [e.i64(position)], source_etype=I64))
        if number not in self.wrappers:
            planned = self.plan.kernels[number]
            self.wrappers[number] = part_wrapper(
                self.kernels[number], planned, len(pointers), len(symbols)
            )
        wrapper = self.wrappers[number]
        e.call("ts_rt_parallel", VOID, [self.function.args[0], wrapper, args, count])

    def _branch(self, step: Branch) -> None:
        e = self.e
        chosen = self._holds(step.condition)
        with e.b.if_else(chosen) as (then, otherwise):
            with then:
                self._steps(step.then)
                for name, dim, _ in step.bound:
                    self._set(name, self._dim(dim))
            with otherwise:
                self._steps(step.otherwise)
                for name, _, dim in step.bound:
                    self._set(name, self._dim(dim))

    def _holds(self, condition: Place | tuple[tuple[Dim, Dim], ...]) -> ir.Value:
        b = self.e.b
        if isinstance(condition, Place):
            flag = b.load(self._pointer(condition), typ=I8)
            return b.icmp_unsigned("!=", flag, ir.Constant(I8, 0))
        chosen = ir.Constant(ir.IntType(1), 1)
        for dims in condition:
            left, right = (self.e.i64(self._dim(dim)) for dim in dims)
            chosen = b.and_(chosen, b.icmp_signed("==", left, right))
        return chosen

    def _repeat(self, step: Repeat) -> None:
        e = self.e
        if isinstance(step.count, Place):
            count: Int = e.b.load(self._pointer(step.count), typ=I64)
        else:
            count = self._dim(step.count)
        count = e.i64(count)
        self._set(step.counter, 0)
        header, body, after = (
            self.function.append_basic_block(name) for name in ("rounds", "round", "done")
        )
        e.b.branch(header)
        e.b.position_at_end(header)
        index = e.i64(self._env({step.counter})[step.counter])
        going = e.b.icmp_signed("<", index, count)
        if step.condition is not None:
            flag = e.b.load(self._pointer(step.condition), typ=I8)
            going = e.b.and_(going, e.b.icmp_unsigned("!=", flag, ir.Constant(I8, 0)))
        e.b.cbranch(going, body, after)
        e.b.position_at_end(body)
        self.guards.proceed(index if step.text else None, step.text)
        self._steps(step.body)
        now = self._env({step.counter})[step.counter]
        self._set(step.counter, e.add(now, 1))
        e.b.branch(header)
        e.b.position_at_end(after)


def emit_plan(module: ir.Module, plan: Plan, symbol: str, sanitize: bool = False) -> None:
    """Define the plan's function, and every kernel it calls, in the module.

    sanitize: accesses of kernels are checked at run time (see `sanitize.py`).
    """
    PlanEmitter(module, plan, symbol, sanitize).emit()
