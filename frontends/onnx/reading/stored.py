"""Models that are no file: bytes and protobuf messages, stored so that they become one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message  # type: ignore[import-untyped]

from ....compiler.errors import InvalidModelError, UsageError
from .external_data import ModelFolder


def store(model: onnx.ModelProto | bytes, path: Path, folder: Path | None) -> None:
    """Write a model to `path`, and beside it the external data, which lies in `folder`.

    Raises UsageError where it is too large for a message, InvalidModelError where external data is
    not there.
    """
    path.write_bytes(model if isinstance(model, bytes) else _serialized(model))
    if folder is None:
        return
    if isinstance(model, bytes):
        try:
            model = onnx.ModelProto.FromString(model)
        except DecodeError:
            return  # reading it will say what is wrong
    source = ModelFolder.of_folder(folder)
    for location in sorted(set(_locations(model))):
        try:
            found = source.find(location)
        except ValueError as error:
            raise InvalidModelError(f"external data: {error}", where=str(folder)) from None
        copy = path.parent / location
        if copy == path:
            raise InvalidModelError(f"external data: '{location}' cannot be the model itself")
        copy.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(found, copy)
        except OSError:  # another file system
            shutil.copyfile(found, copy)


def _serialized(model: onnx.ModelProto) -> bytes:
    try:
        data: bytes = model.SerializeToString(deterministic=True)
    except (EncodeError, ValueError) as error:
        raise UsageError(
            "the model is too large for one message",
            why=str(error),
            remedy="onnx.save(model, path, save_as_external_data=True), and give the path",
        ) from None
    return data


def _locations(message: Message) -> Iterator[Any]:
    """The places of all external data in a message, however deep."""
    if isinstance(message, onnx.TensorProto):
        if message.data_location == onnx.TensorProto.EXTERNAL:
            yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for description, value in message.ListFields():
        if description.message_type is not None:
            repeated = not isinstance(value, Message)
            for inner in value if repeated else (value,):
                yield from _locations(inner)
