"""What users give for a model: a path, its bytes, a parsed model, an open file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from ..compiler.errors import UsageError
from ..compiler.scratch import speak_of
from .argument_checks import check_file


class Message(Protocol):
    """An `onnx.ModelProto`."""

    def SerializeToString(self, **options: Any) -> bytes:
        """Its bytes."""


ModelLike = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Message

_NAME = "model.onnx"


def model_file(model: ModelLike, folder: str | Path | None, work_dir: Path) -> Path:
    """The path of a model; what is no path is stored in `work_dir`.

    folder: where the external data of a model lies that is no path. Raises UsageError for what is
    no model at all.
    """
    if isinstance(model, str | os.PathLike):
        return check_file(Path(model), "model")
    from ..frontends.onnx import store

    path = work_dir / "source" / _NAME
    path.parent.mkdir()
    speak_of(path, "the model")
    base = None if folder is None else Path(folder)
    if base is not None and not base.is_dir():
        raise UsageError(f"there is no folder '{base}'")
    if isinstance(model, bytes | bytearray | memoryview):
        store(bytes(model), path, base)
    elif type(model).__name__ == "GraphProto":
        raise UsageError(
            "a model cannot be a GraphProto", remedy="give onnx.helper.make_model(graph)"
        )
    elif hasattr(model, "SerializeToString"):
        store(model, path, base)
    elif hasattr(model, "read"):
        data = None if isinstance(model, io.TextIOBase) else model.read()
        if not isinstance(data, bytes):
            raise UsageError("the file of the model is open as text", remedy="open it as 'rb'")
        store(data, path, base)
    else:
        raise UsageError(
            f"a model cannot be a {type(model).__name__}",
            remedy="give a path, bytes, an open file or an onnx.ModelProto",
        )
    return path
