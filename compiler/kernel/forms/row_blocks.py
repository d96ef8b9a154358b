"""Attention in blocks of rows: products, softmax and products again while a block is in the cache.

The scores of all queries against all keys are a large matrix that is written and read several
times. A block of queries needs its own rows of it alone: T. Dao et al., "FlashAttention",
https://arxiv.org/abs/2205.14135. Here a block's rows are whole, so that nothing has to be scaled
again when a larger score comes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from ...errors import InternalError
from ...ir.dims import Dim, substitute, symbol, symbols_of
from ...ir.graph import Graph, Node, Value
from ...ir.types import DType
from .. import expr as ex
from ..axis_names import blocks_within_part, within_part
from ..expr import Acc, Apply, Buffer, Expr, Load
from ..kernel import CACHE_LINE, Axis, Kernel, Stage, Store
from ..lower.scope import strides_of

Lower = Callable[[Graph], "tuple[Kernel, tuple[Value, ...]]"]

LINE_ELEMENTS = CACHE_LINE // DType.F32.bytes


class NotRowByRow(InternalError):
    """A part of attention reads or writes more than the rows of its block."""


@dataclass(frozen=True)
class RowBlocks:
    """Three fused nodes: scores of all queries, their softmax, and what it weighs.

    rows: queries in a block.
    """

    scores: Node
    softmax: Node
    result: Node
    rows: int

    @property
    def stride(self) -> int:
        """Elements from one row of scores in a block to the next."""
        return row_stride(self.scores.output, self.softmax.output)


def row_stride(scores: Value, weights: Value) -> int:
    """Elements from one row of scores to the next, where rows begin on cache lines.

    Columns of the scores may be apart as panels and what is in them.
    """
    leading = weights.type.rank - 1
    columns = max(weights.type.static_shape[-1], math.prod(scores.type.static_shape[leading:]))
    return -(-columns // LINE_ELEMENTS) * LINE_ELEMENTS


def row_block_kernel(blocks: RowBlocks, buffers: Mapping[Value, Buffer], lower: Lower) -> Kernel:
    """The kernel of a blocks. buffers: of the values around it. lower: of a region, not simplified.

    Raises NotRowByRow where a part does not.
    """
    parts = [
        _Part(blocks, number, node, *lower(node.regions[0]))
        for number, node in enumerate((blocks.scores, blocks.softmax, blocks.result))
    ]
    scores = Buffer("scores", DType.F32, blocks.rows * blocks.stride)
    weights = replace(scores, name="weights")
    inside = {blocks.scores.output: scores, blocks.softmax.output: weights}
    first, middle, last = (part.stages({**buffers, **inside}) for part in parts)
    middle = _in_place(middle, scores, weights)
    last = [_renamed(stage, weights, scores) for stage in last]
    middle, last = _scale_late(middle, last, scores)
    kernel = parts[-1].kernel
    params = tuple(buffers.values())
    operators = tuple(op for part in parts for op in part.kernel.operators)
    shared = parts[0].lead + 1
    nodes = tuple(name for part in parts for name in part.kernel.nodes)
    return Kernel(kernel.name, params, 1, (*first, *middle, *last), shared, operators, nodes)


@dataclass
class _Part:
    """One of the nodes, its loops rearranged: leading axes and blocks, then rows and the rest."""

    blocks: RowBlocks
    number: int
    node: Node
    kernel: Kernel
    inputs: tuple[Value, ...]

    @property
    def lead(self) -> int:
        """Axes before the rows."""
        return self.blocks.softmax.output.type.rank - 2

    def stages(self, outside: Mapping[Value, Buffer]) -> list[Stage]:
        """The stages over blocks of rows. outside: buffers of the node's operands and result."""
        region = self.node.regions[0]
        values = dict(zip(region.inputs, self.node.inputs, strict=True))
        given = [values[value] for value in self.inputs]
        moved = dict(zip(self.kernel.params, (*given, self.node.output), strict=True))
        return [self._stage(stage, moved, outside) for stage in self.kernel.stages]

    def _row(self, stage: Stage) -> Axis:
        """The axis of the rows."""
        row = stage.axes[self.lead if self.number == 1 else len(stage.axes) - 2]
        shape = self.blocks.softmax.output.type.static_shape
        extents = [axis.extent for axis in stage.axes[: self.lead]]
        if extents != list(shape[:-2]) or row.extent != shape[-2] or self._uneven(stage):
            raise NotRowByRow(f"'{self.kernel.operators[0]}' does not go over rows of {shape}")
        return row

    def _uneven(self, stage: Stage) -> bool:
        return self.number == 2 and len(stage.axes) - self.lead not in (2, 3)

    def _stage(
        self, stage: Stage, values: Mapping[Buffer, Value], outside: Mapping[Value, Buffer]
    ) -> Stage:
        row, rows = self._row(stage), self.blocks.rows
        block = Axis(blocks_within_part(row.name, self.number), row.extent // rows)  # type: ignore[operator]
        within = Axis(within_part(row.name, self.number), rows)
        names = {a.name: within_part(a.name, self.number) for a in stage.axes + stage.reduce_axes}
        symbols: dict[str, Dim] = {name: symbol(new) for name, new in names.items()}
        symbols[row.name] = symbol(block.name) * rows + symbol(within.name)

        def renamed(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
            return tuple(Axis(names[a.name], rows if a == row else a.extent) for a in axes)

        lead = renamed(stage.axes[: self.lead])
        changed = stage.map_indices(lambda dim: substitute(dim, symbols))
        place = _Places(self.blocks, self.number, values, outside, lead, block, within)
        return replace(
            place.moved(changed),
            axes=(*lead, block, *renamed(stage.axes[self.lead :])),
            reduce_axes=renamed(stage.reduce_axes),
        )


@dataclass
class _Places:
    """Where the accesses of a part go: to the kernel's operands or to the block's memory."""

    blocks: RowBlocks
    number: int
    values: Mapping[Buffer, Value]
    outside: Mapping[Value, Buffer]
    lead: tuple[Axis, ...]
    block: Axis
    row: Axis

    def moved(self, stage: Stage) -> Stage:
        """The stage with all loads and stores at their new places."""

        def load(part: Expr) -> Expr:
            if not isinstance(part, Load):
                return part
            buffer, offset = self._access(part.buffer, part.offset)
            return replace(part, buffer=buffer, offset=offset)

        def place(store: Store) -> Store:
            buffer, offset = self._access(store.buffer, store.offset)
            return replace(store, buffer=buffer, offset=offset)

        return _rebuilt_stage(stage, load, place)

    def _access(self, buffer: Buffer, offset: Dim) -> tuple[Buffer, Dim]:
        if buffer.local is not None:  # one for every row
            rows = buffer.local * self.blocks.rows
            own = Buffer(f"{buffer.name}_{self.number}", buffer.dtype, rows)
            return own, offset + symbol(self.row.name) * buffer.local
        value = self.values[buffer]
        place = self.outside[value]
        if place.local is None:
            return place, offset
        strides, _ = strides_of(value.type)
        lead = len(self.lead)
        start: Dim = symbol(self.block.name) * self.blocks.rows * strides[lead]
        units: dict[str, Dim] = {axis.name: 0 for axis in self.lead if axis.extent == 1}
        for axis, stride in zip(self.lead, strides, strict=False):
            start = start + symbol(axis.name) * stride
        inside = substitute(offset - start, units)
        outer = {axis.name for axis in (*self.lead, self.block)}
        if symbols_of(inside) & outer:
            raise NotRowByRow(f"{value} is not read row by row")
        return place, inside + symbol(self.row.name) * (self.blocks.stride - strides[lead])


def _rebuilt_stage(
    stage: Stage, change: Callable[[Expr], Expr], place: Callable[[Store], Store]
) -> Stage:
    """The stage with every expression rebuilt and every store placed."""
    reductions = tuple(r.with_parts(partial(ex.rebuilt, change=change)) for r in stage.reductions)
    stores = tuple(place(replace(s, value=ex.rebuilt(s.value, change))) for s in stage.stores)
    return replace(stage, reductions=reductions, stores=stores)


def _loads(stage: Stage, buffer: Buffer) -> list[Load]:
    return [
        part
        for expression in stage.expressions()
        for part in ex.walk(expression)
        if isinstance(part, Load) and part.buffer == buffer
    ]


def _in_place(stages: list[Stage], scores: Buffer, weights: Buffer) -> list[Stage]:
    """The stages with weights in the memory of the scores that they are made of.

    Raises NotRowByRow where scores are read later or elsewhere than they are overwritten.
    """
    first = next(
        n for n, stage in enumerate(stages) if any(s.buffer == weights for s in stage.stores)
    )
    written = {s.offset for s in stages[first].stores if s.buffer == weights}
    read = {load.offset for load in _loads(stages[first], scores)}
    if any(_loads(stage, scores) for stage in stages[first + 1 :]) or not read <= written:
        raise NotRowByRow("scores are read elsewhere than their weights are written")
    return [_renamed(stage, weights, scores) for stage in stages]


def _renamed(stage: Stage, old: Buffer, new: Buffer) -> Stage:
    def load(part: Expr) -> Expr:
        found = isinstance(part, Load) and part.buffer == old
        return replace(part, buffer=new) if found and isinstance(part, Load) else part

    def place(store: Store) -> Store:
        return replace(store, buffer=new) if store.buffer == old else store

    return _rebuilt_stage(stage, load, place)


def _scale_late(
    middle: list[Stage], last: list[Stage], local: Buffer
) -> tuple[list[Stage], list[Stage]]:
    """The division by the sum of a row's weights done on the result, where it is the last step.

    The result has fewer columns than there are weights.
    """
    *before, final = middle
    (product,) = last
    if final.reductions or len(final.stores) != 1 or len(product.reductions) != 1:
        return middle, last
    value = final.stores[0].value
    if not (isinstance(value, Apply) and value.op == "mul" and len(value.args) == 2):
        return middle, last
    weight, factor = value.args
    if not (isinstance(weight, Load) and weight == Load(local, final.stores[0].offset)):
        return middle, last
    row, column = final.axes[-2], final.axes[-1]
    if any(isinstance(p, Load) and p.buffer.local is None for p in ex.walk(factor)):
        return middle, last
    if ex.depends_on(factor, column.name) or len(_loads(product, local)) != 1:
        return middle, last
    names = {row.name: symbol(product.axes[-2].name)}
    scaled = Apply("mul", (Acc(0, DType.F32), ex.substitute_indices(factor, names)), DType.F32)

    def scale(part: Expr) -> Expr:
        return scaled if isinstance(part, Acc) else part

    return before, [_rebuilt_stage(product, scale, lambda store: store)]
