"""What rows are scaled by before they are multiplied: found by every program for its own rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from ....compiler.ir.dims import Dim, product, symbol
from ....compiler.kernel import expr as ex
from ....compiler.kernel.expr import Expr, Load
from ....compiler.kernel.kernel import Stage, Store
from ....compiler.kernel.schedule.tiles import Tiles
from .points import decode, span
from .rows import RowStage, RowTile
from .values import DeviceTile, Term

ELEMENTS = 4096  # of a program's rows that are reduced at once


@dataclass(frozen=True)
class RowPrologue:
    """The stages before a product: numbers for every row, then the elements of rows.

    product: the stage that multiplies them. first: tells the programs of the first columns, which
    store the elements where others read them; None: all are.
    """

    stages: Sequence[Stage]
    product: Stage
    first: Term | None

    def emit(self, tiles: Tiles, left: DeviceTile, row: Term, env: Mapping[str, Term]) -> None:
        """Emit the reductions, for the block `row` of rows; `left` then has the elements."""
        *scales, _ = self.stages
        shape = {"r": tiles.rows, "c": max(16, ELEMENTS // tiles.rows)}
        tile = RowTile(left.lines, shape, left.index, left.pointers, dict(env), whole=False)
        for stage in scales:
            rows = stage.axes[0]
            decode(tile, span(tile, "r", row, rows.extent), (rows,))
            tile.columns = stage.reduce_axes
            total = product(axis.extent for axis in stage.reduce_axes)
            RowStage(tile, _of_one_row(stage), total).emit()
        left.registers = {
            name: Term(term.text, frozenset({"m"}) if term.dims else frozenset())
            for name, term in tile.registers.items()
        }
        left.inlined = {self._elements.buffer.name: self._element}

    @property
    def _elements(self) -> Store:
        return self.stages[-1].stores[0]

    def _here(self, expression: Expr) -> Expr:
        """An expression of the last stage before the product, by that one's names of axes."""
        rows, column = self.stages[-1].axes
        (depth,) = self.product.reduce_axes
        names: dict[str, Dim] = {
            rows.name: symbol(self.product.axes[0].name), column.name: symbol(depth.name)
        }  # fmt: skip
        return ex.substitute_indices(expression, names)

    def _element(self, _: Load) -> Expr:
        return self._here(_of_one_row(self.stages[-1]).stores[0].value)

    def store(self, left: DeviceTile) -> None:
        """Store the elements that the left tile has at this step, where others read them."""
        for store in self.stages[-1].stores[1:]:
            at = self._here(Load(store.buffer, store.offset))
            assert isinstance(at, Load)
            value = left.value(self._element(at))
            address = left.address(at.offset, (), None)
            left.lines.add(left.stored(store, value, address, self.first))


def _of_one_row(stage: Stage) -> Stage:
    """The stage with memory that has an element per row as a row's own."""
    row = symbol(stage.axes[0].name)

    def load(part: Expr) -> Expr:
        per_row = isinstance(part, Load) and part.buffer.local is not None and part.offset == row
        if per_row and isinstance(part, Load):
            return Load(replace(part.buffer, local=1), 0)
        return part

    def store(given: Store) -> Store:
        value = ex.rebuilt(given.value, load)
        if given.buffer.local is None or given.offset != row:
            return replace(given, value=value)
        return replace(given, value=value, offset=0, buffer=replace(given.buffer, local=1))

    reductions = tuple(r.with_parts(partial(ex.rebuilt, change=load)) for r in stage.reductions)
    return replace(stage, reductions=reductions, stores=tuple(map(store, stage.stores)))
