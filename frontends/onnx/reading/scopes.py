"""Names and what they stand for, graph within graph; initialisers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx

from ....compiler.errors import Unsupported
from ....compiler.ir import DType, Value, constant
from ..containers import Content, Text
from .external_data import ModelFolder
from .tensors import (
    UnsupportedType,
    dtype_of,
    packed_bytes,
    sparse_array,
    to_array,
    to_bytes,
)

Unpack = Callable[[Value, DType, tuple[int, ...]], Value]
MIN_PACKED = 1 << 10  # elements; smaller tensors are scales' zero points, mostly


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
    graph: onnx.GraphProto,
    raw: Mapping[int, memoryview],
    folder: ModelFolder | None,
    unpack: Unpack,
) -> Iterator[tuple[str, Entry]]:
    """The initialisers of a graph by name; of two of one name the last counts.

    raw: data that was left out of the message, by index. folder: where external data lies. unpack:
    makes the value of one that stays packed. One of an element type that the IR lacks is no fault
    while nothing uses it.
    """
    last = {tensor.name: index for index, tensor in enumerate(graph.initializer)}
    for name, index in last.items():
        if graph.initializer[index].data_type == onnx.TensorProto.STRING:
            yield name, Text(constant(to_bytes(graph.initializer[index]), name))
            continue
        try:
            yield name, tensor_value(graph.initializer[index], raw.get(index), folder, unpack)
        except UnsupportedType as error:
            yield name, _unsupported(name, error)
    for sparse in graph.sparse_initializer:
        name = sparse.values.name
        try:
            yield name, constant(sparse_array(sparse, folder=folder), name)
        except UnsupportedType as error:
            yield name, _unsupported(name, error)


def tensor_value(
    tensor: onnx.TensorProto, raw: memoryview | None, folder: ModelFolder | None, unpack: Unpack
) -> Value:
    """The value of a tensor of a model, as `initial_values` gives it. Raises as `to_array`."""
    if math.prod(tensor.dims) >= MIN_PACKED:
        packed = packed_bytes(tensor, raw=raw, folder=folder)
        if packed is not None:
            octets = constant(packed, tensor.name)
            return unpack(octets, dtype_of(tensor.data_type), tuple(tensor.dims))
    return constant(to_array(tensor, raw=raw, folder=folder), tensor.name)


def _unsupported(name: str, error: UnsupportedType) -> Missing:
    return Missing(Unsupported(name[:120], "initializer", f"{error} is not supported"))
