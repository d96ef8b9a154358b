"""What follows an anchor element by element: the stores of its group."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from ...errors import InternalError
from ...ir.dims import product
from ...ir.graph import Value
from ...ir.ops.registry import Trait, has_trait
from ..expr import Buffer
from ..kernel import Store
from .scope import Index, Scope, linear


def following_stores(
    scope: Scope, anchors: Sequence[Value], index: Index, outputs: Mapping[Value, Buffer]
) -> tuple[Store, ...]:
    """The stores of outputs that follow from element `index` of the anchors.

    Raises InternalError for an output that does not follow element by element.
    """
    stores = []
    for value, buffer in outputs.items():
        source = value
        while source.producer is not None and source.producer.op == "reshape" and (
            source not in anchors
        ):  # fmt: skip
            source = source.producer.inputs[0]
        at = _forward(source, anchors, index)
        if at is None:
            raise InternalError(f"{value} does not follow {anchors} element by element")
        if source is value:
            stores.append(scope.store(value, buffer, at, scope.element(value, at)))
            continue
        flat = value.type.with_shape((product(value.shape),))
        offset, dynamic = scope.address(flat, (linear(at, source.shape),))
        stores.append(Store(buffer, offset, scope.element(source, at), dynamic))
    return tuple(stores)


def _forward(value: Value, anchors: Container[Value], index: Index) -> Index | None:
    """The index into `value` of the element computed from element `index` of the anchors."""
    if value in anchors:
        return index
    node = value.producer
    if node is None:
        return None
    for operand in node.inputs:
        at = _forward(operand, anchors, index)
        if at is None:
            continue
        if node.op == "transpose":
            return tuple(at[axis] for axis in node.attrs["perm"])
        if has_trait(node, Trait.POINTWISE) and operand.shape == value.shape:
            return at
        return None
    return None
