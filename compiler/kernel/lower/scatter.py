"""Scatter operators: copy the data, then apply the updates in order."""

from __future__ import annotations

from collections.abc import Callable

from ...ir.graph import Node, Value
from ..expr import Apply, Buffer, Expr, Load
from ..kernel import Stage, Store
from .maps import checked_index
from .scope import Index, Scope

Rule = Callable[[Scope, Node, Buffer], list[Stage]]


def _copy(scope: Scope, value: Value, node: Node, buffer: Buffer) -> Stage:
    axes, index = scope.axes(value.shape)
    offset, _ = scope.address(node.output.type, index)
    return Stage(axes, (), (), (Store(buffer, offset, scope.element(value, index)),))


def _update(
    scope: Scope, node: Node, buffer: Buffer, target: Index, update: Expr
) -> tuple[Store, ...]:
    offset, dynamic = scope.address(node.output.type, target)
    kind = node.attrs["reduction"]
    if kind != "none":
        previous = Load(buffer, offset, dynamic)
        update = Apply(kind, (previous, update), node.output.dtype)
    return (Store(buffer, offset, update, dynamic),)


def _scatter_elements(scope: Scope, node: Node, buffer: Buffer) -> list[Stage]:
    data, indices, updates = node.inputs
    axis = node.attrs["axis"] % data.type.rank
    axes, index = scope.axes(indices.shape)
    position = checked_index(scope.element(indices, index), data.shape[axis])
    target = (*index[:axis], position, *index[axis + 1 :])
    stores = _update(scope, node, buffer, target, scope.element(updates, index))
    return [_copy(scope, data, node, buffer), Stage(axes, (), (), stores, sequential=True)]


def _scatter_nd(scope: Scope, node: Node, buffer: Buffer) -> list[Stage]:
    data, indices, updates = node.inputs
    depth = indices.shape[-1]
    axes, index = scope.axes(updates.shape)
    outer = index[: indices.type.rank - 1]
    positions = tuple(
        checked_index(scope.element(indices, (*outer, d)), data.shape[d]) for d in range(depth)
    )
    target = (*positions, *index[indices.type.rank - 1 :])
    stores = _update(scope, node, buffer, target, scope.element(updates, index))
    return [_copy(scope, data, node, buffer), Stage(axes, (), (), stores, sequential=True)]


SCATTER: dict[str, Rule] = {"scatter_elements": _scatter_elements, "scatter_nd": _scatter_nd}
