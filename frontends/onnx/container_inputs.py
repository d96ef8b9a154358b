"""Inputs of a model that are sequences or optionals, as inputs that are tensors."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import count, takewhile

import onnx

from ...compiler.ir import Value
from .containers import Content, Maybe, ValueList


@dataclass(frozen=True)
class Parts:
    """The tensors that an input consists of, and what they make up."""

    infos: Sequence[onnx.ValueInfoProto]
    is_list: bool = False
    is_optional: bool = False

    def assemble(self, values: Sequence[Value]) -> Content:
        """The input, made of the values of its parts."""
        content = ValueList(tuple(values), values[0].dtype) if self.is_list else values[0]
        return Maybe(content) if self.is_optional else content


def container_parts(info: onnx.ValueInfoProto, pinned: Container[str]) -> Parts:
    """How an input becomes tensors.

    An optional counts as given. A sequence `x` becomes `x_0`, `x_1`, ..., as many as are pinned;
    without any it stays what it is, which the caller refuses.
    """
    kind = info.type
    is_optional = kind.WhichOneof("value") == "optional_type"
    if is_optional:
        kind = kind.optional_type.elem_type
    element = kind.sequence_type.elem_type
    if kind.WhichOneof("value") == "sequence_type" and element.HasField("tensor_type"):
        names = takewhile(lambda name: name in pinned, (f"{info.name}_{i}" for i in count()))
        infos = [onnx.ValueInfoProto(name=name, type=element) for name in names]
        if infos:
            return Parts(infos, is_list=True, is_optional=is_optional)
    elif is_optional:
        return Parts([onnx.ValueInfoProto(name=info.name, type=kind)], is_optional=True)
    return Parts([onnx.ValueInfoProto(name=info.name, type=kind)])
