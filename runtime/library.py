"""Opens shared libraries: the file of today, from any file system, without writing anything."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import struct
from pathlib import Path

_ELF64 = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_LOADED = 1  # the type of a segment that is mapped to memory
_openings = itertools.count(1)


def open_library(path: Path) -> ctypes.CDLL:
    """dlopen of an absolute path. Raises OSError, which says why it cannot be loaded.

    The C library takes a name that it has seen for the file it saw then, so every opening spells
    the path in its own way. Where nothing may be executed from the file system (noexec), the file
    is copied to memory first.
    """
    _check_whole(path)
    if "$" in str(path):  # dlopen would replace $LIB and the like
        with path.open("rb") as file:
            return ctypes.CDLL(f"/proc/self/fd/{_detour()}{file.fileno()}")
    try:
        return ctypes.CDLL(f"{path.parent}/{_detour()}{path.name}")
    except OSError:
        if not os.statvfs(path).f_flag & os.ST_NOEXEC:
            raise
    return _from_memory(path)


def _check_whole(path: Path) -> None:
    """Raise OSError for a library that lacks its end, as after a download that was interrupted.

    What is behind the end of a file that is mapped to memory ends the process (SIGBUS) where it is
    read. Layouts: System V ABI, chapters 4 and 5, 64-bit little-endian; others dlopen refuses.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(_HEADER.size)
        if len(head) < _HEADER.size or not head.startswith(_ELF64):
            return
        at, each, count = (_HEADER.unpack(head)[field] for field in (5, 9, 10))
        file.seek(at)
        table = file.read(each * count)
    needed = at + each * count
    if each == _SEGMENT.size and len(table) == each * count:
        segments = _SEGMENT.iter_unpack(table)
        needed = max(
            (start + length for kind, _, start, _, _, length, _, _ in segments if kind == _LOADED),
            default=0,
        )
    if needed > size:
        raise OSError(f"it ends after {size} of {needed} bytes; copy or download it again")


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
