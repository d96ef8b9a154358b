"""Reductions, and stages that share rows (softmax, norms): a block of rows for each program.

Where whole rows fit into a block, what stages hand over stays in registers; else it goes through
memory, and a barrier lies between the stages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ....compiler.ir.dims import Dim, ceildiv, product, substitute, symbol
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Apply, Load
from ....compiler.kernel.kernel import Axis, Kernel, Reduction, Stage, Store
from ....compiler.kernel.schedule.tiles import Tiles
from ..dots import digits_of
from ..tiles import columns_of, shared_axes
from .points import decode, part_of, program, rest_of, span
from .split import PART, Split
from .text import Lines
from .types import HALVES, TAKES, NoDeviceCode, identity, register_type
from .values import DeviceTile, Pointers, Term

Key = tuple[str, Dim, tuple[Dim, ...]]
_FOLDS = {"sum": "ts_add", "prod": "ts_mul", "max": "ts_max", "min": "ts_min"}
_LAST = {"tl.int32": (1 << 31) - 1, "tl.int64": (1 << 63) - 1}  # behind all places of a row


@dataclass
class RowTile(DeviceTile):
    """A tile that remembers what its stages loaded and stored: a later stage finds it there.

    columns: the axes along rows of the present stage. places: points of axes that are taken one
    after the other. known: values by buffer, offset in terms of
    numbered axes, and their extents. pending: stores that a later one may replace.
    """

    columns: tuple[Axis, ...] = ()
    places: dict[str, Dim] = field(default_factory=dict)
    whole: bool = True
    known: dict[Key, Term] = field(default_factory=dict)
    pending: dict[Key, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)

    def key(self, name: str, offset: Dim) -> Key:
        """What an offset is, whatever the stage calls its axes."""
        numbered: dict[str, Dim] = {a.name: symbol(f"$c{n}") for n, a in enumerate(self.columns)}
        numbered |= self.places
        extents = tuple(axis.extent for axis in self.columns)
        return name, substitute(offset, numbered), extents

    def load(self, load: Load, guard: Term | None = None, other: float | int = 0) -> Term:
        """The loaded element, from a register where it was loaded or stored before."""
        name = load.buffer.name
        if name in self.inlined:
            return super().load(load, guard, other)
        key = self.key(name, load.offset)
        plain = self.whole and not load.dynamic
        if plain and key in self.known and (guard is None or name in self.written):
            found = self.known[key]
            if guard is None:
                return found
        if load.buffer.local is not None and name not in self.registers:
            if plain and guard is None and key in self.known:
                return self.known[key]
            raise NoDeviceCode("local memory is read at another place than it is written")
        if self.whole and name in self.written:
            self.flush()
        value = super().load(load, guard, other)
        if plain and guard is None:
            self.known[key] = value
        return value

    def store(self, store: Store) -> None:
        """Keep what is stored, and store it behind all stages."""
        name = store.buffer.name
        if store.buffer.local == 1:
            self.registers[name] = self.value(store.value)
            return
        if not self.whole:
            if store.buffer.local is not None:
                raise NoDeviceCode("rows are too long for local memory")
            super().store(store)
            self.written.add(name)
            return
        guard = self.holds(store.bounds)
        value = self.value(store.value, guard)
        key = self.key(name, store.offset)
        if store.buffer.local is None:
            at = self.address(store.offset, store.dynamic, guard)
            self.pending.pop(key, None)
            self.pending[key] = self.stored(store, value, at, guard)
            self.written.add(name)
        if guard is None and not store.dynamic:
            self.known[key] = value

    def flush(self) -> None:
        """Store what is pending, for all threads of the program to see."""
        for line in self.pending.values():
            self.lines.add(line)
        self.pending.clear()
        self.barrier()

    def barrier(self) -> None:
        """Let every thread see what all have written."""
        if self.written:
            self.lines.add("tl.debug_barrier()")
            self.lines.forget_loads()
            self.written.clear()


def emit_rows(
    lines: Lines,
    kernel: Kernel,
    tiles: Tiles,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
    prepare: Callable[[RowTile], None] | None = None,
) -> Dim:
    """Emit a kernel of stages that share rows; how many programs it takes. prepare: emits what
    comes before."""
    env = {name: Term(text) for name, text in names.items()}
    shape = {"r": tiles.rows, "c": tiles.columns}
    tile = RowTile(lines, shape, index, pointers, env)
    shared = kernel.stages[0].axes[: shared_axes(kernel)]
    rows = product(axis.extent for axis in shared)
    totals = [product(a.extent for a in columns_of(kernel, stage)) for stage in kernel.stages]
    tile.whole = all(isinstance(n, int) and n <= tiles.columns for n in totals)
    if prepare is not None:
        prepare(tile)
    split, blocks, number = row_split(kernel, tiles), ceildiv(rows, tiles.rows), program(tile)
    if split is not None:
        env[PART], number = rest_of(tile, number, blocks), part_of(tile, number, blocks)
    decode(tile, span(tile, "r", number, rows), shared)
    for stage, total in zip(kernel.stages, totals, strict=True):
        for axis, own in zip(shared, stage.axes, strict=False):
            tile.env[own.name] = tile.env[axis.name]
        tile.columns = columns_of(kernel, stage)
        RowStage(tile, stage, total, split).emit()
    for line in tile.pending.values():
        lines.add(line)
    return blocks if split is None else blocks * split.parts


def row_split(kernel: Kernel, tiles: Tiles) -> Split | None:
    """How the reductions of rows are divided; None: they are not."""
    if tiles.split == 1:
        return None
    (stage,) = kernel.stages
    points, dtype = product(axis.extent for axis in stage.axes), stage.reductions[0].body.dtype
    assert isinstance(points, int)
    return Split(
        stage, tiles.split, dtype, tiles.split * points * len(stage.reductions) * dtype.bytes
    )


@dataclass
class RowStage:
    """One stage over the rows of a tile. total: points along the columns. split: how its reductions
    are divided; None: they are not."""

    tile: RowTile
    stage: Stage
    total: Dim
    split: Split | None = None

    def emit(self) -> None:
        tile, stage = self.tile, self.stage
        own = bool(tile.columns) and not stage.reduce_axes
        fits = isinstance(self.total, int) and self.total <= tile.shape["c"]
        if not tile.whole:
            tile.barrier()
        if stage.reductions:
            tile.accumulators = self._reduced(fits)
            tile.columns = ()
            tile.masks.pop("c", None)
        if not own:
            self._stores()
        elif fits:
            self._columns(None)
            self._stores()
        else:
            count = tile.offset(ceildiv(self.total, tile.shape["c"]))
            with tile.lines.block(f"for step in range(0, {count.text}):"):
                self._columns(Term("step"))
                self._stores()

    def _stores(self) -> None:
        if self.split is not None:
            self.split.store(self.tile)
            return
        for store in self.stage.stores:
            self.tile.store(store)

    def _columns(self, block: Term | None) -> Term:
        points = span(self.tile, "c", block, self.total)
        decode(self.tile, points, self.tile.columns)
        return points

    def _reduced(self, fits: bool) -> list[Term]:
        tile, lines = self.tile, self.tile.lines
        folds = [_Fold(tile, reduction, n) for n, reduction in enumerate(self.stage.reductions)]
        if not self.stage.reduce_axes:
            return [fold.single() for fold in folds]
        for fold in folds:
            fold.begin()
        steps = ceildiv(self.total, tile.shape["c"])
        if fits and self.split is None:
            self._step(folds, None)
        else:
            first, last = "0", tile.offset(steps).text
            if self.split is not None:
                first, last = self.split.steps(tile, steps)
            with lines.block(f"for step in range({first}, {last}):"):
                self._step(folds, Term("step"))
        return [fold.end() for fold in folds]

    def _step(self, folds: Sequence[_Fold], block: Term | None) -> None:
        """Take some columns; of columns of words all numbers, one after the other."""
        points, digits = self._columns(block), digits_of(self.stage)
        count = digits.extent if digits else 1
        assert isinstance(count, int)
        for place in range(count):
            if digits:
                self.tile.env[digits.name] = Term(f"tl.full([], {place}, {self.tile.index})")
                self.tile.places[digits.name] = place
            for fold in folds:
                fold.step(points)


class _Fold:
    """One reduction: an accumulator for every place of the tile, folded along the columns last."""

    def __init__(self, tile: RowTile, reduction: Reduction, number: int) -> None:
        self.tile, self.reduction = tile, reduction
        self.lines = tile.lines
        self.dtype = reduction.body.dtype
        self.name = self.lines.fresh() + f"_{reduction.kind}{number}"
        self.kind = reduction.kind
        self.body = reduction.body
        if reduction.factor is not None:
            self.body = Apply("mul", (self.body, reduction.factor), self.dtype)
        self.finds = self.kind.startswith("arg")
        self.last = _LAST[tile.index]
        self.wide = self._wide()
        self.shape = tile.shape_of(frozenset(tile.shape))

    def _wide(self) -> DType:
        """The type that is added up or compared in."""
        if self.dtype in HALVES:
            return DType.F32
        small = self.dtype is DType.BOOL or (self.dtype.is_integer and self.dtype.bits < 32)
        return DType.I32 if small else self.dtype

    def _neutral(self) -> str:
        value = identity(self.kind, self.wide)
        if self.dtype is DType.BOOL and not self.finds:
            value = identity("max" if self.kind in ("max", "sum") else "min", DType.BOOL)
        text = str(value) if value - value == 0 else f'float("{value}")'
        return f"tl.full({self.shape}, {text}, {register_type(self.wide)})"

    def begin(self) -> None:
        """The accumulator before the first step."""
        self.lines.add(f"{self.name} = {self._neutral()}")
        if self.finds:
            start = -1 if self.reduction.last else self.last
            self.lines.add(f"{self.name}_at = tl.full({self.shape}, {start}, {self.tile.index})")

    def _body(self) -> str:
        value = self.tile.value(self.body)
        text = self.tile.widened(value, self.dtype)
        if self.wide is not self.dtype:
            text = f"{text}.to({register_type(self.wide)})"
        x = self.lines.let(text)
        if self.finds and self.dtype.is_float:
            x = self.lines.let(f"tl.where({x} != {x}, {self._neutral()}, {x})")
        mask = self.tile.masks.get("c", "")
        return self.lines.let(f"tl.where({mask}, {x}, {self._neutral()})") if mask else x

    def step(self, points: Term) -> None:
        """Take the elements at some columns."""
        x, name = self._body(), self.name
        if not self.finds:
            kind = self.kind
            if self.dtype is DType.BOOL:
                kind = "max" if kind in ("max", "sum") else "min"
            self.lines.add(f"{name} = " + TAKES[kind].format(a=name, x=x))
            return
        sign = {"argmax": ">", "argmin": "<"}[self.kind] + "=" * self.reduction.last
        better = f"({x} {sign} {name})"
        if not self.reduction.last:
            better += f" | ({name}_at == {self.last})"
        mask = self.tile.masks.get("c", "")
        better = self.lines.let(f"({better}) & {mask}" if mask else better)
        at = self.tile.widened(points, DType.I32 if self.tile.index == "tl.int32" else DType.I64)
        self.lines.add(f"{name} = tl.where({better}, {x}, {name})")
        self.lines.add(f"{name}_at = tl.where({better}, {at}, {name}_at)")

    def end(self) -> Term:
        """The result for every row."""
        name = self.name
        rows = frozenset({"r"})
        if self.finds:
            fold = "max" if self.kind == "argmax" else "min"
            best = self.lines.let(f"tl.{fold}({name}, axis=1, keep_dims=True)")
            last = self.reduction.last
            none = f"tl.full({self.shape}, {-1 if last else self.last}, {self.tile.index})"
            at = self.lines.let(f"tl.where({name} == {best}, {name}_at, {none})")
            found = f"tl.{'max' if last else 'min'}({at}, axis=1, keep_dims=True)"
            return Term(self.lines.let(f"({found}).to(tl.int64)"), rows)
        kind = self.kind
        if self.dtype is DType.BOOL:
            kind = "max" if kind in ("max", "sum") else "min"
        folded = name
        if self.tile.shape["c"] > 1:
            folded = f"tl.reduce({name}, 1, {_FOLDS[kind]}, keep_dims=True)"
        if self.dtype is DType.BOOL:
            folded = f"({folded} != 0)"
        elif self.wide is not self.dtype:
            folded = f"({folded}).to({register_type(self.dtype)})"
        return Term(self.lines.let(folded), rows)

    def single(self) -> Term:
        """The result of a reduction over no axes: its only element."""
        value = self.tile.value(self.reduction.body)
        if self.finds:
            return self.tile.named("tl.full([], 0, tl.int64)")
        return value
