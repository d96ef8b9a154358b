"""The model that standard input holds."""

from __future__ import annotations

import atexit
import shutil
import sys
from pathlib import Path

from ..compiler.errors import UsageError
from ..compiler.scratch import make_folder, speak_of

STANDARD_INPUT = "-"


def from_standard_input(path: Path) -> Path:
    """The path as given, or for "-" that of a copy of what standard input holds."""
    if str(path) != STANDARD_INPUT:
        return path
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("standard input holds no model", remedy="`tensmith ... - < model.onnx`")
    folder = make_folder("tensmith-input-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    copy = folder / "model.onnx"
    with copy.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    speak_of(copy, "the model in standard input")
    return copy
