"""AArch64 targets as data, and features that are added to them.

Features of cores: Arm's technical reference manuals. Vector pipes: Arm's software optimisation
guides.
"""

from __future__ import annotations

from dataclasses import replace

from ...compiler.errors import UsageError
from ...compiler.target import CpuTarget, instructions_of

TRIPLE = "aarch64-unknown-linux-gnu"
PREFIX = "aarch64"
# The features, by LLVM's names, that each is part of.
INSTRUCTIONS = {
    "fma": ("neon",),
    "tbl": ("neon",),
    "saturate": ("neon",),
    "sdot": ("dotprod",),
    "usdot": ("i8mm",),
    "smmla": ("i8mm",),
    "usmmla": ("i8mm",),
    "bfdot": ("bf16",),
    "bfmmla": ("bf16",),
    "bfcvt": ("bf16",),
}
# What may be added to a target, by the names that users know, and LLVM's.
FEATURES = {
    "dotprod": ("dotprod",),
    "i8mm": ("i8mm",),
    "bf16": ("bf16",),
    "fp16": ("fullfp16",),
    "sve": ("fullfp16", "sve"),
}
ARMV8_2 = ("neon", "dotprod", "fullfp16")
NEOVERSE_V = (*ARMV8_2, "i8mm", "bf16", "sve")


def _core(
    name: str, features: tuple[str, ...], *, pipes: int = 2, l1: int = 32 << 10, l2: int = 512 << 10
) -> CpuTarget:
    return CpuTarget(
        name=f"{PREFIX}:{name}" if name else PREFIX, backend="arm", triple=TRIPLE, cpu="generic",
        tune=name or "generic", features=features,
        instructions=instructions_of(features, INSTRUCTIONS),
        vector_bits=128, vector_registers=32, masked=False, broadcast_operands=False,
        fma_ports=pipes, l1_bytes=l1, l2_bytes=l2,
    )  # fmt: skip


TARGETS: dict[str, CpuTarget] = {
    target.name: target
    for target in (
        _core("", ("neon",)),
        _core("cortex-a53", ("neon",), pipes=1),
        _core("cortex-a55", ARMV8_2, pipes=1, l2=128 << 10),
        _core("cortex-a72", ("neon",), l2=1 << 20),
        _core("cortex-a76", ARMV8_2),
        _core("neoverse-n1", ARMV8_2, l1=64 << 10, l2=1 << 20),
        _core("neoverse-n2", NEOVERSE_V, l1=64 << 10, l2=1 << 20),
        _core("neoverse-v1", NEOVERSE_V, pipes=4, l1=64 << 10, l2=1 << 20),
        _core("neoverse-v2", NEOVERSE_V, pipes=4, l1=64 << 10, l2=2 << 20),
        _core("ampere1", (*ARMV8_2, "i8mm", "bf16"), l1=64 << 10, l2=2 << 20),
        _core("apple-m1", ARMV8_2, pipes=4, l1=128 << 10, l2=3 << 20),  # a core's share of 12 MiB
    )
}


def parse_target(text: str) -> CpuTarget | None:
    """The target for a name in `TARGETS` with features behind it: "aarch64:cortex-a55+i8mm"; None
    for another backend's.

    Raises UsageError for a feature that there is not.
    """
    name, *added = text.split("+")
    target = TARGETS.get(name)
    if target is None:
        return None
    unknown = [feature for feature in added if feature not in FEATURES]
    if unknown:
        raise UsageError(
            f"target '{text}': there is no feature '{unknown[0]}'",
            remedy=f"features that can be added: {', '.join('+' + f for f in FEATURES)}",
        )
    return with_features(target, [llvm for feature in added for llvm in FEATURES[feature]], text)


def with_features(target: CpuTarget, added: list[str], name: str) -> CpuTarget:
    """A target that may use more, by LLVM's names of features."""
    features = (*target.features, *(f for f in dict.fromkeys(added) if f not in target.features))
    instructions = instructions_of(features, INSTRUCTIONS)
    return replace(target, name=name, features=features, instructions=instructions)
