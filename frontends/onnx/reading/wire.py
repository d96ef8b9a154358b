"""Reading a model file: weights stay where they are in the file's bytes, the rest is parsed.

The protobuf library would copy every weight twice. Here the wire format (tag, length, payload;
protobuf's encoding guide) is walked down to the initialisers of the main graph, their `raw_data` is
left out of what is parsed and kept as views of the one buffer that holds the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ....compiler.errors import InvalidModelError, UsageError
from ....compiler.scratch import called
from .external_data import ModelFolder
from .foreign import foreign

_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers in ModelProto, GraphProto, TensorProto
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_KEEP = 256  # smaller payloads are not worth a view
_REMEDY = "export or download the model again"


@dataclass
class Source:
    """A parsed model, the raw weights that were left out of it, and where it came from.

    raw: index of a main-graph initialiser -> its bytes. folder: where external data may lie.
    """

    model: onnx.ModelProto
    raw: dict[int, memoryview] = field(default_factory=dict)
    folder: ModelFolder | None = None


def read_model(path: str | Path) -> Source:
    """Read and parse a model file.

    Raises UsageError when it cannot be read and InvalidModelError when it is not an ONNX model.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UsageError(f"cannot read {called(path)}", why="it is not a regular file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {called(path)}", why=error.strerror or str(error)) from None
    if not data:
        raise InvalidModelError(f"{called(path)} is empty", remedy=_REMEDY)
    try:
        raw: dict[int, memoryview] = {}
        stripped = b"".join(_strip_model(memoryview(data), raw))
        model = onnx.ModelProto.FromString(stripped)
    except (_WireError, DecodeError) as error:
        raise _no_model(path, data, str(error)) from None
    if not model.HasField("graph"):
        raise _no_model(path, data, "it has no graph")
    return Source(model, raw, ModelFolder.of_file(path))


def _no_model(path: Path, data: bytes, why: str) -> InvalidModelError:
    known = foreign(data)
    if known is not None:
        return InvalidModelError(
            f"{called(path)} is not an ONNX model, but {known[0]}", remedy=known[1]
        )
    return InvalidModelError(
        f"{called(path)} is not an ONNX model, or is truncated", why=why, remedy=_REMEDY
    )


class _WireError(Exception):
    """The bytes are not well-formed protobuf."""


def _varint(data: memoryview, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise _WireError(f"bad variable-length integer at byte {at}")


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _fields(data: memoryview, at: int, end: int) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, start of tag, start of payload, end of payload) of a message."""
    while at < end:
        start = at
        tag, at = _varint(data, at, end)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            payload, at = at, _varint(data, at, end)[1]
        elif kind == _BYTES:
            length, payload = _varint(data, at, end)
            at = payload + length
        elif kind in (_FIXED64, _FIXED32):
            payload, at = at, at + (8 if kind == _FIXED64 else 4)
        else:
            raise _WireError(f"unknown wire type {kind} at byte {start}")
        if number == 0 or at > end:
            raise _WireError(f"field {number} at byte {start} ends behind the message")
        yield number, kind, start, payload, at


def _strip_model(data: memoryview, raw: dict[int, memoryview]) -> Iterator[bytes | memoryview]:
    index = 0
    for number, kind, start, payload, end in _fields(data, 0, len(data)):
        if number != _GRAPH or kind != _BYTES:
            yield data[start:end]
            continue
        chunks: list[bytes | memoryview] = []
        for inner, inner_kind, inner_start, inner_payload, inner_end in _fields(data, payload, end):
            if inner == _INITIALIZER and inner_kind == _BYTES:
                body = _strip_tensor(data, inner_payload, inner_end, index, raw)
                chunks += [_header(_INITIALIZER, body), *body]
                index += 1
            else:
                chunks.append(data[inner_start:inner_end])
        yield _header(_GRAPH, chunks)
        yield from chunks


def _header(number: int, chunks: list[bytes | memoryview]) -> bytes:
    return _encode(number << 3 | _BYTES) + _encode(sum(map(len, chunks)))


def _strip_tensor(
    data: memoryview, at: int, end: int, index: int, raw: dict[int, memoryview]
) -> list[bytes | memoryview]:
    chunks: list[bytes | memoryview] = []
    for number, kind, start, payload, stop in _fields(data, at, end):
        if number == _RAW_DATA and kind == _BYTES and stop - payload >= _KEEP:
            raw[index] = data[payload:stop]
        else:
            chunks.append(data[start:stop])
    return chunks
