"""The package that compiles for GPUs: whether it is there, in a version that is known."""

from __future__ import annotations

import importlib.metadata
import platform
import re

LEAST, BEYOND = (3, 6), (3, 10)
REMEDY = "pip install 'tensmith[cuda]'"


def triton_version() -> str:
    """The version that is installed."""
    return importlib.metadata.version("triton")


def reason_unavailable() -> str | None:
    """Why nothing can be compiled for GPUs here, with what to do; None where it can."""
    if platform.system() != "Linux":
        return "Triton, which compiles for GPUs, is for Linux"
    try:
        version = triton_version()
    except importlib.metadata.PackageNotFoundError:
        return f"Triton, which compiles for GPUs, is not installed: {REMEDY}"
    numbers = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if LEAST <= numbers < BEYOND:
        return None
    low, high = (".".join(map(str, limit)) for limit in (LEAST, BEYOND))
    return f"Triton {version} is installed; {low} or newer, below {high}, is needed: {REMEDY}"
