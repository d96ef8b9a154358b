"""TOSA graphs as files of FlatBuffers.

Slots of tables: the order of fields in tosa.fbs (TOSA 1.0.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

from .graph import Operator, Tensor, TosaGraph
from .schema import (
    BOOL,
    BYTES,
    FIELDS,
    FILE_IDENTIFIER,
    INT,
    INTS,
    UINT,
    VERSION,
    ElementType,
    Op,
)

_ALIGNMENT = 8  # of data, in bytes


def serialised(graph: TosaGraph) -> bytes:
    """The file of a graph."""
    return _Writer(graph).file()


class _Writer:
    """Children first, as a FlatBuffer is written from its end."""

    def __init__(self, graph: TosaGraph) -> None:
        self.graph = graph
        self.builder = flatbuffers.Builder(1 << 12)
        self.strings: dict[str, int] = {}

    def file(self) -> bytes:
        builder, graph = self.builder, self.graph
        tensors, constants = _tensors(graph)
        sizes = [tensor for tensor in constants if tensor.type is ElementType.SHAPE]
        block = self._block(tensors, constants, sizes)
        region = self._table({0: self._string("main"), 1: self._offsets([block])}, 2)
        builder.StartObject(4)
        for slot, number in enumerate(VERSION):
            builder.PrependInt32Slot(slot, number, -1)
        builder.PrependBoolSlot(3, False, True)  # not a draft
        version = builder.EndObject()
        root = self._table({0: version, 1: self._offsets([region])}, 4)
        builder.Finish(root, FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _block(
        self, tensors: Sequence[Tensor], constants: Sequence[Tensor], sizes: Sequence[Tensor]
    ) -> int:
        operators = [self._constant(tensor) for tensor in constants]
        operators += [self._operator(operator) for operator in self.graph.operators]
        return self._table(
            {
                0: self._string("main"),
                1: self._offsets(operators),
                2: self._offsets([self._tensor(tensor) for tensor in tensors]),
                3: self._names(self.graph.inputs),
                4: self._names(self.graph.outputs),
                5: self._offsets([self._sizes(tensor) for tensor in sizes]),
            },
            6,
        )

    def _tensor(self, tensor: Tensor) -> int:
        fields = {0: self._string(tensor.name), 1: self._ints(tensor.shape)}
        if tensor.data is not None:
            fields[3] = self._bytes(tensor.data.tobytes())
        name, builder = fields.pop(0), self.builder
        builder.StartObject(14)
        builder.PrependUint32Slot(2, tensor.type, 0)
        self._slots({0: name, **fields})
        return int(builder.EndObject())

    def _sizes(self, tensor: Tensor) -> int:
        assert tensor.data is not None
        name, data = self._string(tensor.name), self._bytes(tensor.data.tobytes())
        self.builder.StartObject(3)
        self.builder.PrependUint32Slot(1, tensor.data.size, 0)
        self._slots({0: name, 2: data})
        return int(self.builder.EndObject())

    def _constant(self, tensor: Tensor) -> int:
        op = Op.CONST_SHAPE if tensor.type is ElementType.SHAPE else Op.CONST
        return self._operator(Operator(op, (), tensor, {}))

    def _operator(self, operator: Operator) -> int:
        builder = self.builder
        fields = {
            2: self._attributes(operator),
            3: self._names(operator.inputs),
            4: self._names([operator.output]),
        }
        if operator.location:
            fields[5] = self._table({0: self._string(operator.location)}, 1)
        builder.StartObject(6)
        builder.PrependUint32Slot(0, operator.op, 0)
        builder.PrependUint8Slot(1, operator.op, 0)
        self._slots(fields)
        return int(builder.EndObject())

    def _attributes(self, operator: Operator) -> int:
        builder, known = self.builder, FIELDS.get(operator.op, ())
        values = [operator.attributes.get(f.name, f.value) for f in known]
        stored: list[Any] = []
        for field, value in zip(known, values, strict=True):
            made = {INTS: self._ints, BYTES: self._bytes}.get(field.kind)
            stored.append(made(value) if made else value)
        prepend = {
            INT: builder.PrependInt32Slot,
            UINT: builder.PrependUint32Slot,
            BOOL: builder.PrependBoolSlot,
            INTS: builder.PrependUOffsetTRelativeSlot,
            BYTES: builder.PrependUOffsetTRelativeSlot,
        }
        builder.StartObject(len(known))
        for slot, (field, value) in enumerate(zip(known, stored, strict=True)):
            prepend[field.kind](slot, value, 0)
        return int(builder.EndObject())

    def _table(self, offsets: dict[int, int], fields: int) -> int:
        """A table that holds nothing but references."""
        self.builder.StartObject(fields)
        self._slots(offsets)
        return int(self.builder.EndObject())

    def _slots(self, offsets: dict[int, int]) -> None:
        for slot, offset in offsets.items():
            self.builder.PrependUOffsetTRelativeSlot(slot, offset, 0)

    def _string(self, text: str) -> int:
        if text not in self.strings:
            self.strings[text] = self.builder.CreateString(text)
        return self.strings[text]

    def _names(self, tensors: Sequence[Tensor]) -> int:
        return self._offsets([self._string(tensor.name) for tensor in tensors])

    def _offsets(self, offsets: Sequence[int]) -> int:
        self.builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            self.builder.PrependUOffsetTRelative(offset)
        return int(self.builder.EndVector())

    def _ints(self, numbers: Sequence[int]) -> int:
        return int(self.builder.CreateNumpyVector(np.array(numbers, np.int32)))

    def _bytes(self, data: bytes) -> int:
        builder = self.builder
        builder.StartVector(1, len(data), _ALIGNMENT)
        builder.head -= len(data)
        builder.Bytes[builder.head : builder.head + len(data)] = data
        return int(builder.EndVector())


def _tensors(graph: TosaGraph) -> tuple[list[Tensor], list[Tensor]]:
    """(every tensor that has no place among sizes, the constants, sizes among them)."""
    found: dict[Tensor, None] = dict.fromkeys(graph.inputs)
    for operator in graph.operators:
        found.update(dict.fromkeys((*operator.inputs, operator.output)))
    found.update(dict.fromkeys(graph.outputs))
    tensors = [tensor for tensor in found if tensor.type is not ElementType.SHAPE]
    return tensors, [tensor for tensor in found if tensor.data is not None]
