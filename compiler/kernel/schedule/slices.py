"""Stages whose points go in order, but for those along an axis: updates by slices."""

from __future__ import annotations

from ...ir.dims import coefficient
from .. import expr as ex
from ..kernel import Axis, Stage

LEAST = 4  # elements of a slice of known length that a vector is worth


def slice_axis(stage: Stage) -> Axis | None:
    """The innermost axis of a stage that goes in order, where points along it need not.

    They write neighbouring elements, which no data scatter, and read none of another's.
    """
    if not stage.sequential or len(stage.stores) != 1 or not stage.axes:
        return None
    axis, store = stage.axes[-1], stage.stores[0]
    if isinstance(axis.extent, int) and axis.extent < LEAST:
        return None
    if coefficient(store.offset, axis.name) != 1:
        return None
    if any(ex.depends_on(index, axis.name) for index, _ in store.dynamic):
        return None
    own = (store.offset, store.dynamic)
    for expression in stage.expressions():
        for part in ex.walk(expression):
            reads = isinstance(part, ex.Load) and part.buffer == store.buffer
            if reads and (part.offset, part.dynamic) != own:  # type: ignore[union-attr]
                return None
    return axis
