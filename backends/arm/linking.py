"""What becomes of compiled models for the targets of Arm, and what runs them here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...compiler.artifact import CompiledModel
from ...compiler.backend import LINKED, Emulator
from ...compiler.target import CpuTarget
from ..common import running
from ..common.link import NO_MANIFEST
from ..common.link import link as link_hosted
from .bare import EMITS, link_bare
from .cortex_m import BOARDS


def emits(target: CpuTarget) -> tuple[str, ...]:
    """The kinds that `link` makes."""
    return EMITS if target.bare else LINKED


def link(
    model: CompiledModel, emit: str, output: Path, manifest: Mapping[str, Any] = NO_MANIFEST
) -> list[Path]:
    """Write a model in a form that its target has; see `link_bare` and `common/link.py`."""
    if model.code.cpu in BOARDS:
        return link_bare(model, emit, output, manifest)
    return link_hosted(model, emit, output, manifest)


def emulator(target: CpuTarget) -> Emulator | None:
    """QEMU for a target's programs: of a whole machine where that has no operating system.

    Raises UsageError when it is needed and not installed.
    """
    if not target.bare:
        return running.emulator(target)
    remedy = "install QEMU's system emulation for Arm (Debian: qemu-system-arm)"
    program = running.installed("qemu-system-arm", target, remedy)
    machine = BOARDS[target.cpu].machine
    words = (
        "-M", machine, "-display", "none", "-serial", "null", "-monitor", "none",
        "-icount", "shift=0", "-semihosting-config", "enable=on,target=native", "-kernel",
    )  # fmt: skip
    return Emulator((program, *words), "elf")
