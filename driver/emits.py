"""What can be written of a compiled model, and by which suffix of a file it is known."""

from __future__ import annotations

from pathlib import Path

from ..compiler.errors import UsageError
from .request import TEXTS

EMITS = ("so", "exe", "lib", "obj", "elf", "c", *TEXTS)
SUFFIXES = {
    "so": ".so", "exe": "", "lib": ".a", "obj": ".o", "elf": ".elf", "c": ".c", "llvm": ".ll",
    "asm": ".s", "ptx": ".ptx", "cubin": ".zip", "triton": ".py",
}  # fmt: skip


def emit_of(path: Path) -> str:
    """The emit kind that a suffix means. Raises UsageError for an unknown suffix."""
    for kind, suffix in SUFFIXES.items():
        if path.suffix == suffix:
            return kind
    known = ", ".join(suffix for suffix in SUFFIXES.values() if suffix)
    raise UsageError(
        f"'{path.name}': the suffix says nothing about what to write",
        remedy=f"use one of {known}, none for a program, or give --emit",
    )
