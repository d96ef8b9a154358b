"""Opens shared libraries: the file of today, from any file system, without writing anything."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
from pathlib import Path

_openings = itertools.count(1)


def open_library(path: Path) -> ctypes.CDLL:
    """dlopen of an absolute path. Raises OSError, which says why it cannot be loaded.

    The C library takes a name that it has seen for the file it saw then, so every opening spells
    the path in its own way. Where nothing may be executed from the file system (noexec), the file
    is copied to memory first.
    """
    if "$" in str(path):  # dlopen would replace $LIB and the like
        with path.open("rb") as file:
            return ctypes.CDLL(f"/proc/self/fd/{_detour()}{file.fileno()}")
    try:
        return ctypes.CDLL(f"{path.parent}/{_detour()}{path.name}")
    except OSError:
        if not os.statvfs(path).f_flag & os.ST_NOEXEC:
            raise
    return _from_memory(path)


def reason(error: OSError, path: Path) -> str:
    """Why a library cannot be loaded, and what to do, without the spelling of its path here."""
    text = str(error)
    begin, end = text.find(f"{path.parent}/./"), text.find(f"{path.name}: ")
    text = text[end + len(path.name) + 2 :] if 0 <= begin < end else text
    return f"{text}{_advice(text)}"


def _advice(text: str) -> str:
    """What to do where no code is found, or the system does not let it be executed."""
    if "ELF header" in text or "too short" in text or "file format" in text:
        return "; it is no library: `tensmith compile` makes one of a model"
    if "ermission denied" in text or "not permitted" in text or "failed to map" in text:
        return (
            "; the system does not let its code be executed: move it to another folder, or see to "
            "the rights of the file, the mount option noexec, and the rules of SELinux or AppArmor"
        )
    return ""


def _detour() -> str:
    """Path components that lead nowhere, other ones every time: the bits of a counter."""
    return "".join("./" if bit == "0" else ".//" for bit in f"{next(_openings):b}")


def _from_memory(path: Path) -> ctypes.CDLL:
    try:
        descriptor = os.memfd_create(path.name[:200], os.MFD_CLOEXEC)
        with path.open("rb") as source, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            return ctypes.CDLL(f"/proc/self/fd/{_detour()}{descriptor}")
    except OSError as error:
        raise OSError(
            f"its file system is mounted noexec, and a copy in memory cannot be executed either "
            f"({error}); move it to a folder from which programs may run"
        ) from None
