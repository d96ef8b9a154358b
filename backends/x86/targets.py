"""x86-64 targets as data, and the host's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...compiler.host import cache_bytes
from ...compiler.target import Target

TRIPLE = "x86_64-unknown-linux-gnu"
# The levels of the x86-64 psABI (section 3.1.1), whole: LLVM may use all of a level.
_V2 = ("cx16", "popcnt", "sahf", "sse3", "sse4.1", "sse4.2", "ssse3")
_V3 = (*_V2, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")

_LINUX_NAMES = {
    "abm": "lzcnt", "bmi1": "bmi", "lahf_lm": "sahf", "pni": "sse3", "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
}  # fmt: skip


def _avx2(name: str, tune: str, *, l2_bytes: int = 256 << 10) -> Target:
    return Target(
        name=name, backend="x86", triple=TRIPLE, cpu="x86-64-v3", tune=tune,
        features=_V3, vector_bits=256, vector_registers=16, masked=True,
        broadcast_operands=False, fma_ports=2, l1_bytes=32 << 10, l2_bytes=l2_bytes,
    )  # fmt: skip


def _avx512(name: str, tune: str, *, l1_bytes: int = 32 << 10, l2_bytes: int = 1 << 20) -> Target:
    return Target(
        name=name, backend="x86", triple=TRIPLE, cpu="x86-64-v4", tune=tune,
        features=_V4, vector_bits=512, vector_registers=32, masked=True,
        broadcast_operands=True, fma_ports=2, l1_bytes=l1_bytes, l2_bytes=l2_bytes,
    )  # fmt: skip


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        _avx2("x86-64-v3", "x86-64-v3"),
        _avx512("x86-64-v4", "x86-64-v4"),
        _avx512("znver4", "znver4"),
        _avx512("znver5", "znver5", l1_bytes=48 << 10),
        _avx512("sapphirerapids", "sapphirerapids", l1_bytes=48 << 10, l2_bytes=2 << 20),
    )
}


def host_features() -> frozenset[str]:
    """CPU feature flags that Linux reports for this machine; empty where it reports none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        if line.startswith("flags"):
            flags = set(line.split(":", 1)[1].split())
            return frozenset(_LINUX_NAMES.get(flag, flag) for flag in flags)
    return frozenset()


def native_target() -> Target | None:
    """The widest target that this machine runs, with the caches it has.

    None when it lacks AVX2 and FMA.
    """
    found = host_features()
    if found.issuperset(_V4):
        target = TARGETS["sapphirerapids" if "amx_tile" in found else "x86-64-v4"]
    elif found.issuperset(_V3):
        target = TARGETS["x86-64-v3"]
    else:
        return None
    # other sizes than these are a virtual machine's invention, or a cache that cores share
    l1, l2 = cache_bytes(1), cache_bytes(2)
    return replace(
        target,
        l1_bytes=l1 if 16 << 10 <= l1 <= 128 << 10 else target.l1_bytes,
        l2_bytes=l2 if 256 << 10 <= l2 <= 4 << 20 else target.l2_bytes,
    )


def parse_target(text: str) -> Target | None:
    """The target for "native", "x86" or a name in `TARGETS`; None for another backend's."""
    if text in ("native", "x86"):
        return native_target()
    return TARGETS.get(text)
