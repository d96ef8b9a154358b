"""AArch64 targets as data."""

from __future__ import annotations

from ...compiler.target import CpuTarget, instructions_of

TRIPLE = "aarch64-unknown-linux-gnu"
# The features, by LLVM's names, that each is part of.
INSTRUCTIONS = {
    "fma": ("neon",),
    "tbl": ("neon",),
    "dotprod": ("dotprod",),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
}


def _neon(
    name: str, tune: str, features: tuple[str, ...], *, l2_bytes: int = 512 << 10
) -> CpuTarget:
    return CpuTarget(
        name=name, backend="arm", triple=TRIPLE, cpu="generic", tune=tune, features=features,
        instructions=instructions_of(features, INSTRUCTIONS),
        vector_bits=128, vector_registers=32, masked=False, broadcast_operands=False, fma_ports=2,
        l1_bytes=32 << 10, l2_bytes=l2_bytes,
    )  # fmt: skip


TARGETS: dict[str, CpuTarget] = {
    target.name: target
    for target in (
        _neon("aarch64", "generic", ("neon",)),
        _neon("aarch64:cortex-a76", "cortex-a76", ("neon", "dotprod", "fullfp16")),
    )
}


def parse_target(text: str) -> CpuTarget | None:
    """The target for a name in `TARGETS`; None for another backend's."""
    return TARGETS.get(text)
