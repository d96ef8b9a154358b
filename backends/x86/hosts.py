"""The machine that `native` means: the one that compiles, or one of the table in its place."""

from __future__ import annotations

import ctypes
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import llvmlite.binding as binding

from ...compiler.errors import UsageError
from ...compiler.host import cache_bytes
from ...compiler.knobs import HOST

# The levels of the x86-64 psABI (section 3.1.1), whole: LLVM may use all of a level.
V2 = ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
V3 = (*V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
V4 = (*V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

SERVER = ("avx512vbmi", "avx512vnni", "avx512bf16")
SPR = (*SERVER, "avxvnni", "amx-tile", "amx-int8", "amx-bf16")
AMX = frozenset({"amx-tile", "amx-int8", "amx-bf16"})

_LINUX_NAMES = {
    "abm": "lzcnt", "bmi1": "bmi", "lahf_lm": "sahf", "pni": "sse3", "sse4_1": "sse4.1",
    "sse4_2": "sse4.2", "amx_tile": "amx-tile", "amx_int8": "amx-int8", "amx_bf16": "amx-bf16",
    "avx512_vnni": "avx512vnni", "avx512_bf16": "avx512bf16", "avx_vnni": "avxvnni",
}  # fmt: skip


@dataclass(frozen=True)
class Host:
    """A machine: features by LLVM's names, and the data caches of one core (0: not known)."""

    features: frozenset[str]
    l1_bytes: int
    l2_bytes: int


def _host(features: tuple[str, ...], l1_kib: int, l2_kib: int) -> Host:
    return Host(frozenset(features), l1_kib << 10, l2_kib << 10)


# Source: the vendors' optimisation manuals. The last four stand for no processor: what virtual
# machines report, and the limits of what is believed (`targets.native_target`).
HOSTS: dict[str, Host] = {
    "haswell": _host(V3, 32, 256),
    "skylake": _host(V3, 32, 256),
    "zen2": _host(V3, 32, 512),
    "zen3": _host(V3, 32, 512),
    "alderlake": _host((*V3, "avxvnni"), 48, 1280),
    "skylake-sp": _host(V4, 32, 1024),
    "icelake-sp": _host((*V4, "avx512vbmi", "avx512vnni"), 48, 1280),
    "zen4": _host((*V4, *SERVER), 32, 1024),
    "zen5": _host((*V4, *SERVER, "avxvnni"), 48, 1024),
    "sapphirerapids": _host((*V4, *SPR), 48, 2048),
    "no-caches": _host(V4, 0, 0),
    "shared-caches": _host(V4, 32, 32 << 10),
    "least": _host(V3, 16, 256),
    "most": _host(V4, 128, 4 << 10),
}


@cache
def lends_matrices() -> bool:
    """Whether Linux lets this process use the AMX registers (arch_prctl, since 5.16)."""
    if platform.machine() != "x86_64":
        return False
    request, arch_prctl, tile_data = 0x1023, 158, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request, tile_data) == 0)


def host_features() -> frozenset[str]:
    """CPU features of this machine by LLVM's names: as Linux reports them, or the processor; those
    of matrices only where Linux lends the registers."""
    found = _reported_features()
    return found if not found & AMX or lends_matrices() else found - AMX


def _reported_features() -> frozenset[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:  # no /proc, as in a bare chroot
        return frozenset(name for name, has in binding.get_host_cpu_features().items() if has)
    for line in text.splitlines():
        if line.startswith("flags"):
            flags = set(line.split(":", 1)[1].split())
            return frozenset(_LINUX_NAMES.get(flag, flag) for flag in flags)
    return frozenset()


def described_host() -> Host:
    """This machine, or the one that the knob names.

    Raises UsageError when the table has no such machine.
    """
    name = str(HOST.value)
    if not name:
        return Host(host_features(), cache_bytes(1), cache_bytes(2))
    if name not in HOSTS:
        raise UsageError(
            f"{HOST.variable}={name!r}: there is no such machine",
            remedy=f"choose from {', '.join(HOSTS)}",
        )
    return HOSTS[name]
