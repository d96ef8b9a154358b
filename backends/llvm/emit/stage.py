"""Emission of one stage: its loops, register tiles, reductions and stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from llvmlite import ir

from ....compiler.kernel import expr as ex
from ....compiler.kernel.axis_names import band_of, panel_base, start_of
from ....compiler.kernel.instruction import PAIRS
from ....compiler.kernel.kernel import CACHE_LINE, Stage, Store
from ....compiler.kernel.schedule.schedule import StageSchedule
from ....compiler.kernel.schedule.transposing import rows_of_piece
from .access import index_value
from .builder import Emitter
from .indices import Int
from .matrices import MatrixSums, matrices_of
from .pairs import PairSums
from .partial import PartialSums
from .reduction import TileReduction
from .shape import Address, Shape, Slot, lane_mask
from .tile import Tile
from .transpose import is_without_gaps, piece_of, store_rows


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
        self.partial = PartialSums(e, stage, schedule) if schedule.blocks.axis else None
        matrices = matrices_of(stage, schedule)
        self.matrices = MatrixSums(e, stage, schedule, matrices) if matrices else None
        self.pairs = PairSums(e, stage, schedule) if schedule.instruction in PAIRS else None

    # parallel loops ------------------------------------------------------------------------

    def extent(self, name: str, env: Mapping[str, Int]) -> Int:
        """The axis' length."""
        return index_value(self.e, self.axes[name].extent, env)

    def tiles(self, name: str, env: Mapping[str, Int]) -> Int:
        """How many tiles cover the axis."""
        size, extent = self.schedule.tile.span(name), self.extent(name, env)
        return self.e.floordiv(self.e.add(extent, size - 1), size)

    def loops(
        self,
        order: Sequence[str],
        env: dict[str, Int],
        inside: Callable[[dict[str, Int]], None] | None = None,
    ) -> None:
        """Loop over the axes in `order`, then emit what is inside: the tile, if nothing else."""
        if not order:
            (inside or self._dispatch_rows)(env)
            return
        name = order[0]
        if name == self.schedule.blocks.axis:
            self._blocks(order[1:], env)
            return
        band = band_of(self.schedule.tile.row)
        if name == band:
            self._bands(order[1:], env)
            return
        first: Int = 0
        tiles = self.tiles(name, env)
        if name == self.schedule.tile.row and band in env:
            first = self.e.floordiv(env[band], self.schedule.tile.rows)
            last = self.e.add(first, self.schedule.blocks.band // self.schedule.tile.rows)
            tiles = self.e.minmax("min", tiles, last)

        def body(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
            bound = {**env, name: self.e.mul(index, self.schedule.tile.span(name))}
            self.loops(order[1:], bound, inside)
            return ()

        self.e.loop(first, tiles, 1, [], body)

    def _bands(self, order: Sequence[str], env: dict[str, Int]) -> None:
        """Loop over the bands of rows; one takes all blocks before the next."""
        name, band = self.schedule.tile.row, self.schedule.blocks.band

        def body(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
            self.loops(order, {**env, band_of(name): self.e.mul(index, band)})
            return ()

        bands = self.e.floordiv(self.e.add(self.extent(name, env), band - 1), band)
        self.e.loop(0, bands, 1, [], body)

    def _blocks(self, order: Sequence[str], env: dict[str, Int]) -> None:
        """Loop over the blocks of a split reduction; sums are finished in the last one."""
        name, block = self.schedule.blocks.axis, self.schedule.blocks.steps

        def body(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
            self.loops(order, {**env, start_of(name): self.e.mul(index, block)})
            return ()

        self.e.loop(0, self.e.floordiv(self.extent(name, env), block), 1, [], body)

    def _dispatch_rows(self, env: dict[str, Int]) -> None:
        name, rows = self.schedule.tile.row, self.schedule.tile.rows
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
        """Fewer rows than a tile, their number known at run time: half a tile, then few."""
        start = env[name]
        end = self.e.add(start, remaining)
        for size in self.schedule.tile.rests:

            def body(index: Int, _: list[ir.Value], size: int = size) -> Sequence[ir.Value]:
                self._dispatch_vectors({**env, name: index}, size)
                return ()

            stop = self.e.sub(end, size - 1)
            self.e.loop(start, stop, size, [], body)
            left = self.e.mod(self.e.sub(end, start), size)
            start = self.e.sub(end, left)

    def _dispatch_vectors(self, env: dict[str, Int], rows: int) -> None:
        chosen = self.schedule.tile
        name, lanes = chosen.vector, chosen.lanes
        if not name or name not in env:
            self._tile(env, Shape(chosen.row, rows, "", 1, 1))
            return
        full = Shape(chosen.row, rows, name, lanes, chosen.vectors, panel=self.schedule.panel)
        env = {**env, panel_base(name): env[name]}

        def rest(remaining: Int) -> None:
            if isinstance(remaining, int):
                vectors = -(-remaining // lanes)
                left = remaining - (vectors - 1) * lanes
                mask = lane_mask(self.e, lanes, left)
                self._tile(env, replace(full, vectors=vectors, mask=mask, left=left))
                return
            end = self.e.add(env[name], remaining)

            def body(index: Int, _: list[ir.Value]) -> Sequence[ir.Value]:
                left = self.e.sub(end, index)
                mask = lane_mask(self.e, lanes, left)
                self._tile({**env, name: index}, replace(full, vectors=1, mask=mask, left=left))
                return ()

            self.e.loop(env[name], end, lanes, [], body)

        size = chosen.width
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
        fits = self.e.b.icmp_signed("<=", self.e.as_index(end), self.e.as_index(extent))
        with self.e.b.if_else(fits) as (then, otherwise):
            with then:
                full()
            with otherwise:
                rest()

    # one tile ------------------------------------------------------------------------------

    def _tile(self, env: dict[str, Int], shape: Shape) -> None:
        stage = self.stage
        inner = tuple(axis.name for axis in stage.reduce_axes)
        abreast = self.schedule.unrolling.abreast
        tile = Tile(
            self.e, shape, self.buffers, dict(env), inner, dummy=self.dummy, abreast=abreast
        )
        if stage.reductions:
            if self.schedule.prefetch.epilogue:
                self._fetch_operands(tile)
            if self.matrices is not None and self.matrices.fits(shape):
                self.matrices.emit(tile)
            elif self.pairs is not None:
                self.pairs.emit(tile)
            else:
                TileReduction(self.e, stage, self.schedule, tile, self.partial).emit()
        if self.partial is None:
            self._finish(tile)
            return
        last = self.e.sub(self.extent(self.schedule.blocks.axis, env), self.schedule.blocks.steps)
        start = self.e.as_index(self.partial.start(env))
        with self.e.when(self.e.b.icmp_signed("==", start, self.e.as_index(last))):
            self._finish(tile)

    def _fetch_operands(self, tile: Tile) -> None:
        """Fetch what follows the reductions reads at every slot, such as a residual, meanwhile."""
        stage, shape = self.stage, tile.shape
        parts = {part for store in stage.stores for part in ex.walk(store.value)}
        for load in sorted((p for p in parts if isinstance(p, ex.Load)), key=ex.text):
            if load.dynamic or tile.depends(load) != (True, True):
                continue
            address = tile.split(load)
            if address is None or address.vector != 1:
                continue
            size = shape.lanes * load.dtype.bytes
            for r, v in shape.slots():
                if v * size % CACHE_LINE == 0 or size > CACHE_LINE:
                    self.e.prefetch(tile.point(address, load.dtype, (r, v)))
        tile.begin_step()

    def _finish(self, tile: Tile) -> None:
        """What follows the reductions: values are computed and stored."""
        stage = self.stage
        tile.begin_step()
        tile.inner = ()
        tile.prepare(
            part
            for store in stage.stores
            for part in (store.value, *(index for index, _ in store.dynamic))
        )
        for store in stage.stores:
            self._store(tile, store)

    # stores --------------------------------------------------------------------------------

    def _store(self, tile: Tile, store: Store) -> None:
        if isinstance(store.value, ex.Guarded):
            test = tile.common_test(store.value.bounds)
            if test is not None:
                self._store_either(tile, store, store.value, test)
                return
        tile.prepare([store])
        shape = tile.shape
        wide = bool(shape.vector) and shape.lanes > 1
        address = tile.addresses[id(store)]
        if wide and address is not None and self._rows_together(store, address, shape):
            self._store_rows_together(tile, store, address)
            return
        for slot in shape.slots():
            self._store_slot(tile, store, slot, wide)

    def _store_slot(self, tile: Tile, store: Store, slot: Slot, wide: bool) -> None:
        e, shape, dtype = self.e, tile.shape, store.buffer.dtype
        value = tile.vector_value(store.value, slot) if wide else tile.value(store.value, slot)
        allowed, lanes = tile.tests(store.bounds, slot)
        if allowed is False:
            return
        mask = tile.both(shape.mask_of(slot[1]), lanes)
        where = tile.reach(store, slot, wide)
        if where.apart:
            if allowed is not True:
                mask = tile.both(mask, e.splat(allowed, shape.lanes))
            e.scatter(value, where.pointer, dtype, mask, store.buffer.name)
        else:
            pointer = self._allowed(where.pointer, allowed)
            e.store(value, pointer, dtype, mask, store.buffer.name)

    def _store_either(self, tile: Tile, store: Store, guarded: ex.Guarded, test: ir.Value) -> None:
        """Store a guarded value whose condition is one for the whole tile: by a branch."""
        with self.e.b.if_else(test) as branches:
            for branch, value in zip(branches, (guarded.value, guarded.other), strict=True):
                with branch, tile.apart():
                    self._store(tile, replace(store, value=value))

    def _rows_together(self, store: Store, address: Address, shape: Shape) -> bool:
        """Whether the rows, not the lanes, are neighbours in memory, and live lanes are known."""
        if address.vector == 1 or address.row != 1 or shape.rows == 1 or store.bounds:
            return False
        return shape.left is None or isinstance(shape.left, int)

    def _store_rows_together(self, tile: Tile, store: Store, address: Address) -> None:
        """Store a tile whose rows are neighbours in memory: whole groups of rows, not elements."""
        e, shape, dtype = self.e, tile.shape, store.buffer.dtype
        most = min(shape.lanes, rows_of_piece(dtype.bytes))
        for v in range(shape.vectors):
            first, live = 0, shape.left_of(v) or shape.lanes
            assert isinstance(live, int)
            whole = live == shape.lanes and is_without_gaps(shape.rows, live, address.vector)
            while first < shape.rows:
                count = shape.rows if whole else piece_of(first, shape.rows, most)[1]
                slots = [(r, v) for r in range(first, first + count)]
                first += count
                if count == 1:
                    self._store_slot(tile, store, slots[0], wide=True)
                    continue
                rows = [tile.vector_value(store.value, slot) for slot in slots]
                start = tile.point(address, dtype, slots[0])
                store_rows(e, start, address.vector, store.buffer, rows, live)

    def _allowed(self, pointer: ir.Value, allowed: ir.Value | bool) -> ir.Value:
        """The pointer, or memory that nobody reads where the store's bounds do not hold."""
        if isinstance(allowed, bool):
            return pointer
        return self.e.b.select(allowed, pointer, self.dummy)
