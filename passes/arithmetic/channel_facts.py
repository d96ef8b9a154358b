"""What is known of the places along axes of values, from a graph's inputs on.

One walk over the nodes; what a fact is, and what operators make of facts, is said by those who look
for one (`KnownChannels`, `EqualChannels`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Self, TypeVar

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.ops.windows import channel_axis
from ..layout.axis_permutation import match_axes

F = TypeVar("F")


@dataclass
class ChannelFacts(ABC, Generic[F]):
    """Facts about values of floats, one for an axis, of all its places."""

    facts: dict[Value, dict[int, F]] = field(default_factory=dict)

    @classmethod
    def of(cls, graph: Graph) -> Self:
        """The facts about a graph's values, and its regions'."""
        found = cls()
        for node in graph.walk():
            if len(node.outputs) == 1 and node.output.dtype.is_float and node.output.type.rank:
                found._note(node)
        return found

    def along(self, value: Value, axis: int) -> F | None:
        """What is known of a value along an axis; None: nothing."""
        return self.facts.get(value, {}).get(axis)

    @abstractmethod
    def tells(self, fact: F, size: object) -> bool:
        """Whether a fact about an axis of a size says anything."""

    @abstractmethod
    def made(self, node: Node) -> Iterator[tuple[int, F]]:
        """(axis, fact) of the result that the operator itself makes, of whatever operands."""

    @abstractmethod
    def operand(self, value: Value, axis: int, size: int) -> F | None:
        """The fact about an operand that is broadcast to `size` places along an axis, counted from
        the last; None where that says nothing about the result."""

    @abstractmethod
    def applied(self, node: Node, operands: Sequence[F]) -> F:
        """The fact that a function makes of those about its operands."""

    def carried(self, node: Node, fact: F) -> F:
        """What is left of a fact where each place of the result is made of the same place alone."""
        return fact

    def _note(self, node: Node) -> None:
        for axis, fact in self.made(node):
            self._set(node.output, axis, fact)
        if not any(value in self.facts for value in node.inputs):
            return
        if has_trait(node, Trait.POINTWISE):
            self._pointwise(node)
        for axis, fact in self.facts.get(node.inputs[0], {}).items():
            place = _moved_axis(node, axis)
            if place is not None:
                self._set(node.output, place, self.carried(node, fact))

    def _set(self, value: Value, axis: int, fact: F) -> None:
        if self.tells(fact, value.shape[axis]):
            self.facts.setdefault(value, {})[axis] = fact

    def _pointwise(self, node: Node) -> None:
        rank, shape = node.output.type.rank, node.output.shape
        axes = {
            axis + rank - value.type.rank
            for value in node.inputs
            for axis in self.facts.get(value, {})
        }
        for axis in sorted(axes):
            size = shape[axis]
            if isinstance(size, int):
                given = [self.operand(value, axis - rank, size) for value in node.inputs]
                known = [fact for fact in given if fact is not None]
                if len(known) == len(given):
                    self._set(node.output, axis, self.applied(node, known))


def _transposed(node: Node, axis: int) -> int | None:
    return int(node.attrs["perm"].index(axis))


def _reshaped(node: Node, axis: int) -> int | None:
    groups = match_axes(node.inputs[0].shape, node.output.shape) or ()
    return next((new[0] for old, new in groups if old == (axis,) and len(new) == 1), None)


def _gathered(node: Node, axis: int) -> int | None:
    along = node.attrs["axis"] % node.inputs[0].type.rank
    if axis == along:
        return None
    return axis if axis < along else axis + node.inputs[1].type.rank - 1


def _kept(node: Node, axis: int) -> int | None:
    return axis if node.inputs[0].shape[axis] == node.output.shape[axis] else None


def _padded(node: Node, axis: int) -> int | None:
    pads = node.attrs["pads"]
    return axis if pads[axis] == 0 and pads[axis + len(pads) // 2] == 0 else None


def _sliced(node: Node, axis: int) -> int | None:
    return axis if node.attrs["steps"][axis] == 1 and _kept(node, axis) is not None else None


def _pooled(node: Node, axis: int) -> int | None:
    return axis if axis == channel_axis(node.attrs["layout"], node.output.type.rank) else None


def _averaged(node: Node, axis: int) -> int | None:
    gone = {each % node.inputs[0].type.rank for each in node.attrs["axes"]}
    if axis in gone:
        return None
    return axis if node.attrs["keepdims"] else axis - sum(each < axis for each in gone)


_MOVED: dict[str, Callable[[Node, int], int | None]] = {
    "transpose": _transposed,
    "reshape": _reshaped,
    "gather": _gathered,
    "slice": _sliced,
    "pad": _padded,
    "broadcast_to": lambda node, axis: axis + node.output.type.rank - node.inputs[0].type.rank,
    "max_pool": _pooled,
    "avg_pool": _pooled,
    "reduce_mean": _averaged,
    "reduce_max": _averaged,
    "reduce_min": _averaged,
    "reduce_sum": _averaged,
}


def _moved_axis(node: Node, axis: int) -> int | None:
    """Which axis of its result an axis of a node's first operand becomes, place by place, where
    each place is made of the same place alone; None where there is none."""
    rule = _MOVED.get(node.op)
    return None if rule is None else rule(node, axis)
