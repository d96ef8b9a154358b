"""x86-64 targets as data, and the one of the host."""

from __future__ import annotations

import platform
from dataclasses import replace

from ...compiler.errors import UsageError
from ...compiler.target import CpuTarget, instructions_of
from .hosts import SERVER, V3, V4, described_host, host_features

TRIPLE = "x86_64-unknown-linux-gnu"
# The features, by LLVM's names, that each is part of.
INSTRUCTIONS = {
    "fma": ("fma",),
    "madd": ("avx2",),
    "maddw": ("avx2",),
    "lookup16": ("avx512f",),
    "vpshufb256": ("avx2",),
    "vpshufb512": ("avx512bw",),
    "vpermi2b": ("avx512vbmi",),
    "vnni": ("avx512vnni",),
    "vnniw": ("avx512vnni",),
    "avxvnni": ("avxvnni",),
    "avxvnniw": ("avxvnni",),
    "bf16": ("avx512bf16",),
    "amx": ("amx-tile", "amx-int8"),
    "amxbf16": ("amx-tile", "amx-bf16"),
}

# beside the levels of the psABI: instructions for lower precision
MATRICES = ("amx-tile", "amx-int8", "amx-bf16")
BEYOND = (*SERVER, "avxvnni", *MATRICES)


def _avx2(name: str, tune: str, *, l2_bytes: int = 256 << 10) -> CpuTarget:
    return CpuTarget(
        name=name, backend="x86", triple=TRIPLE, cpu="x86-64-v3", tune=tune,
        features=V3, instructions=instructions_of(V3, INSTRUCTIONS),
        vector_bits=256, vector_registers=16, masked=True,
        broadcast_operands=False, fma_ports=2, l1_bytes=32 << 10, l2_bytes=l2_bytes,
    )  # fmt: skip


def _avx512(
    name: str,
    tune: str,
    features: tuple[str, ...] = (),
    *,
    l1_bytes: int = 32 << 10,
    l2_bytes: int = 1 << 20,
    costs: tuple[tuple[str, float], ...] = (),
) -> CpuTarget:
    every = (*V4, *features)
    return CpuTarget(
        name=name, backend="x86", triple=TRIPLE, cpu="x86-64-v4", tune=tune,
        features=every, instructions=instructions_of(every, INSTRUCTIONS),
        vector_bits=512, vector_registers=32, masked=True,
        broadcast_operands=True, fma_ports=2, l1_bytes=l1_bytes, l2_bytes=l2_bytes,
        costs=costs,
    )  # fmt: skip


TARGETS: dict[str, CpuTarget] = {
    target.name: target
    for target in (
        _avx2("x86-64-v3", "x86-64-v3"),
        _avx512("x86-64-v4", "x86-64-v4"),
        _avx512("znver4", "znver4", SERVER),
        _avx512("znver5", "znver5", (*SERVER, "avxvnni"), l1_bytes=48 << 10),
        _avx512(
            "sapphirerapids",
            "sapphirerapids",
            (*SERVER, "avxvnni", *MATRICES),
            l1_bytes=48 << 10,
            l2_bytes=2 << 20,
            costs=(("bf16", 4.0),),  # measured: 1.14 a ns, multiply-adds 4.7
        ),
    )
}


def native_target() -> CpuTarget | None:
    """The widest target that this machine runs, for the caches that it has.

    A knob may name another machine, whose code this one runs as well: features count where both
    have them. None when AVX2 and FMA are not among these.
    """
    host = described_host()
    found = host.features & host_features()
    if found.issuperset((*V4, *SERVER, "avxvnni", *MATRICES)):
        target = TARGETS["sapphirerapids"]
    elif found.issuperset(V4):
        target = TARGETS["x86-64-v4"]
    elif found.issuperset(V3):
        target = TARGETS["x86-64-v3"]
    else:
        return None
    features = (*target.features, *(f for f in BEYOND if f in found and f not in target.features))
    # other sizes than these are a virtual machine's invention, or a cache that cores share
    l1, l2 = host.l1_bytes, host.l2_bytes
    return replace(
        target,
        features=features,
        instructions=instructions_of(features, INSTRUCTIONS),
        l1_bytes=l1 if 16 << 10 <= l1 <= 128 << 10 else target.l1_bytes,
        l2_bytes=l2 if 256 << 10 <= l2 <= 4 << 20 else target.l2_bytes,
    )


def parse_target(text: str) -> CpuTarget | None:
    """The target for "native", "x86" or a name in `TARGETS`; None for another backend's.

    Raises UsageError where "native" is a machine that no code can be generated for.
    """
    if text in ("native", "x86"):
        found = native_target()
        if found is None and platform.machine() == "x86_64":
            raise UsageError(
                f"nothing can be compiled for this machine ('{text}')",
                why="it lacks AVX2 and FMA",
                remedy=f"name the target that code is for: {', '.join(TARGETS)}",
            )
        return found
    return TARGETS.get(text)
