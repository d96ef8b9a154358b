"""Several reductions over the trailing axes of shared rows (softmax, norms): a stage for each.

What several of them read is computed once and kept, in an output or on the stack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...errors import InternalError
from ...ir.dims import Dim, product
from ...ir.graph import Graph, Node, Value
from ..expr import Buffer, Expr, Load, cost
from ..kernel import Axis, Stage, Store
from .reductions import REDUCE, accumulated
from .scope import Index, Scope, linear

MAX_LOCAL_BYTES = 64 << 10  # a row that is kept on the stack between stages
RECOMPUTE_COST = 6  # values cheaper than this are computed again instead of kept


@dataclass
class _Rows:
    """State while a rows kernel is built.

    spare: an output of whole rows that is written after everything else; until then its memory may
    hold another row.
    """

    scope: Scope
    shape: tuple[Dim, ...]  # of a full value
    lead: int  # shared axes
    shared: tuple[Axis, ...]
    index: Index
    outputs: dict[Value, Buffer]
    stages: list[Stage]
    stored: set[Value]
    spare: Value | None

    def tail(self) -> tuple[tuple[Axis, ...], Index]:
        """Axes and index of one row's elements."""
        axes, index = self.scope.axes(self.shape[self.lead :])
        return self.shared + axes, self.index + index


def row_stages(
    scope: Scope, region: Graph, reducers: list[Node], outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """(stages, how many leading axes they share) of reductions over the trailing axes of rows."""
    shape, lead = _row_shape(reducers)
    shared, index = scope.axes(shape[:lead])
    uses = _use_counts(region)
    kept = [
        node.output
        for node in region.nodes
        if node not in reducers and uses.get(node.output, 0) > 1 and node.output.shape == shape
    ]
    early = {*kept, *(node.output for node in reducers)}
    spare = next((value for value in reversed(outputs) if value not in early), None)
    rows = _Rows(scope, shape, lead, shared, index, outputs, [], set(), spare)
    for node in region.nodes:
        if node in reducers:
            _row_reduction(rows, node)
        elif node.output in kept:
            _keep_row(rows, node.output)
    for value in outputs:
        if value not in rows.stored:
            _row_output(rows, value)
    return rows.stages, lead


def _row_shape(reducers: list[Node]) -> tuple[tuple[Dim, ...], int]:
    """(shape of the rows' tensor, number of leading axes) that the reductions share.

    Raises InternalError unless all reduce the same trailing axes and keep them as ones.
    """
    shape = reducers[0].inputs[0].shape
    leads = set()
    for node in reducers:
        axes = sorted(_axes_of(node))
        trailing = list(range(len(shape) - len(axes), len(shape)))
        if axes != trailing or not node.attrs["keepdims"] or node.inputs[0].shape != shape:
            raise InternalError(f"'{node.op}' does not reduce whole rows of {shape}")
        leads.add(axes[0])
    if len(leads) != 1:
        raise InternalError("reductions over different rows in one group")
    return shape, leads.pop()


def _axes_of(node: Node) -> list[int]:
    rank = node.inputs[0].type.rank
    axes: Any = node.attrs.get("axes", (node.attrs.get("axis"),))
    return [axis % rank for axis in axes]


def _use_counts(region: Graph) -> dict[Value, int]:
    counts: dict[Value, int] = {}
    for node in region.nodes:
        for value in node.inputs:
            counts[value] = counts.get(value, 0) + 1
    for value in region.outputs:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _row_reduction(rows: _Rows, node: Node) -> None:
    """A stage that reduces a row to one number, kept in local memory."""
    scope, value = rows.scope, node.output
    at = rows.index + (0,) * (len(rows.shape) - rows.lead)
    reduced = REDUCE[node.op](scope, node, at)
    result = reduced.finish(accumulated(0, reduced.reduction))
    local = Buffer(f"l{next(scope.numbers)}", value.dtype, 1)
    stores = [Store(local, 0, result)]
    if value in rows.outputs:
        stores.append(scope.store(value, rows.outputs[value], at, result))
        rows.stored.add(value)
    rows.stages.append(Stage(rows.shared, reduced.axes, (reduced.reduction,), tuple(stores)))
    scope.results[value] = lambda _: Load(local, 0)


def _keep_row(rows: _Rows, value: Value) -> None:
    """Compute a row once: into its output, the output that is written last, or the stack."""
    scope = rows.scope
    axes, index = rows.tail()
    element = scope.element(value, index)
    if value not in rows.outputs and cost(element) < RECOMPUTE_COST:
        return
    if value in rows.outputs:
        buffer, memory = rows.outputs[value], value
        rows.stored.add(value)
    else:
        tail = product(rows.shape[rows.lead :])
        if rows.spare is not None and rows.spare.type == value.type:
            memory, buffer = rows.spare, rows.outputs[rows.spare]
            rows.spare = None
        elif isinstance(tail, int) and tail * value.dtype.bytes <= MAX_LOCAL_BYTES:
            buffer = Buffer(f"l{next(scope.numbers)}", value.dtype, tail)
            _local_row(rows, value, buffer, axes, index, element)
            return
        else:
            return
    store = scope.store(memory, buffer, index, element)
    rows.stages.append(Stage(axes, (), (), (store,)))
    scope.results[value] = lambda at: scope.load(buffer, memory.type, at)


def _local_row(
    rows: _Rows, value: Value, buffer: Buffer, axes: tuple[Axis, ...], index: Index, element: Expr
) -> None:
    lead, tail = rows.lead, rows.shape[rows.lead :]
    position = linear(index[lead:], tail)
    rows.stages.append(Stage(axes, (), (), (Store(buffer, position, element),)))  # type: ignore[arg-type]
    rows.scope.results[value] = lambda at: Load(buffer, linear(at[lead:], tail))  # type: ignore[arg-type]


def _row_output(rows: _Rows, value: Value) -> None:
    scope, rank = rows.scope, len(rows.shape)
    if value.shape == rows.shape:
        axes, index = rows.tail()
    elif value.shape == rows.shape[: rows.lead] + (1,) * (rank - rows.lead):
        axes, index = rows.shared, rows.index + (0,) * (rank - rows.lead)
    else:
        raise InternalError(f"{value} does not consist of rows of {rows.shape}")
    store = scope.store(value, rows.outputs[value], index, scope.element(value, index))
    rows.stages.append(Stage(axes, (), (), (store,)))
    rows.stored.add(value)
