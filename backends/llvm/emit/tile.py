"""Evaluation of scalar expressions over a register tile of rows x vectors.

A value is computed once per row, per vector, per both or once for the tile, as its indices
require: what all rows share is loaded once. Addresses that are affine in the reduction axes are
split into a base pointer, computed before the reduction loops, and a step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import reduce

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Dim, coefficient, symbols_of
from ....compiler.ir.types import DType
from ....compiler.kernel import expr as ex
from ....compiler.kernel.axis_names import panel_base, start_of
from ....compiler.kernel.expr import Expr, Load
from ....compiler.kernel.kernel import Store
from ....compiler.kernel.schedule.transposing import rows_of_piece
from . import scalar
from .access import Lanes, index_value, lane_indices
from .builder import POINTER, Emitter, is_vector, literal, memory_type, scalar_type
from .byte_table import looked_up, lookup_width
from .indices import Int
from .math import VECTORISED
from .several import for_several
from .shape import Access, Address, Guard, Shape, Slot, symbols_in
from .step_lanes import StepLanes
from .transpose import lanes_read, load_rows, piece_of


@dataclass
class Tile:
    """Emits expressions for one tile. env: values of axes (tile bases) and symbolic dims."""

    e: Emitter
    shape: Shape
    buffers: Mapping[str, ir.Value]
    env: dict[str, Int]
    inner: tuple[str, ...]  # reduction axes: they change inside the tile
    dummy: ir.Value  # memory that may always be read
    abreast: int  # transcendental functions that are computed side by side
    accumulators: dict[tuple[int, int, int], ir.Value] = field(default_factory=dict)
    # where results that wait in memory lie: buffer, offset of the first lane
    stored: dict[tuple[int, int, int], tuple[ir.Value, int]] = field(default_factory=dict)
    moved: dict[str, Int] = field(default_factory=dict)  # steps of the inner axes since `prepare`
    addresses: dict[int, Address | None] = field(default_factory=dict)
    keep: list[Expr | Store] = field(default_factory=list)  # ids stay valid while these live
    memo: dict[object, ir.Value] = field(default_factory=dict)
    offsets: dict[object, Int] = field(default_factory=dict)
    dependences: ex.Dependences = field(default_factory=ex.Dependences)
    guard: Guard = field(default_factory=Guard)
    together: StepLanes | None = None  # neighbouring steps whose operands are loaded at once

    # addresses -----------------------------------------------------------------------------

    def advance(self, axis: str, step: Int) -> None:
        """Be at a step of an inner axis, counted from where the loop over it begins."""
        self.moved[axis] = step
        self.env[axis] = self.e.add(self._first(axis), step)

    def _first(self, axis: str) -> Int:
        """Where the loop over an inner axis begins: 0, but for the blocks of a sum."""
        return self.env.get(start_of(axis), 0)

    def prepare(self, accesses: Iterable[Expr | Store]) -> None:
        """Compute base addresses of stores and affine loads here, before the loops that follow."""
        for access in accesses:
            parts = [access] if isinstance(access, Store) else ex.walk(access)
            for part in parts:
                if isinstance(part, Load | Store) and id(part) not in self.addresses:
                    self.keep.append(part)
                    self.addresses[id(part)] = self.split(part)

    def split(self, access: Load | Store) -> Address | None:
        """The address where it is affine in the tile's and inner axes, or looked up; else None."""
        if any(isinstance(access, Store) or any(self.depends(i)) for i, _ in access.dynamic):
            return None
        base_name = panel_base(self.shape.vector) if self.shape.panel else ""
        moving = [name for name in (self.shape.row, self.shape.vector, base_name) if name]
        names = list(dict.fromkeys([*moving, *self.inner]))
        factors = {name: coefficient(access.offset, name) for name in names}
        if any(factor is None for factor in factors.values()):
            return None
        first = {name: self._first(name) for name in self.inner}
        base = self._element(replace(access, dynamic=()), {**self.env, **first}, (0, 0))
        looked = tuple((i, index_value(self.e, by, self.env)) for i, by in access.dynamic)
        values = {
            name: index_value(self.e, factor, self.env)
            for name, factor in factors.items()
            if factor is not None and factor != 0
        }
        steps = tuple((name, values[name]) for name in self.inner if name in values)
        row, vector = values.get(self.shape.row, 0), values.get(self.shape.vector, 0)
        return Address(base, row, vector, steps, values.get(base_name, 0), looked)

    def reach(self, access: Load | Store, slot: Slot, wide: bool) -> Access:
        """Where a slot's elements are; wide: one for each lane, not one for all."""
        lanes = self.shape.lanes if wide else 1
        address = self.addresses.get(id(access))
        if address is not None and (lanes == 1 or address.vector == 1):
            return Access(self.point(address, access.buffer.dtype, slot), lanes)
        env = self.slot_env(slot)
        runs = self.dependences.runs(access.offset, access.dynamic, self.shape.vector)
        if lanes == 1 or runs:
            return Access(self._element(access, env, slot), lanes)
        return Access(self._elements(access, env, slot), lanes, apart=True)

    def _element(self, access: Load | Store, env: Mapping[str, Int], slot: Slot) -> ir.Value:
        """The address of one element, its indices as the environment says."""
        e = self.e
        offset = index_value(e, access.offset, env)
        for index, stride in access.dynamic:
            moved = scalar.cast(e, self.value(index, slot), index.dtype, e.index_dtype)
            offset = e.add(offset, e.mul(moved, index_value(e, stride, env)))
        return e.pointer(self.buffers[access.buffer.name], offset, access.buffer.dtype)

    def _elements(self, access: Load | Store, env: Mapping[str, Int], slot: Slot) -> ir.Value:
        """One address per lane, for gathers and scatters."""
        e, lanes = self.e, self.shape.lanes
        offsets = lane_indices(e, access.offset, env, Lanes(self.shape.vector, lanes))
        for index, stride in access.dynamic:
            moved = scalar.cast(e, self.value(index, slot), index.dtype, e.index_dtype)
            factor = e.splat(e.as_index(index_value(e, stride, env)), lanes)
            offsets = e.b.add(offsets, e.b.mul(e.splat(moved, lanes), factor))
        base = e.splat(self.buffers[access.buffer.name], lanes)
        pointers = e.b.gep(base, [offsets], source_etype=memory_type(access.buffer.dtype))
        pointers.type = ir.VectorType(POINTER, lanes)
        return pointers

    def point(self, address: Address, dtype: DType, slot: Slot) -> ir.Value:
        """Pointer to the element of a slot at the present inner axes."""
        e, (r, v) = self.e, slot
        offset = self._along_inner(address)
        offset = e.add(offset, self._along_rows(address, r))
        offset = e.add(offset, e.mul(address.vector, v * self.shape.lanes))
        offset = e.add(offset, e.mul(address.panel, self.shape.panel_start(v)))
        return e.pointer(address.base, offset, dtype)

    def _along_inner(self, address: Address) -> Int:
        """How far the inner axes have moved, the same for all slots of a step."""
        key = ("inner", id(address))
        if key not in self.offsets:
            offset: Int = 0
            for name, factor in address.steps:
                offset = self.e.add(offset, self.e.mul(self.moved[name], factor))
            for index, factor in address.looked:
                at = scalar.cast(self.e, self.value(index, (0, 0)), index.dtype, self.e.index_dtype)
                offset = self.e.add(offset, self.e.mul(at, factor))
            self.offsets[key] = offset
        return self.offsets[key]

    def _along_rows(self, address: Address, r: int) -> Int:
        if isinstance(address.row, int) or not r:
            return self.e.mul(address.row, r)
        key = ("row", id(address), r)
        if key not in self.offsets:
            self.offsets[key] = self.e.mul(address.row, r)
        return self.offsets[key]

    def begin_step(self) -> None:
        """Forget values of the last reduction step."""
        self.memo = {}
        self.offsets = {}

    def slot_env(self, slot: Slot) -> dict[str, Int]:
        """The environment with the axes at a slot (of a vector: at its lane 0)."""
        env = dict(self.env)
        if self.shape.row and slot[0]:
            env[self.shape.row] = self.e.add(env[self.shape.row], slot[0])
        if self.shape.vector and slot[1]:
            step = slot[1] * self.shape.lanes
            env[self.shape.vector] = self.e.add(env[self.shape.vector], step)
            if self.shape.panel:
                name, start = panel_base(self.shape.vector), self.shape.panel_start(slot[1])
                env[name] = self.e.add(env[name], start)
        return env

    # expressions ---------------------------------------------------------------------------

    def depends(self, expression: Expr) -> tuple[bool, bool]:
        """Whether the expression differs between rows, and between vectors."""
        names, accumulates = self.dependences.of(expression)
        row, vector = self.shape.row, self.shape.vector
        return accumulates or row in names, accumulates or vector in names

    def value(self, expression: Expr, slot: Slot) -> ir.Value:
        """The expression at a slot; scalar when it is the same in all lanes."""
        by_row, by_vector = self.depends(expression)
        key = (
            id(expression), slot[0] if by_row else -1, slot[1] if by_vector else -1, self.guard.key
        )  # fmt: skip
        found = self.memo.get(key)
        if found is None:
            found = self._emit(expression, slot)
            self.memo[key] = found
        return found

    def vector_value(self, expression: Expr, slot: Slot) -> ir.Value:
        """The expression with all lanes filled."""
        value = self.value(expression, slot)
        return self.e.splat(value, self.shape.lanes) if self.shape.vector else value

    def _emit(self, expression: Expr, slot: Slot) -> ir.Value:
        e = self.e
        match expression:
            case ex.Const(value=value, dtype=dtype):
                return e.constant(literal(value, dtype), scalar_type(dtype))
            case ex.IndexValue(index=index, dtype=dtype):
                return scalar.cast(e, self._index(index, slot), e.index_dtype, dtype)
            case ex.Load():
                return self._load(expression, slot)
            case ex.Apply(op="byte_table", args=(_, ex.Load() as table)):
                return self._looked_up(expression, table, slot)
            case ex.Apply(op=op, args=args, dtype=dtype, exact=exact):
                if op in VECTORISED and dtype is DType.F32:
                    return self._abreast(expression, slot)
                values = self._alike([self.value(arg, slot) for arg in args])
                return scalar.apply(e, op, values, [arg.dtype for arg in args], dtype, exact)
            case ex.Guarded():
                return self._guarded(expression, slot)
            case ex.Acc(position=position, dtype=dtype):
                if (position, *slot) not in self.stored:
                    return self.accumulators[(position, *slot)]
                memory, offset = self.stored[(position, *slot)]
                return e.load(e.pointer(memory, offset, dtype), dtype, self.shape.lanes)
        raise InternalError(f"no code for {expression}")

    def _abreast(self, expression: ex.Apply, slot: Slot) -> ir.Value:
        """A transcendental function for this slot and for those after it that need their own.

        Such a function is a long chain of operations that wait for each other, and a processor
        looks ahead no further than two or three of them: several are emitted operation by
        operation, as one on wider vectors.
        """
        kind = expression.args[0].dtype

        def apply(x: ir.Value, count: int) -> ir.Value:
            with self.e.side_by_side(count):
                return scalar.apply(self.e, expression.op, [x], [kind], DType.F32)

        return for_several(self, expression, slot, self.abreast, apply)

    def _looked_up(self, expression: ex.Apply, table: Load, slot: Slot) -> ir.Value:
        """What a table has for this slot, and for as many after it as are looked up at once."""
        where = self.reach(table, slot, False).pointer
        shared = not any(self.depends(table))
        most = lookup_width(self.e) // self.shape.lanes if shared else 1
        return for_several(self, expression, slot, most, lambda x, _: looked_up(self.e, x, where))

    def _alike(self, values: list[ir.Value]) -> list[ir.Value]:
        """All values as vectors when one is."""
        lanes = next((value.type.count for value in values if is_vector(value)), 1)
        return [self.e.splat(value, lanes) for value in values]

    def _index(self, index: Dim, slot: Slot) -> ir.Value:
        env, vector = self.slot_env(slot), self.shape.vector
        if vector and self.shape.lanes > 1 and vector in symbols_of(index):
            return lane_indices(self.e, index, env, Lanes(vector, self.shape.lanes))
        return self.e.as_index(index_value(self.e, index, env))

    def _load(self, load: Load, slot: Slot) -> ir.Value:
        _, by_vector = self.depends(load)
        if by_vector and self._is_transposed(load):
            return self._transposed(load, slot)
        where = self.reach(load, slot, by_vector)
        if where.apart:
            mask = self._live(slot, gather=True)
            return self.e.gather(where.pointer, load.dtype, mask, load.buffer.name)
        if self.together and where.lanes == 1 and self.guard.scalar is None:
            address = self.addresses.get(id(load))
            value = self.together.value(self.e, load, address, slot[0], where.pointer)
            if value is not None:
                return value
        pointer = self._safe(where.pointer)
        mask = self._live(slot) if where.lanes > 1 else None
        return self.e.load(pointer, load.dtype, where.lanes, mask, load.buffer.name)

    def _is_transposed(self, load: Load) -> bool:
        """Whether its rows, not its lanes, are neighbours in memory, and may all be read."""
        address, shape = self.addresses.get(id(load)), self.shape
        if address is None or address.row != 1 or address.vector == 1:
            return False
        if shape.rows == 1 or shape.lanes == 1:
            return False
        guarded = self.guard.scalar is not None or self.guard.lanes is not None
        return not (guarded or self.inner or self.accumulators or self.stored)

    def _transposed(self, load: Load, slot: Slot) -> ir.Value:
        """A row, loaded together with a few others and transposed in registers."""
        shape, v = self.shape, slot[1]
        most = min(shape.lanes, rows_of_piece(load.dtype.bytes))
        first, rows = piece_of(slot[0], shape.rows, most)
        if (key := ("row", id(load), *slot)) not in self.memo:
            address = self.addresses[id(load)]
            assert address is not None
            start = self.point(address, load.dtype, (first, v))
            lanes = lanes_read(self.e, shape, v)
            values = load_rows(self.e, start, address.vector, load.buffer, rows, lanes)
            for r, value in enumerate(values, first):
                self.memo[("row", id(load), r, v)] = value
        return self.memo[key]

    # guards --------------------------------------------------------------------------------

    def _safe(self, pointer: ir.Value) -> ir.Value:
        if self.guard.scalar is None:
            return pointer
        return self.e.b.select(self.guard.scalar, pointer, self.dummy)

    def _live(self, slot: Slot, *, gather: bool = False) -> ir.Value | None:
        masks = [m for m in (self.shape.mask_of(slot[1]), self.guard.lanes) if m is not None]
        if gather and self.guard.scalar is not None:
            masks.append(self.e.splat(self.guard.scalar, self.shape.lanes))
        return reduce(self.e.b.and_, masks) if masks else None

    def _guarded(self, expression: ex.Guarded, slot: Slot) -> ir.Value:
        e, outer = self.e, self.guard
        names = symbols_in(expression.bounds)
        place = (
            slot[0] if self.shape.row in names else outer.place[0],
            slot[1] if self.shape.vector in names else outer.place[1],
        )
        key = (*outer.key, id(expression), *place)
        scalar_test, lane_test = self.tests(expression.bounds, slot)
        if scalar_test is False:
            return self.value(expression.other, slot)
        tests = [t for t in (scalar_test, lane_test) if isinstance(t, ir.Value)]
        if not tests:
            return self.value(expression.value, slot)
        self.guard = Guard(
            self.both(outer.scalar, scalar_test if isinstance(scalar_test, ir.Value) else None),
            self.both(outer.lanes, lane_test),
            key,
            place,
        )
        inside = self.value(expression.value, slot)
        self.guard = outer
        other = self.value(expression.other, slot)
        lanes = next(
            (t for t in (lane_test, inside, other) if t is not None and is_vector(t)), None
        )
        if lanes is not None:
            inside = e.splat(inside, lanes.type.count)
            other = e.splat(other, lanes.type.count)
        for test in tests:
            inside = e.b.select(test, inside, other)
        return inside

    def common_test(self, bounds: tuple[ex.Bound, ...]) -> ir.Value | None:
        """The conjunction of bounds where it is one scalar for all slots and known at run time."""
        if symbols_in(bounds) & {self.shape.row, self.shape.vector}:
            return None
        test, _ = self.tests(bounds, (0, 0))
        return None if isinstance(test, bool) else test

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Values that are found within are forgotten: the code is one branch of several."""
        memo, offsets = dict(self.memo), dict(self.offsets)
        yield
        self.memo, self.offsets = memo, offsets

    def both(self, a: ir.Value | None, b: ir.Value | None) -> ir.Value | None:
        """The conjunction of two conditions; None holds always."""
        if a is None or b is None:
            return a if b is None else b
        return self.e.b.and_(a, b)

    def tests(
        self, bounds: tuple[ex.Bound, ...], slot: Slot
    ) -> tuple[ir.Value | bool, ir.Value | None]:
        """The conjunction of bounds: its scalar part (False when known false) and lane part."""
        e, env = self.e, self.slot_env(slot)
        scalar_test: ir.Value | bool = True
        lane_test: ir.Value | None = None
        for bound in bounds:
            if self.shape.vector in symbols_in([bound]) and self.shape.lanes > 1:
                lanes = Lanes(self.shape.vector, self.shape.lanes)
                index, low, high = (
                    lane_indices(e, d, env, lanes) for d in (bound.index, bound.low, bound.high)
                )
                test = e.b.and_(
                    e.b.icmp_signed(">=", index, low), e.b.icmp_signed("<", index, high)
                )
                lane_test = self.both(lane_test, test)
                continue
            i, lo, hi = (index_value(e, d, env) for d in (bound.index, bound.low, bound.high))
            if isinstance(i, int) and isinstance(lo, int) and isinstance(hi, int):
                if not lo <= i < hi:
                    return False, None
                continue
            inside = e.b.icmp_unsigned("<", e.as_index(e.sub(i, lo)), e.as_index(e.sub(hi, lo)))
            scalar_test = inside if scalar_test is True else e.b.and_(scalar_test, inside)
        return scalar_test, lane_test
