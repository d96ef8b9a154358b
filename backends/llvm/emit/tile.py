"""Evaluation of scalar expressions over a register tile of rows x vectors.

A value is computed once per row, per vector, per both or once for the tile, as its indices
require: what all rows share is loaded once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce

from llvmlite import ir

from ....compiler.errors import InternalError
from ....compiler.ir.dims import Dim, symbols_of
from ....compiler.ir.types import DType
from ....compiler.kernel import expr as ex
from ....compiler.kernel.expr import Expr, Load
from ....compiler.kernel.schedule.transposing import rows_of_piece
from . import scalar
from .access import Lanes, index_value, lane_indices
from .addresses import TileAddresses
from .builder import is_vector, literal, scalar_type
from .byte_table import looked_up, lookup_width
from .math import VECTORISED
from .several import for_several
from .shape import Guard, Slot, symbols_in
from .step_lanes import StepLanes
from .transpose import lanes_read, load_rows, piece_of


@dataclass
class Tile(TileAddresses):
    """Emits expressions for one tile."""

    dummy: ir.Value = field(kw_only=True)  # memory that may always be read
    abreast: int = field(kw_only=True)  # transcendental functions that are computed side by side
    accumulators: dict[tuple[int, int, int], ir.Value] = field(default_factory=dict)
    # where results that wait in memory lie: buffer, offset of the first lane
    stored: dict[tuple[int, int, int], tuple[ir.Value, int]] = field(default_factory=dict)
    memo: dict[object, ir.Value] = field(default_factory=dict)
    together: StepLanes | None = None  # neighbouring steps whose operands are loaded at once

    def begin_step(self) -> None:
        """Forget values of the last reduction step."""
        self.memo = {}
        self.offsets = {}

    # expressions ---------------------------------------------------------------------------

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
