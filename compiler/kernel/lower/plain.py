"""From a fused region to stages: the plain loops of its operators.

Five shapes: pointwise (one stage, no reduction), anchored (one reduction, or several products of
one matrix, and what follows element by element), rows (several reductions over the trailing axes of
shared rows: softmax, norms), attention, and pieces (concat: one stage per piece; scatter: a copy
and ordered updates).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ...errors import InternalError
from ...ir.dims import Dim, product, symbol
from ...ir.graph import Graph, Node, Value
from ...ir.ops.registry import Trait, has_trait
from ..expr import Buffer, Expr, substitute_indices
from ..kernel import Axis, Reduction, Stage
from . import maps as _maps  # noqa: F401  (registers the rules)
from .attention import ATTENTION, attention_stages
from .following import following_stores
from .reductions import REDUCE, accumulated
from .rows import row_stages
from .scatter import SCATTER
from .scope import Index, Scope


def plain_stages(
    scope: Scope, region: Graph, outputs: dict[Value, Buffer]
) -> tuple[list[Stage], int]:
    """The stages of a region, and how many axes they share.

    scope: knows the buffers of the region's inputs. Raises InternalError for a region that has no
    loop form.
    """
    for node in region.nodes:
        if node.op == ATTENTION:
            return attention_stages(scope, node, outputs)
    reducers = [node for node in region.nodes if node.op in REDUCE]
    special = [node for node in region.nodes if node.op in SCATTER]
    concats = [n for n in region.nodes if n.op == "concat" and n.output in outputs]
    if special:
        return SCATTER[special[0].op](scope, special[0], outputs[special[0].output]), 0
    if not reducers and len(concats) == 1 and len(outputs) == 1:
        return _pieces(scope, concats[0], outputs[concats[0].output]), 0
    if not reducers:
        return _pointwise(scope, outputs), 0
    if _side_by_side(reducers) and follows(reducers, region):
        return [_anchored(scope, reducers, outputs)], 0
    return row_stages(scope, region, reducers, outputs)


def _pointwise(scope: Scope, outputs: dict[Value, Buffer]) -> list[Stage]:
    """One stage for every shape among the outputs."""
    by_shape: dict[tuple[Dim, ...], list[Value]] = {}
    for value in outputs:
        by_shape.setdefault(value.shape, []).append(value)
    stages = []
    for shape, values in by_shape.items():
        axes, index = scope.axes(shape)
        stores = tuple(scope.store(v, outputs[v], index, scope.element(v, index)) for v in values)
        stages.append(Stage(axes, (), (), stores))
    return stages


def _pieces(scope: Scope, node: Node, buffer: Buffer) -> list[Stage]:
    """A concat: one stage copies each operand into its part of the output."""
    axis = node.attrs["axis"] % node.output.type.rank
    start: Dim = 0
    stages = []
    for value in node.inputs:
        axes, index = scope.axes(value.shape)
        target = (*index[:axis], index[axis] + start, *index[axis + 1 :])
        store = scope.store(node.output, buffer, target, scope.element(value, index))
        stages.append(Stage(axes, (), (), (store,)))
        start = start + value.shape[axis]
    return stages


def _side_by_side(reducers: list[Node]) -> bool:
    """Whether it is one reduction, or products of one matrix with results of one type."""
    first = reducers[0]
    return all(
        node.op == "matmul"
        and node.inputs[0] is first.inputs[0]
        and node.output.type == first.output.type
        for node in reducers[1:]
    )


def follows(reducers: list[Node], region: Graph) -> bool:
    """Whether every node behind the reductions works element by element on their outputs."""
    behind: set[Value] = {reducer.output for reducer in reducers}
    for node in region.nodes:
        if node in reducers or not any(value in behind for value in node.inputs):
            continue
        behind.update(node.outputs)
        if node.op in ("transpose", "reshape"):
            continue
        if not has_trait(node, Trait.POINTWISE) or (
            product(node.output.shape) != product(reducers[0].output.shape)
        ):
            return False
    return all(value in behind for value in region.outputs)


def _anchored(scope: Scope, reducers: list[Node], outputs: dict[Value, Buffer]) -> Stage:
    anchors = [reducer.output for reducer in reducers]
    axes, index = scope.axes(anchors[0].shape)
    # a dim of one is always indexed with 0 when an operand is broadcast
    index = tuple(0 if axis.extent == 1 else at for axis, at in zip(axes, index, strict=True))
    reductions: list[Reduction] = []
    reduce_axes: tuple[Axis, ...] = ()
    for reducer in reducers:
        reduced = REDUCE[reducer.op](scope, reducer, index)
        reduce_axes = reduce_axes or reduced.axes
        same = zip(reduced.axes, reduce_axes, strict=True)
        names: dict[str, Dim] = {own.name: symbol(first.name) for own, first in same}
        renamed = reduced.reduction.with_parts(partial(substitute_indices, values=names))
        result = reduced.finish(accumulated(len(reductions), reduced.reduction))
        reductions.append(renamed)
        scope.results[reducer.output] = _only_at(index, result)
    stores = following_stores(scope, anchors, index, outputs)
    return Stage(axes, reduce_axes, tuple(reductions), stores)


def _only_at(index: Index, result: Expr) -> Callable[[Index], Expr]:
    """A reduction's result, which is known at one index."""

    def element(at: Index) -> Expr:
        if at != index:
            raise InternalError(f"the reduction's result is read at {at}, not at {index}")
        return result

    return element
