"""Sums by instructions that multiply two rows by two columns (`instruction.PAIRS`)."""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir

from ....compiler.ir.ops.step_groups import GROUP
from ....compiler.kernel import expr as ex
from ....compiler.kernel.instruction import PAIR
from ....compiler.kernel.kernel import Stage
from ....compiler.kernel.schedule.pair_tiles import LANES, UNROLL
from ....compiler.kernel.schedule.schedule import StageSchedule
from .access import index_value
from .builder import I32, Emitter, scalar_type
from .dot import pair_product
from .factor_addresses import factor_addresses
from .indices import Int
from .shape import Address
from .tile import Tile

# lanes of two vectors, the second's behind the first's: their first halves, and their second ones
_FIRST, _SECOND = (0, 1, 4, 5), (2, 3, 6, 7)
_Sums = list[ir.Value]
_Body = Callable[[Int, list[ir.Value]], list[ir.Value]]


class PairSums:
    """Emits the sums of a stage's tiles, of any number of rows and vectors.

    Sums are kept as the instruction has them: for each two rows and each vector the results of its
    first two columns, then those of the other two.
    """

    def __init__(self, e: Emitter, stage: Stage, own: StageSchedule) -> None:
        self.e, self.stage, self.own = e, stage, own

    def emit(self, tile: Tile) -> None:
        """Add up the tile's products and leave them in its accumulators."""
        left, right = factor_addresses(tile, self.stage)
        shape = tile.shape
        high = -(-shape.rows // PAIR)
        zero = self.e.constant(
            0, ir.VectorType(scalar_type(self.stage.reductions[0].body.dtype), LANES)
        )
        sums = self._nest(tile, 0, left, right, [zero] * (high * shape.vectors * PAIR))
        for row in range(shape.rows):
            for v in range(shape.vectors):
                start = (row // PAIR * shape.vectors + v) * PAIR
                lanes = _SECOND if row % PAIR else _FIRST
                tile.accumulators[(0, row, v)] = self._joined(sums[start], sums[start + 1], lanes)

    def _joined(self, a: ir.Value, b: ir.Value, lanes: tuple[int, ...]) -> ir.Value:
        mask = ir.Constant(ir.VectorType(I32, len(lanes)), list(lanes))
        return self.e.b.shuffle_vector(a, b, mask)

    def _written(self, tile: Tile) -> bool:
        """Whether the sum is short enough to be written out as a whole."""
        extents = (axis.extent for axis in self.stage.reduce_axes[:-1])
        return self.own.unrolling.writes_out(extents, len(tile.shape.slots()) * PAIR)

    def _nest(self, tile: Tile, position: int, left: Address, right: Address, sums: _Sums) -> _Sums:
        """Loops over the reduction axes from one on; the last one counts the two of a pair."""
        axes, written = self.stage.reduce_axes[:-1], self._written(tile)
        axis, innermost = axes[position], position == len(axes) - 1
        tile.advance(self.stage.reduce_axes[-1].name, 0)
        extent = index_value(self.e, axis.extent, tile.env)
        if not innermost:

            def around(index: Int, carried: _Sums) -> _Sums:
                tile.advance(axis.name, index)
                return self._nest(tile, position + 1, left, right, carried)

            return self._loop(0, extent, 1, sums, around, written)
        assert isinstance(extent, int)

        def several(index: Int, carried: _Sums) -> _Sums:
            tile.advance(axis.name, index)
            return self._steps(tile, left, right, carried, UNROLL)

        whole = extent - extent % UNROLL
        sums = self._loop(0, whole, UNROLL, sums, several, written)
        for index in range(whole, extent):
            tile.advance(axis.name, index)
            sums = self._steps(tile, left, right, sums, 1)
        return sums

    def _loop(
        self, start: int, end: Int, step: int, sums: _Sums, body: _Body, written: bool
    ) -> _Sums:
        if not written or not isinstance(end, int):
            return self.e.loop(start, end, step, sums, body)
        for index in range(start, end, step):
            sums = body(index, sums)
        return sums

    def _steps(self, tile: Tile, left: Address, right: Address, sums: _Sums, count: int) -> _Sums:
        """So many pairs of groups, 1 or UNROLL, whose rows are read at once."""
        e, shape = self.e, tile.shape
        tile.begin_step()
        rows = [
            e.load(tile.point(left, GROUP, (r, 0)), GROUP, PAIR * count, buffer=self._name(0))
            for r in range(shape.rows)
        ]
        halves = (_FIRST, _SECOND) if count == UNROLL else ((0, 1, 2, 3),)
        twos = [(a, min(a + 1, shape.rows - 1)) for a in range(0, shape.rows, PAIR)]
        ready = [[self._joined(rows[a], rows[b], lanes) for a, b in twos] for lanes in halves]
        inner = self.stage.reduce_axes[-2].name
        first, result = tile.moved[inner], list(sums)
        for number, operands in enumerate(ready):
            tile.advance(inner, e.add(first, number))
            tile.begin_step()
            for v in range(shape.vectors):
                start = tile.point(right, GROUP, (0, v))
                for half in range(PAIR):
                    place = e.pointer(start, half * LANES, GROUP)
                    columns = e.load(place, GROUP, LANES, buffer=self._name(1))
                    for i, operand in enumerate(operands):
                        at = (i * shape.vectors + v) * PAIR + half
                        result[at] = pair_product(
                            e, self.own.instruction, result[at], operand, columns
                        )
        return result

    def _name(self, operand: int) -> str:
        """The buffer of the rows (0) or of the columns (1)."""
        body = self.stage.reductions[0].body
        assert isinstance(body, ex.Apply)
        load = body.args[operand]
        assert isinstance(load, ex.Load)
        return load.buffer.name
