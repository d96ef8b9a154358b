"""Emission of one stage: its loops, register tiles, reductions and stores."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from llvmlite import ir

from ...compiler.ir.types import DType
from ...compiler.kernel import expr as ex
from ...compiler.kernel.kernel import Axis, Reduction, Stage, Store
from ...compiler.kernel.schedule import MAX_UNROLLED, StageSchedule
from . import scalar
from .access import index_value
from .builder import CONTRACT, I1, Emitter, Int, intrinsic_suffix, scalar_type
from .tile import Shape, Slot, Tile

MAX_TILE_STEPS = 256  # fused multiply-adds that a fully unrolled reduction may write out


class StageEmitter:
    """Emits a stage given the values of the axes that are bound already (`env`)."""

    def __init__(
        self,
        e: Emitter,
        stage: Stage,
        schedule: StageSchedule,
        buffers: Mapping[str, ir.Value],
        dummy: ir.Value,
    ) -> None:
        self.e = e
        self.stage = stage
        self.schedule = schedule
        self.buffers = buffers
        self.dummy = dummy
        self.axes = {axis.name: axis for axis in stage.axes + stage.reduce_axes}

    # parallel loops ------------------------------------------------------------------------

    def tile_size(self, name: str) -> int:
        """Steps of an axis that one tile covers."""
        if name == self.schedule.vector and name in {a.name for a in self.stage.axes}:
            return self.schedule.lanes * self.schedule.vectors
        return self.schedule.rows if name == self.schedule.row else 1

    def extent(self, name: str, env: Mapping[str, Int]) -> Int:
        """The axis' length."""
        return index_value(self.e, self.axes[name].extent, env)

    def tiles(self, name: str, env: Mapping[str, Int]) -> Int:
        """How many tiles cover the axis."""
        size, extent = self.tile_size(name), self.extent(name, env)
        return self.e.floordiv(self.e.add(extent, size - 1), size)

    def loops(self, order: Sequence[str], env: dict[str, Int]) -> None:
        """Loop over the axes in `order`, then emit the tile."""
        if not order:
            self._dispatch_rows(env)
            return
        name = order[0]

        def body(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
            self.loops(order[1:], {**env, name: self.e.mul(index, self.tile_size(name))})
            return ()

        self.e.loop(0, self.tiles(name, env), 1, [], body)

    def _dispatch_rows(self, env: dict[str, Int]) -> None:
        name, rows = self.schedule.row, self.schedule.rows
        if not name:
            self._dispatch_vectors(env, 1)
            return

        def rest(remaining: Int) -> None:
            if isinstance(remaining, int):
                self._dispatch_vectors(env, remaining)
                return
            self._rows_left(env, name, remaining, rows)

        self._full_or_rest(name, env, rows, lambda: self._dispatch_vectors(env, rows), rest)

    def _rows_left(self, env: dict[str, Int], name: str, remaining: Int, rows: int) -> None:
        """Fewer rows than a tile, their number known at run time: halves, then ones."""
        start = env[name]
        end = self.e.add(start, remaining)
        while rows > 1:
            rows //= 2
            size = rows

            def body(index: Int, _: list[ir.Value], size: int = size) -> Sequence[ir.Value]:
                self._dispatch_vectors({**env, name: index}, size)
                return ()

            stop = self.e.sub(end, size - 1)
            self.e.loop(start, stop, size, [], body)
            left = self.e.mod(self.e.sub(end, start), size)
            start = self.e.sub(end, left)

    def _dispatch_vectors(self, env: dict[str, Int], rows: int) -> None:
        name, schedule = self.schedule.vector, self.schedule
        if not name or name not in env:
            self._tile(env, Shape(schedule.row, rows, "", 1, 1))
            return
        full = Shape(schedule.row, rows, name, schedule.lanes, schedule.vectors)
        env = {**env, f"{name}@base": env[name]}

        def rest(remaining: Int) -> None:
            if isinstance(remaining, int):
                vectors = -(-remaining // schedule.lanes)
                mask = self._mask(remaining - (vectors - 1) * schedule.lanes)
                self._tile(env, replace(full, vectors=vectors, mask=mask))
                return
            end = self.e.add(env[name], remaining)

            def body(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
                mask = self._mask(self.e.sub(end, index))
                self._tile({**env, name: index}, replace(full, vectors=1, mask=mask))
                return ()

            self.e.loop(env[name], end, schedule.lanes, [], body)

        size = schedule.lanes * schedule.vectors
        self._full_or_rest(name, env, size, lambda: self._tile(env, full), rest)

    def _full_or_rest(
        self,
        name: str,
        env: dict[str, Int],
        size: int,
        full: Callable[[], None],
        rest: Callable[[Int], None],
    ) -> None:
        """Emit the code for a full tile, for what is left at the axis' end, or both."""
        extent, base = self.extent(name, env), env[name]
        if isinstance(extent, int):
            left = extent % size
            if left == 0:
                full()
            elif extent < size or isinstance(base, int):
                whole = isinstance(base, int) and base + size <= extent
                full() if whole else rest(left)
            else:
                self._branch(self.e.add(base, size), extent, full, lambda: rest(left))
            return
        self._branch(self.e.add(base, size), extent, full, lambda: rest(self.e.sub(extent, base)))

    def _branch(
        self, end: Int, extent: Int, full: Callable[[], None], rest: Callable[[], None]
    ) -> None:
        fits = self.e.b.icmp_signed("<=", self.e.i64(end), self.e.i64(extent))
        with self.e.b.if_else(fits) as (then, otherwise):
            with then:
                full()
            with otherwise:
                rest()

    def _mask(self, live: Int) -> ir.Value | None:
        """Lanes [0, live) of a vector; None when that is all of them."""
        lanes = self.schedule.lanes
        if lanes == 1:
            return None
        if isinstance(live, int):
            if live >= lanes:
                return None
            return ir.Constant(ir.VectorType(I1, lanes), [int(i < live) for i in range(lanes)])
        limit = self.e.splat(live, lanes)
        return self.e.b.icmp_signed("<", self.e.lane_numbers(lanes), limit)

    # one tile ------------------------------------------------------------------------------

    def _tile(self, env: dict[str, Int], shape: Shape) -> None:
        stage = self.stage
        inner = tuple(axis.name for axis in stage.reduce_axes)
        tile = Tile(self.e, shape, self.buffers, dict(env), inner, self.dummy)
        tile.prepare(reduction.body for reduction in stage.reductions)
        if stage.reductions:
            if self.schedule.vector in inner:
                self._reduce_along_lanes(tile)
            else:
                self._reduce(tile)
        tile.memo.clear()
        tile.inner = ()
        tile.prepare(
            part
            for store in stage.stores
            for part in (store.value, *(index for index, _ in store.dynamic))
        )
        for store in stage.stores:
            self._store(tile, store)

    def _slots(self, shape: Shape) -> list[Slot]:
        return [(r, v) for r in range(shape.rows) for v in range(shape.vectors)]

    def _initial(self, shape: Shape) -> list[ir.Value]:
        """Neutral accumulators, in the order of `_accumulate`."""
        values: list[ir.Value] = []
        for reduction in self.stage.reductions:
            dtype = reduction.body.dtype
            type_ = scalar_type(dtype)
            if shape.vector and shape.lanes > 1:
                type_ = ir.VectorType(type_, shape.lanes)
            neutral = self.e.constant(scalar.identity(reduction.kind, dtype), type_)
            for _ in self._slots(shape):
                values.append(neutral)
                if reduction.kind.startswith("arg"):
                    values.append(self.e.i64(0))
        return values

    def _accumulate(self, tile: Tile, accumulators: list[ir.Value]) -> list[ir.Value]:
        """One step of all reductions at the present reduction axes."""
        tile.memo = {}
        result: list[ir.Value] = []
        position = 0
        for reduction in self.stage.reductions:
            for slot in self._slots(tile.shape):
                if reduction.kind.startswith("arg"):
                    pair = accumulators[position : position + 2]
                    result += self._arg_step(tile, reduction, slot, pair)
                    position += 2
                    continue
                result.append(self._step(tile, reduction, slot, accumulators[position]))
                position += 1
        return result

    def _step(
        self, tile: Tile, reduction: Reduction, slot: Slot, accumulator: ir.Value
    ) -> ir.Value:
        body = reduction.body
        fused = isinstance(body, ex.Apply) and body.op == "mul" and body.dtype.is_float
        mask = tile.shape.mask_of(slot[1]) if tile.shape.vector in tile.inner else None
        if fused and isinstance(body, ex.Apply) and reduction.kind == "sum" and mask is None:
            a, b = (tile.vector_value(arg, slot) for arg in body.args)
            return self.e.fma(a, b, accumulator)
        value = tile.vector_value(body, slot)
        if mask is not None:
            neutral = self.e.constant(scalar.identity(reduction.kind, body.dtype), value.type)
            value = self.e.b.select(mask, value, neutral)
        return scalar.combine(self.e, reduction.kind, accumulator, value, body.dtype)

    def _arg_step(
        self, tile: Tile, reduction: Reduction, slot: Slot, pair: list[ir.Value]
    ) -> list[ir.Value]:
        value = tile.value(reduction.body, slot)
        sign = {"argmax": "gt", "argmin": "lt"}[reduction.kind]
        op = sign.replace("t", "e") if reduction.last else sign
        dtype = reduction.body.dtype
        better = scalar.apply(self.e, op, [value, pair[0]], [dtype, dtype], DType.BOOL)
        index = self.e.i64(tile.env[self.stage.reduce_axes[-1].name])
        return [self.e.b.select(better, value, pair[0]), self.e.b.select(better, index, pair[1])]

    def _finish(self, tile: Tile, accumulators: list[ir.Value]) -> None:
        position = 0
        for number, reduction in enumerate(self.stage.reductions):
            for slot in self._slots(tile.shape):
                arg = reduction.kind.startswith("arg")
                tile.accumulators[(number, *slot)] = accumulators[position + arg]
                position += 1 + arg

    def _reduce(self, tile: Tile) -> None:
        """Reduction loops around the tile; short ones are written out."""
        axes = self.stage.reduce_axes
        slots = len(self._slots(tile.shape)) * len(self.stage.reductions)
        trip = math.prod(a.extent for a in axes if isinstance(a.extent, int))
        static = all(isinstance(axis.extent, int) for axis in axes)
        written_out = static and trip <= MAX_UNROLLED and trip * slots <= MAX_TILE_STEPS

        def nest(position: int, accumulators: list[ir.Value]) -> list[ir.Value]:
            if position == len(axes):
                return self._accumulate(tile, accumulators)
            axis = axes[position]

            def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
                tile.env[axis.name] = index
                return nest(position + 1, carried)

            extent = index_value(self.e, axis.extent, tile.env)
            if written_out and isinstance(extent, int):
                for step in range(extent):
                    accumulators = body(step, accumulators)
                return accumulators
            unroll = self.schedule.unroll if position == len(axes) - 1 else 1
            return self._unrolled(extent, unroll, accumulators, body)

        self._finish(tile, nest(0, self._initial(tile.shape)))

    def _unrolled(
        self,
        extent: Int,
        unroll: int,
        accumulators: list[ir.Value],
        body: Callable[[Int, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        e = self.e
        whole = e.sub(extent, e.mod(extent, unroll))

        def steps(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
            for step in range(unroll):
                carried = body(e.add(index, step), carried)
            return carried

        accumulators = e.loop(0, whole, unroll, accumulators, steps)
        if isinstance(extent, int) and isinstance(whole, int):
            for index in range(whole, extent):
                accumulators = body(index, accumulators)
            return accumulators
        if unroll == 1:
            return accumulators
        return e.loop(whole, extent, 1, accumulators, body)

    def _reduce_along_lanes(self, tile: Tile) -> None:
        """Lanes run along a reduction axis: partial results per lane, combined at the end."""
        name, lanes = self.schedule.vector, self.schedule.lanes
        outer = [axis for axis in self.stage.reduce_axes if axis.name != name]
        wide = replace(tile.shape, vector=name, lanes=lanes, vectors=self.schedule.vectors)
        one = replace(wide, vectors=1)
        tile.addresses.clear()
        tile.uses.clear()
        tile.shape = wide
        tile.env[name] = 0
        tile.prepare(reduction.body for reduction in self.stage.reductions)

        def along(accumulators: list[ir.Value]) -> list[ir.Value]:
            extent = index_value(self.e, self.axes[name].extent, tile.env)
            span = lanes * wide.vectors

            def step(shape: Shape) -> Callable[[Int, list[ir.Value]], list[ir.Value]]:
                def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
                    tile.shape, tile.env[name] = shape, index
                    return self._accumulate(tile, carried)

                return body

            whole = self.e.sub(extent, self.e.mod(extent, span))
            accumulators = self.e.loop(0, whole, span, accumulators, step(wide))
            first = self._first_vector(accumulators, wide)
            vectors_end = self.e.sub(extent, self.e.mod(extent, lanes))
            last = self.e.loop(whole, vectors_end, lanes, first, step(one))
            left = self.e.sub(extent, vectors_end)
            if left != 0:
                masked = replace(one, mask=self._mask(left))
                last = self.e.loop(vectors_end, extent, lanes, last, step(masked))
            return self._with_first_vector(accumulators, last, wide)

        def nest(position: int, accumulators: list[ir.Value]) -> list[ir.Value]:
            if position == len(outer):
                return along(accumulators)

            def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
                tile.env[outer[position].name] = index
                return nest(position + 1, carried)

            extent = index_value(self.e, outer[position].extent, tile.env)
            return self.e.loop(0, extent, 1, accumulators, body)

        accumulators = nest(0, self._initial(wide))
        self._combine_lanes(tile, wide, accumulators)

    def _first_vector(self, accumulators: list[ir.Value], shape: Shape) -> list[ir.Value]:
        return accumulators[:: shape.vectors]

    def _with_first_vector(
        self, accumulators: list[ir.Value], first: list[ir.Value], shape: Shape
    ) -> list[ir.Value]:
        result = list(accumulators)
        result[:: shape.vectors] = first
        return result

    def _combine_lanes(self, tile: Tile, wide: Shape, accumulators: list[ir.Value]) -> None:
        tile.shape = replace(wide, vector="", lanes=1, vectors=1, mask=None)
        tile.addresses.clear()
        tile.uses.clear()
        for number, reduction in enumerate(self.stage.reductions):
            dtype = reduction.body.dtype
            for r in range(wide.rows):
                start = (number * wide.rows + r) * wide.vectors
                total = accumulators[start]
                for v in range(1, wide.vectors):
                    part = accumulators[start + v]
                    total = scalar.combine(self.e, reduction.kind, total, part, dtype)
                tile.accumulators[(number, r, 0)] = self._across(total, reduction.kind, dtype)

    def _across(self, vector: ir.Value, kind: str, dtype: DType) -> ir.Value:
        """Combine the lanes of a vector by halving it."""
        if self.schedule.lanes == 1:
            return vector
        if dtype.is_float and kind == "sum":
            name = f"llvm.vector.reduce.fadd.{intrinsic_suffix(vector.type)}"
            zero = ir.Constant(scalar_type(dtype), -0.0)
            flags: Any = ("reassoc", *CONTRACT)
            return self.e.call(name, scalar_type(dtype), [zero, vector], fastmath=flags)
        count = vector.type.count
        while count > 1:
            count //= 2
            undefined = ir.Constant(vector.type, ir.Undefined)
            halves = [
                self.e.b.shuffle_vector(
                    vector,
                    undefined,
                    ir.Constant(
                        ir.VectorType(ir.IntType(32), count), list(range(start, start + count))
                    ),
                )
                for start in (0, count)
            ]
            vector = scalar.combine(self.e, kind, halves[0], halves[1], dtype)
        return self.e.b.extract_element(vector, ir.Constant(ir.IntType(32), 0))

    # stores --------------------------------------------------------------------------------

    def _store(self, tile: Tile, store: Store) -> None:
        e, shape = self.e, tile.shape
        address = None if store.dynamic else tile.split(store.buffer, store.offset)
        dtype = store.buffer.dtype
        for slot in self._slots(shape):
            wide = bool(shape.vector) and shape.lanes > 1
            value = tile.vector_value(store.value, slot) if wide else tile.value(store.value, slot)
            mask = shape.mask_of(slot[1])
            if address is not None and (not wide or address.vector == 1):
                e.store(value, tile.point(address, dtype, slot), dtype, mask)
            elif wide:
                pointers = tile.lane_pointers(store.buffer, store.offset, store.dynamic, slot)
                e.scatter(value, pointers, dtype, mask)
            else:
                env = tile.slot_env(slot)
                offset = index_value(e, store.offset, env)
                for index, stride in store.dynamic:
                    moved = scalar.cast(e, tile.value(index, slot), index.dtype, DType.I64)
                    offset = e.add(offset, e.mul(moved, index_value(e, stride, env)))
                e.store(value, e.pointer(self.buffers[store.buffer.name], offset, dtype), dtype)


__all__ = ["Axis", "StageEmitter"]
