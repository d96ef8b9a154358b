"""Emission of a tile's reductions: accumulators in registers, loops over the reduction axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard

from llvmlite import ir

from ....compiler.ir.types import DType
from ....compiler.kernel import expr as ex
from ....compiler.kernel.instruction import ACROSS, BY_LANE, DOTS, LANE_STEPS
from ....compiler.kernel.kernel import Reduction, Stage, has_factors
from ....compiler.kernel.schedule.schedule import StageSchedule
from ....compiler.kernel.schedule.sums import parts_of_sum
from . import scalar
from .access import index_value
from .block_sums import BlockSums
from .builder import CONTRACT, I32, Emitter, intrinsic_suffix, scalar_type
from .constants import lanes_from, undefined
from .dot import dot, dot_across
from .indices import Int
from .partial import PartialSums
from .prefetch import PanelPrefetch, panel_prefetches
from .shape import Shape, Slot, lane_mask
from .step_lanes import StepLanes
from .tile import Tile


def _joins_sum(body: ex.Expr) -> bool:
    """Whether the body is a product that may be rounded together with the sum it is part of."""
    return (
        isinstance(body, ex.Apply) and body.op == "mul" and body.dtype.is_float and not body.exact
    )


def _is_dot(body: ex.Expr) -> TypeGuard[ex.Apply]:
    return isinstance(body, ex.Apply) and body.op in DOTS


class TileReduction:
    """Emits the reductions of one tile and leaves the results in its accumulators."""

    def __init__(
        self,
        e: Emitter,
        stage: Stage,
        schedule: StageSchedule,
        tile: Tile,
        partial: PartialSums | None = None,
    ) -> None:
        self.e = e
        self.partial = partial
        self.stage = stage
        self.schedule = schedule
        self.tile = tile
        self.axes = {axis.name: axis for axis in stage.reduce_axes}
        self.across = schedule.instruction in ACROSS and schedule.tile.vector in self.axes
        self.parts = 1
        self.ahead: list[PanelPrefetch] = []
        self.leads_group = False  # whether the step begins an unrolled group

    def emit(self) -> None:
        """Emit the loops; lanes run along a parallel axis, a reduction axis, or not at all."""
        if self.schedule.tile.vector in self.axes:
            self._reduce_along_lanes(self.tile)
        else:
            self.tile.prepare(part for r in self.stage.reductions for part in r.expressions)
            self.parts = parts_of_sum(self.stage, self.schedule, len(self.tile.shape.slots()))
            if self.parts == 1 and not has_factors(self.stage):
                self.ahead = panel_prefetches(self.stage, self.schedule, self.tile)
            self._reduce(self.tile)

    def _initial(self, shape: Shape) -> list[ir.Value]:
        """Neutral accumulators, in the order of `_accumulate`."""
        values: list[ir.Value] = []
        for reduction in self.stage.reductions:
            dtype = reduction.body.dtype
            type_ = scalar_type(dtype)
            if shape.vector and shape.lanes > 1 and not self.across:
                type_ = ir.VectorType(type_, shape.lanes)
            neutral = self.e.constant(scalar.identity(reduction.kind, dtype), type_)
            for _ in shape.slots():
                values.append(neutral)
                if reduction.kind.startswith("arg"):
                    values.append(self.e.as_index(0))
        return values

    def _accumulate(self, tile: Tile, accumulators: list[ir.Value]) -> list[ir.Value]:
        """One step of all reductions at the present reduction axes."""
        tile.begin_step()
        if self.leads_group:
            for ahead in self.ahead:
                ahead.emit(tile)
        slots, reductions = tile.shape.slots(), self.stage.reductions
        if any(reduction.kind.startswith("arg") for reduction in reductions):
            return self._arg_steps(tile, slots, accumulators)
        result = list(accumulators)
        for place, slot in enumerate(slots):  # reductions side by side share what a row loads
            for number, reduction in enumerate(reductions):
                position = number * len(slots) + place
                result[position] = self._step(tile, reduction, slot, accumulators[position])
        return result

    def _arg_steps(
        self, tile: Tile, slots: list[Slot], accumulators: list[ir.Value]
    ) -> list[ir.Value]:
        """One step where some reductions keep a position behind every value."""
        result: list[ir.Value] = []
        position = 0
        for reduction in self.stage.reductions:
            for slot in slots:
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
        if self.across and _is_dot(body):  # lanes that are masked off hold zeros
            a, b = (tile.vector_value(arg, slot) for arg in ex.children(body))
            return dot_across(self.e, self.schedule.instruction, accumulator, a, b)
        mask = tile.shape.mask_of(slot[1]) if tile.shape.vector in tile.inner else None
        if reduction.kind == "sum" and mask is None and _joins_sum(body):
            a, b = (tile.vector_value(arg, slot) for arg in ex.children(body))
            return self.e.fma(a, b, accumulator)
        if reduction.kind == "sum" and mask is None and _is_dot(body):
            a, b = (tile.vector_value(arg, slot) for arg in ex.children(body))
            return dot(self.e, body.op, self.schedule.instruction, accumulator, a, b)
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
        index = self.e.as_index(tile.env[self.stage.reduce_axes[-1].name])
        return [self.e.b.select(better, value, pair[0]), self.e.b.select(better, index, pair[1])]

    def _finish(self, tile: Tile, accumulators: list[ir.Value]) -> None:
        position = 0
        for number, reduction in enumerate(self.stage.reductions):
            for slot in tile.shape.slots():
                arg = reduction.kind.startswith("arg")
                result = accumulators[position + arg]
                if arg:
                    result = scalar.cast(self.e, result, self.e.index_dtype, DType.I64)
                tile.accumulators[(number, *slot)] = result
                position += 1 + arg

    def _reduce(self, tile: Tile) -> None:
        """Reduction loops around the tile; short ones are written out."""
        axes = self.stage.reduce_axes
        slots = len(tile.shape.slots()) * len(self.stage.reductions)
        written_out = self.schedule.unrolling.writes_out((axis.extent for axis in axes), slots)
        blocks = BlockSums(self.stage, self.schedule, tile.shape)

        def nest(
            position: int, accumulators: list[ir.Value], inside: bool = not blocks.any
        ) -> list[ir.Value]:
            if not inside and position == blocks.outer:
                blocks.fetch(tile)
                sums = nest(position, self._initial(tile.shape) * blocks.parts, True)
                return blocks.scaled(tile, accumulators, sums)
            if position == len(axes):
                return blocks.step(accumulators, partial(self._accumulate, tile))
            axis = axes[position]

            def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
                tile.advance(axis.name, index)
                return nest(position + 1, carried, inside)

            split = axis.name == self.schedule.blocks.axis
            extent = (
                self.schedule.blocks.steps if split else index_value(self.e, axis.extent, tile.env)
            )
            whole = written_out or (blocks.any and inside and blocks.written)
            if whole and isinstance(extent, int):
                for step in range(extent):
                    accumulators = body(step, accumulators)
                return accumulators
            innermost = position == len(axes) - 1
            if self.parts > 1 and isinstance(extent, int):
                return self._in_parts(axis.name, extent, accumulators)
            return self._unrolled(extent, innermost, accumulators, body)

        initial = self._initial(tile.shape)
        if self.partial is None:
            apart = 1 if blocks.any else blocks.parts
            sums = nest(0, initial * apart)
            self._finish(tile, blocks.joined(sums, tile) if apart > 1 else sums)
            return
        accumulators = nest(0, self.partial.resume(tile.env, initial))
        self.partial.leave(tile.env, accumulators)
        self._finish(tile, accumulators)

    def _in_parts(self, name: str, extent: int, accumulators: list[ir.Value]) -> list[ir.Value]:
        """The one reduction loop in parts side by side, their results combined."""
        tile, length, count = self.tile, extent // self.parts, len(accumulators)
        neutral = self._initial(tile.shape) * (self.parts - 1)

        def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
            done: list[ir.Value] = []
            for part in range(self.parts):
                tile.advance(name, self.e.add(index, part * length))
                done += self._accumulate(tile, carried[part * count : (part + 1) * count])
            return done

        results = self._unrolled(length, True, accumulators + neutral, body)
        slots = len(tile.shape.slots())
        combined = results[:count]
        for number, value in enumerate(results[count:]):
            place = number % count
            reduction = self.stage.reductions[place // slots]
            dtype = reduction.body.dtype
            combined[place] = scalar.combine(self.e, reduction.kind, combined[place], value, dtype)
        return combined

    def _unrolled(
        self,
        extent: Int,
        innermost: bool,
        accumulators: list[ir.Value],
        body: Callable[[Int, list[ir.Value]], list[ir.Value]],
    ) -> list[ir.Value]:
        e, unroll = self.e, self.schedule.unrolling.unroll if innermost else 1
        whole = e.sub(extent, e.mod(extent, unroll))

        by_lane = self.schedule.instruction in BY_LANE and unroll == LANE_STEPS

        def steps(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
            lanes = StepLanes(self.stage.reduce_axes[-1].name) if by_lane else None
            for step in range(unroll):
                if step and self.schedule.unrolling.ordered:
                    e.keep_order()
                self.leads_group = innermost and step == 0
                if lanes is not None:
                    lanes.step, self.tile.together = step, lanes
                carried = body(e.add(index, step), carried)
            self.leads_group, self.tile.together = False, None
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
        name, lanes = self.schedule.tile.vector, self.schedule.tile.lanes
        outer = [axis for axis in self.stage.reduce_axes if axis.name != name]
        wide = replace(tile.shape, vector=name, lanes=lanes, vectors=self.schedule.tile.vectors)
        one = replace(wide, vectors=1)
        tile.addresses.clear()
        tile.shape = wide
        tile.advance(name, 0)
        tile.prepare(reduction.body for reduction in self.stage.reductions)

        def along(accumulators: list[ir.Value]) -> list[ir.Value]:
            extent = index_value(self.e, self.axes[name].extent, tile.env)
            span = lanes * wide.vectors

            def step(shape: Shape) -> Callable[[Int, list[ir.Value]], list[ir.Value]]:
                def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
                    tile.shape = shape
                    tile.advance(name, index)
                    return self._accumulate(tile, carried)

                return body

            whole = self.e.sub(extent, self.e.mod(extent, span))
            if self._is_written(whole, span, len(accumulators)):
                assert isinstance(whole, int)
                for index in range(0, whole, span):
                    accumulators = step(wide)(index, accumulators)
            else:
                accumulators = self.e.loop(0, whole, span, accumulators, step(wide))
            first = self._first_vector(accumulators, wide)
            vectors_end = self.e.sub(extent, self.e.mod(extent, lanes))
            last = self.e.loop(whole, vectors_end, lanes, first, step(one))
            left = self.e.sub(extent, vectors_end)
            if left != 0:
                masked = replace(one, mask=lane_mask(self.e, lanes, left))
                last = self.e.loop(vectors_end, extent, lanes, last, step(masked))
            return self._with_first_vector(accumulators, last, wide)

        def nest(position: int, accumulators: list[ir.Value]) -> list[ir.Value]:
            if position == len(outer):
                return along(accumulators)

            def body(index: Int, carried: list[ir.Value]) -> list[ir.Value]:
                tile.advance(outer[position].name, index)
                return nest(position + 1, carried)

            extent = index_value(self.e, outer[position].extent, tile.env)
            return self.e.loop(0, extent, 1, accumulators, body)

        accumulators = nest(0, self._initial(wide))
        self._combine_lanes(tile, wide, accumulators)

    def _is_written(self, whole: Int, span: int, sums: int) -> bool:
        """Whether steps into scalar registers, whose loop costs as much as they, have no loop."""
        if not self.across or not isinstance(whole, int):
            return False
        return self.schedule.unrolling.writes_out([whole // span], sums)

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
        for number, reduction in enumerate(self.stage.reductions):
            dtype = reduction.body.dtype
            for r in range(wide.rows):
                start = (number * wide.rows + r) * wide.vectors
                total = accumulators[start]
                for v in range(1, wide.vectors):
                    part = accumulators[start + v]
                    total = scalar.combine(self.e, reduction.kind, total, part, dtype)
                tile.accumulators[(number, r, 0)] = self._across(total, reduction.kind, dtype)
        if self.across and wide.rows == wide.lanes:
            self._rows_to_lanes(tile, wide)

    def _rows_to_lanes(self, tile: Tile, wide: Shape) -> None:
        """Make the sums of a tile's rows, one number each, a vector: what follows takes all."""
        tile.shape = Shape("", 1, wide.row, wide.rows, 1)
        for number, reduction in enumerate(self.stage.reductions):
            kind = ir.VectorType(scalar_type(reduction.body.dtype), wide.rows)
            vector = undefined(kind)
            for r in range(wide.rows):
                one = tile.accumulators.pop((number, r, 0))
                vector = self.e.b.insert_element(vector, one, ir.Constant(I32, r))
            tile.accumulators[(number, 0, 0)] = vector

    def _across(self, vector: ir.Value, kind: str, dtype: DType) -> ir.Value:
        """Combine the lanes of a vector by halving it."""
        if self.schedule.tile.lanes == 1 or self.across:
            return vector
        if dtype.is_float and kind == "sum":
            name = f"llvm.vector.reduce.fadd.{intrinsic_suffix(vector.type)}"
            zero = ir.Constant(scalar_type(dtype), -0.0)
            flags: Any = ("reassoc", *CONTRACT)
            return self.e.call(name, scalar_type(dtype), [zero, vector], fastmath=flags)
        count = vector.type.count
        while count > 1:
            count //= 2
            nothing = undefined(vector.type)
            halves = [
                self.e.b.shuffle_vector(
                    vector,
                    nothing,
                    lanes_from(start, count, I32),
                )
                for start in (0, count)
            ]
            vector = scalar.combine(self.e, kind, halves[0], halves[1], dtype)
        return self.e.b.extract_element(vector, ir.Constant(I32, 0))
