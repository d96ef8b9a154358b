"""The graph: tensor SSA. A value is made once; identity is the object, names are for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InternalError
from .types import DType, TensorType


class Value:
    """One tensor: a graph input, a constant (`data` is set) or a node's result."""

    __slots__ = ("data", "name", "producer", "type")

    def __init__(
        self,
        type: TensorType,
        name: str = "",
        producer: Node | None = None,
        data: np.ndarray[Any, Any] | None = None,
    ) -> None:
        self.type = type
        self.name = name
        self.producer = producer
        self.data = data

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def shape(self) -> tuple[Any, ...]:
        """The shape, a tuple of dims."""
        return self.type.shape

    @property
    def is_constant(self) -> bool:
        """Whether the value is known at compile time."""
        return self.data is not None

    def __repr__(self) -> str:
        return f"%{self.name or hex(id(self))}: {self.type}"


def constant(data: Any, name: str = "") -> Value:
    """A constant value holding `data` (not copied when it is an array already)."""
    array = np.asarray(data)
    return Value(TensorType(DType.of(array.dtype), tuple(array.shape)), name, data=array)


class Node:
    """One operation. `regions` are graphs that it runs (control flow, fused groups)."""

    __slots__ = ("attrs", "inputs", "name", "op", "outputs", "regions")

    def __init__(
        self,
        op: str,
        inputs: Sequence[Value],
        outputs: Sequence[Value],
        attrs: dict[str, Any] | None = None,
        regions: Sequence[Graph] = (),
        name: str = "",
    ) -> None:
        self.op = op
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.attrs = dict(attrs or {})
        self.regions = list(regions)
        self.name = name
        for value in self.outputs:
            value.producer = self

    @property
    def output(self) -> Value:
        """The only output. Raises InternalError when there are more or none."""
        if len(self.outputs) != 1:
            raise InternalError(f"'{self.op}' has {len(self.outputs)} outputs, not one")
        return self.outputs[0]

    def __repr__(self) -> str:
        return f"{self.op}({', '.join(f'%{v.name}' for v in self.inputs)})"


@dataclass(frozen=True)
class Meaning:
    """What the elements of an input or output stand for, where they are more than numbers.

    strings: u8 [..., width] holds UTF-8 bytes, zeros after the shorter strings. words: strings that
    the model knows, for an input of strings. classes: what the entries of the last axis (before
    that of bytes) belong to. key_type: "string" or "int64" of an input that is maps, one per row:
    its columns belong to the keys `classes`, or, without any, to a map's keys in their order.
    stages: of an output with a number for every row, which says which of so many stages of a
    cascade has answered it, the first being 0; else 0.
    """

    strings: bool = False
    words: tuple[str, ...] = ()
    classes: tuple[int | str, ...] = ()
    stages: int = 0
    key_type: str = ""


class Graph:
    """Inputs, nodes in execution order, outputs. Regions are graphs too.

    bounds: the least and the greatest value of symbols of the inputs, where they are limited.
    notes: what a user should know of how the model was taken.
    meanings: of inputs and outputs, by name, where there is something to say.
    defaults: values of inputs, by name, that a run may leave out.
    """

    __slots__ = (
        "bounds",
        "defaults",
        "inputs",
        "meanings",
        "name",
        "nodes",
        "notes",
        "outputs",
    )

    def __init__(
        self,
        inputs: Sequence[Value] = (),
        outputs: Sequence[Value] = (),
        nodes: Sequence[Node] = (),
        name: str = "graph",
    ) -> None:
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.nodes = list(nodes)
        self.name = name
        self.bounds: dict[str, tuple[int, int]] = {}
        self.notes: list[str] = []
        self.meanings: dict[str, Meaning] = {}
        self.defaults: dict[str, np.ndarray[Any, Any]] = {}

    def walk(self) -> Iterator[Node]:
        """All nodes, those of regions included, a node before its regions."""
        for node in self.nodes:
            yield node
            for region in node.regions:
                yield from region.walk()

    def graphs(self) -> Iterator[Graph]:
        """This graph and every region in it, outermost first."""
        yield self
        for node in self.nodes:
            for region in node.regions:
                yield from region.graphs()

    def uses(self) -> dict[Value, list[tuple[Node | Graph, int]]]:
        """value -> [(user, operand index)]; a graph uses its outputs. Regions are included."""
        found: dict[Value, list[tuple[Node | Graph, int]]] = {}
        for graph in self.graphs():
            for node in graph.nodes:
                for index, value in enumerate(node.inputs):
                    found.setdefault(value, []).append((node, index))
            for index, value in enumerate(graph.outputs):
                found.setdefault(value, []).append((graph, index))
        return found

    def constants(self) -> list[Value]:
        """Every constant that some node or output uses, in order of first use."""
        seen: dict[Value, None] = {}
        for graph in self.graphs():
            for node in graph.nodes:
                seen.update((value, None) for value in node.inputs if value.is_constant)
            seen.update((value, None) for value in graph.outputs if value.is_constant)
        return list(seen)

    def replace_uses(self, mapping: dict[Value, Value]) -> None:
        """Make every use of a key use its value instead; chains in the mapping are followed."""

        def final(value: Value) -> Value:
            while value in mapping:
                value = mapping[value]
            return value

        for graph in self.graphs():
            for node in graph.nodes:
                node.inputs = [final(value) for value in node.inputs]
            graph.outputs = [final(value) for value in graph.outputs]


def captures(graph: Graph) -> list[Value]:
    """Values that a region uses but that it neither takes as inputs, makes, nor are constants."""
    made: set[Value] = set(graph.inputs)
    found: dict[Value, None] = {}

    def visit(values: Iterable[Value]) -> None:
        for value in values:
            if value not in made and not value.is_constant:
                found.setdefault(value)

    for node in graph.nodes:
        visit(node.inputs)
        for region in node.regions:
            visit(captures(region))
        made.update(node.outputs)
    visit(graph.outputs)
    return list(found)
