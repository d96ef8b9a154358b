"""Names and what they stand for, graph within graph; initialisers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx

from ....compiler.errors import Unsupported
from ....compiler.ir import constant
from ..containers import Content, Text
from .external_data import ModelFolder
from .tensors import UnsupportedType, sparse_array, to_array, to_bytes


@dataclass(frozen=True)
class Missing:
    """Stands for a value that could not be made.

    problem: what to report where something uses it; None: it has been reported.
    """

    problem: Unsupported | None = None


MISSING = Missing()
Entry = Content | Missing


class NameScope:
    """Names visible in a graph or function body; lookups go outwards."""

    def __init__(self, outer: NameScope | None, opsets: Mapping[str, int]) -> None:
        self.outer = outer
        self.opsets = opsets
        self.values: dict[str, Entry] = {}
        self.attributes: dict[str, onnx.AttributeProto] = {}

    def find(self, name: str) -> Entry | None:
        """The value called `name` here or further out."""
        scope: NameScope | None = self
        while scope is not None:
            if name in scope.values:
                return scope.values[name]
            scope = scope.outer
        return None


def initial_values(
    graph: onnx.GraphProto, raw: Mapping[int, memoryview], folder: ModelFolder | None
) -> Iterator[tuple[str, Entry]]:
    """The initialisers of a graph by name; of two of one name the last counts.

    raw: data that was left out of the message, by index. folder: where external data lies. One of
    an element type that the IR lacks is no fault while nothing uses it.
    """
    last = {tensor.name: index for index, tensor in enumerate(graph.initializer)}
    for name, index in last.items():
        if graph.initializer[index].data_type == onnx.TensorProto.STRING:
            yield name, Text(constant(to_bytes(graph.initializer[index]), name))
            continue
        try:
            array = to_array(graph.initializer[index], raw=raw.get(index), folder=folder)
            yield name, constant(array, name)
        except UnsupportedType as error:
            yield name, _unsupported(name, error)
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        try:
            yield name, constant(sparse_array(sparse, folder=folder), name)
        except UnsupportedType as error:
            yield name, _unsupported(name, error)


def _unsupported(name: str, error: UnsupportedType) -> Missing:
    return Missing(Unsupported(name[:120], "initializer", f"{error} is not supported"))
