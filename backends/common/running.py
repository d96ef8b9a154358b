"""What of a target's programs runs on this machine: its own architecture's, others' emulated."""

from __future__ import annotations

import platform
import shutil

from ...compiler.backend import Emulator
from ...compiler.errors import UsageError
from ...compiler.target import Target


def runs_here(target: Target) -> str | None:
    """Why this machine's processor cannot run code of the target's architecture, or None."""
    if _architecture(target) == platform.machine():
        return None
    return f"it is for {target.triple}, this is {platform.machine()}"


def emulator(target: Target) -> Emulator | None:
    """QEMU's user-mode emulator for a target's programs; None where none is needed.

    Raises UsageError when it is needed and not installed.
    """
    if runs_here(target) is None:
        return None
    name = f"qemu-{_architecture(target)}"
    return Emulator((installed(name, target, "install QEMU's user-mode emulation"),))


def installed(name: str, target: Target, remedy: str) -> str:
    """Path of an emulator for a target. Raises UsageError when it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise UsageError(
            f"this machine cannot run code for {target.triple}",
            why=f"there is no {name} on the path",
            remedy=remedy,
        )
    return found


def _architecture(target: Target) -> str:
    return target.triple.partition("-")[0]
