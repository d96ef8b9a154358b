"""Where the elements of small integer tensors come from that are known in part.

Exporters put shapes and pads together from a few numbers that a run computes and many that are
known: what moves elements is looked through, so that only those few are read at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...compiler.ir import DType, Node, Value
from .elements import MAX_ELEMENTS, MOVES, Elements, Undecided, apply

Known = Callable[[Value], Elements | None]


@dataclass(frozen=True)
class Element:
    """An element of a value that a run computes; place: among all, the last axis varies fastest."""

    value: Value
    place: int


class Sources:
    """Finds them. known: the elements of a value as dims, where all are known."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._found: dict[Value, Elements] = {}

    def of(self, value: Value) -> Elements:
        """The elements of an integer tensor of static shape: dims, or Elements of others."""
        if value not in self._found:
            known = self._known(value)
            moved = self._moved(value) if known is None else known
            self._found[value] = _own(value) if moved is None else moved
        return self._found[value]

    def _moved(self, value: Value) -> Elements | None:
        node = value.producer
        if node is None or not all(map(_is_small, (value, *node.inputs))):
            return None
        if node.op == "cast":
            return self.of(node.inputs[0]) if _keeps_values(node) else None
        if node.op not in MOVES:
            return None
        parts = [self.of(item) for item in node.inputs]
        try:
            return apply(node.op, node.attrs, parts, value.dtype)
        except Undecided:  # what is moved there depends on what a run computes
            return None


def _own(value: Value) -> Elements:
    shape = value.type.static_shape
    found = np.empty(shape, dtype=object)
    for place, index in enumerate(np.ndindex(shape)):
        found[index] = Element(value, place)
    return found


def _is_small(value: Value) -> bool:
    kind = value.type
    return kind.is_static and kind.elements <= MAX_ELEMENTS and _is_whole(kind.dtype)  # type: ignore[operator]


def _is_whole(dtype: DType) -> bool:
    return dtype.is_integer or dtype is DType.BOOL


def _keeps_values(node: Node) -> bool:
    """Whether a cast between integers changes none that its operand can hold."""
    before, after = node.inputs[0].dtype, node.output.dtype
    return before is after or (after is DType.I64 and before is not DType.U64)
