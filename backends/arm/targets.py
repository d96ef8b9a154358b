"""The targets of the Arm backend: Linux on AArch64, and Cortex-M without an operating system."""

from __future__ import annotations

import platform
from pathlib import Path

from ...compiler.target import CpuTarget
from . import aarch64, cortex_m
from .native import native_target

TARGETS: dict[str, CpuTarget] = {**aarch64.TARGETS, **cortex_m.TARGETS}


def parse_target(text: str) -> CpuTarget | None:
    """The target for "native" on an AArch64 machine, or a string such as "aarch64:cortex-a55+i8mm"
    or "cortex-m55"; None for another backend's.

    Raises UsageError for a feature that there is not.
    """
    if text == "native" and platform.machine() == "aarch64":
        return native_target(Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace"))
    return cortex_m.TARGETS.get(text) or aarch64.parse_target(text)
