"""Opens compiled models: whether a file is one, and what its compiler noted in it."""

from __future__ import annotations

import _ctypes
import json
import os
from pathlib import Path
from typing import Any

from . import abi
from .library import open_library, reason
from .slots import ModuleError


def opened(path: Path) -> Any:
    """A shared library. Raises ModuleError, which says why it cannot be loaded."""
    try:
        return open_library(path)
    except OSError as error:
        raise ModuleError(f"cannot load '{path}': {reason(error, path)}") from error


def check_library(library: Any, path: Path) -> None:
    """Raise ModuleError unless a library is a model that this loader knows."""
    try:
        version = library.ts_abi_version()
        if version != abi.ABI_VERSION:
            raise ModuleError(
                f"'{path}' has ABI version {version}, this loader {abi.ABI_VERSION}",
                abi.ERROR_VERSION,
            )
        abi.declare(library)
    except AttributeError as error:
        raise ModuleError(f"'{path}' is not a compiled model: {error}") from None


def read_manifest(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What the compiler noted in a shared library, also where it could not run: without a GPU, say.

    Raises ModuleError.
    """
    file = Path(path).resolve()
    library = opened(file)
    try:
        check_library(library, file)
        found: dict[str, Any] = json.loads(library.ts_manifest(library.ts_model_get()))
        return found
    finally:
        _ctypes.dlclose(library._handle)
