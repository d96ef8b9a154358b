"""Inputs of a model that are sequences, optionals, maps or strings, as inputs that are tensors."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any

import numpy as np
import onnx

from ...compiler.errors import UsageError
from ...compiler.ir import Dim, DType, Value, constant
from .containers import Content, Maps, Maybe, Text, ValueList
from .maps import MapType, map_type
from .reading.declared import UNKNOWN
from .reading.tensors import UnsupportedType, dtype_of

Array = np.ndarray[Any, Any]
Fixed = Array | Sequence[Array] | None
ValueSpec = Mapping[str, Fixed]
NOTHING = ("none",)  # the shape of an optional that holds nothing


@dataclass(frozen=True)
class Parts:
    """The tensors that an input consists of, and what they make up."""

    infos: Sequence[onnx.ValueInfoProto]
    is_list: bool = False
    is_optional: bool = False
    is_text: bool = False
    maps: MapType | None = None

    def pinned(
        self, info: onnx.ValueInfoProto, shapes: Mapping[str, Sequence[Dim | str]]
    ) -> Sequence[Dim | str] | None:
        """The shape that the user wants for a part; that of strings may leave out their width."""
        wanted = shapes.get(info.name)
        if wanted is None or not self.is_text:
            return wanted
        whole = len(info.type.tensor_type.shape.dim) == len(wanted)
        return wanted if whole else (*wanted, UNKNOWN)

    def last_dim(self, info: onnx.ValueInfoProto) -> str:
        """What the symbol of a part's last dim is called; "": nothing of its own."""
        return f"{info.name}_width" if self.is_text else ""

    def assemble(self, values: Sequence[Value]) -> Content:
        """The input, made of the values of its parts."""
        if self.maps is not None:
            return Maps(values[0], self.maps.keys, self.is_text, self.maps.key_type)
        if self.is_text:
            return Text(values[0])
        content = ValueList(tuple(values), values[0].dtype) if self.is_list else values[0]
        return Maybe(content) if self.is_optional else content


def container_parts(
    info: onnx.ValueInfoProto, pinned: Container[str], graph: onnx.GraphProto
) -> Parts:
    """How an input of a graph becomes tensors.

    An optional counts as given. A sequence `x` becomes `x_0`, `x_1`, ..., as many as are pinned;
    without any it stays what it is, which the caller refuses. Strings have one more
    dimension, the bytes of the longest string. Raises UnsupportedType for a map that none serves.
    """
    maps = map_type(info, graph)
    if maps is not None:
        matrix = maps.matrix(info.name)
        infos = [_bytes_of(matrix) if maps.is_text else matrix]
        return Parts(infos, is_text=maps.is_text, maps=maps)
    kind, is_optional = _held(info)
    element = kind.sequence_type.elem_type
    if _is_list(kind):
        names = takewhile(lambda name: name in pinned, (f"{info.name}_{i}" for i in count()))
        infos = [onnx.ValueInfoProto(name=name, type=element) for name in names]
        if infos:
            return Parts(infos, is_list=True, is_optional=is_optional)
    elif kind.tensor_type.elem_type == onnx.TensorProto.STRING:
        return Parts([_bytes_of(info)], is_text=True)
    elif is_optional:
        return Parts([onnx.ValueInfoProto(name=info.name, type=kind)], is_optional=True)
    return Parts([onnx.ValueInfoProto(name=info.name, type=kind)])


def _bytes_of(info: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    """The input that has the bytes of an input of strings."""
    made = onnx.ValueInfoProto()
    made.CopyFrom(info)
    tensor = made.type.tensor_type
    tensor.elem_type = onnx.TensorProto.UINT8
    if tensor.HasField("shape"):
        tensor.shape.dim.add()
    return made


def remedy(info: onnx.ValueInfoProto) -> str:
    """What to do about an input whose type is refused; "" where nothing helps."""
    kind, _ = _held(info)
    if _is_list(kind):
        return f"pin the shapes of its elements, {info.name}_0 and so on"
    return ""


def fixed_input(info: onnx.ValueInfoProto, given: Fixed) -> Content:
    """An input that is always the same: an array, a list of arrays, or None (an empty optional).

    Raises UsageError for what the input cannot be.
    """
    kind, is_optional = _held(info)
    content: Value | ValueList | Text | None
    if given is None:
        if not is_optional:
            raise UsageError(f"input '{info.name}' has no value", why="it is no optional")
        return Maybe(None)
    if _is_list(kind):
        if isinstance(given, np.ndarray):
            raise UsageError(f"the value of input '{info.name}' is no list", why="it is a sequence")
        dtype = _dtype(kind.sequence_type.elem_type)
        content = ValueList(tuple(_constant(info.name, dtype, item) for item in given), dtype)
    else:
        content = _constant(info.name, _dtype(kind), given)
    return Maybe(content) if is_optional else content


def holds_nothing(info: onnx.ValueInfoProto, shapes: Mapping[str, Sequence[Dim | str]]) -> bool:
    """Whether the user says that an input holds nothing, which the caller refuses for other inputs
    than optionals."""
    return tuple(shapes.get(info.name, ())) == NOTHING


def _held(info: onnx.ValueInfoProto) -> tuple[onnx.TypeProto, bool]:
    """The type of an input, or of what is inside of it, and whether it is an optional."""
    if info.type.WhichOneof("value") == "optional_type":
        return info.type.optional_type.elem_type, True
    return info.type, False


def _is_list(kind: onnx.TypeProto) -> bool:
    """Whether it is a sequence of tensors."""
    if kind.WhichOneof("value") != "sequence_type":
        return False
    return bool(kind.sequence_type.elem_type.HasField("tensor_type"))


def _dtype(kind: onnx.TypeProto) -> DType:
    if not kind.HasField("tensor_type"):
        raise UnsupportedType(f"a value of kind {kind.WhichOneof('value')}")
    return dtype_of(kind.tensor_type.elem_type)


def _constant(name: str, dtype: DType, given: Fixed) -> Value:
    array = np.asarray(given)
    if array.dtype != dtype.numpy:
        raise UsageError(
            f"the value of input '{name}' is of type {array.dtype}",
            why=f"the model declares {dtype.numpy}",
        )
    return constant(array, name)
