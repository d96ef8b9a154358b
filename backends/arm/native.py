"""The AArch64 machine that `native` means, from what Linux tells of its processors.

Main ID registers: Arm's technical reference manuals (MIDR_EL1), and `asm/cputype.h` of Linux for
other makers'. Processors that there is no target for are scheduled as their nearest relative.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ...compiler.target import CpuTarget, instructions_of
from .aarch64 import INSTRUCTIONS, PREFIX, TARGETS

ARM, APPLE, AMPERE = 0x41, 0x61, 0xC0
# (implementer, part) -> the core that it is scheduled as
_CORES = {
    **dict.fromkeys([(ARM, 0xD03), (ARM, 0xD04)], "cortex-a53"),  # and A35
    **dict.fromkeys([(ARM, 0xD05), (ARM, 0xD46), (ARM, 0xD80)], "cortex-a55"),  # and A510, A520
    **dict.fromkeys([(ARM, 0xD07), (ARM, 0xD08), (ARM, 0xD09)], "cortex-a72"),  # A57, A72, A73
    # A75, A76, A77, A78, A78C
    **dict.fromkeys([(ARM, n) for n in (0xD0A, 0xD0B, 0xD0D, 0xD41, 0xD4B)], "cortex-a76"),
    (ARM, 0xD0C): "neoverse-n1",  # Graviton2, Ampere Altra
    # Neoverse N2 and N3, Cortex-A710, A715, A720
    **dict.fromkeys([(ARM, n) for n in (0xD49, 0xD8E, 0xD47, 0xD4D, 0xD81)], "neoverse-n2"),
    # Neoverse V1 (Graviton3), Cortex-X1
    **dict.fromkeys([(ARM, 0xD40), (ARM, 0xD44)], "neoverse-v1"),
    # Neoverse V2 (Graviton4), V3, Cortex-X2, X3, X4
    **dict.fromkeys([(ARM, n) for n in (0xD4F, 0xD84, 0xD48, 0xD4E, 0xD82)], "neoverse-v2"),
    **dict.fromkeys([(AMPERE, 0xAC3), (AMPERE, 0xAC4)], "ampere1"),
    # performance cores of the M1, M2 and M3, and of their Pro, Max and Ultra; efficiency cores are
    # part of machines that have those, too
    **dict.fromkeys([(APPLE, 0x23), (APPLE, 0x25), (APPLE, 0x29)], "apple-m1"),
    **dict.fromkeys([(APPLE, 0x33), (APPLE, 0x35), (APPLE, 0x39)], "apple-m1"),
    **dict.fromkeys([(APPLE, 0x43), (APPLE, 0x45), (APPLE, 0x49)], "apple-m1"),
}
# The words of /proc/cpuinfo (HWCAP), and LLVM's names.
_LINUX = {
    "asimd": "neon", "asimddp": "dotprod", "asimdhp": "fullfp16", "i8mm": "i8mm", "bf16": "bf16",
    "sve": "sve",
}  # fmt: skip


def native_target(cpuinfo: str) -> CpuTarget:
    """The target of a machine whose processors Linux describes so (/proc/cpuinfo).

    It has what all of them have, as a thread may come to any, and is scheduled for the one of most
    vector pipes: where some are slower, that one has the time to win.
    """
    processors = list(_processors(cpuinfo))
    words = [set(fields["Features"].split()) for fields in processors if "Features" in fields]
    common = set.intersection(*words) if words else set[str]()
    common.add("asimd")  # which Linux has programs rely on
    features = tuple(name for word, name in _LINUX.items() if word in common)
    known = [TARGETS[f"{PREFIX}:{name}"] for name in map(_core, processors) if name]
    core = max(known, key=lambda target: target.fma_ports, default=TARGETS[PREFIX])
    if set(features) == set(core.features):
        return core
    return replace(
        core,
        name=_named(core, features),
        features=features,
        instructions=instructions_of(features, INSTRUCTIONS),
    )


def _named(core: CpuTarget, features: tuple[str, ...]) -> str:
    """A target string for a core with other features: those beyond its own, if it has its own, else
    those beyond the least."""
    words = {"fullfp16": "fp16"}
    base = core if set(core.features) <= set(features) else TARGETS[PREFIX]
    more = [words.get(name, name) for name in features if name not in base.features]
    return "+".join([base.name, *more])


def _core(fields: dict[str, str]) -> str:
    """The core that a processor is scheduled as; "" for none that is known."""
    try:
        number = int(fields["CPU implementer"], 16), int(fields["CPU part"], 16)
    except (KeyError, ValueError):
        return ""
    return _CORES.get(number, "")


def _processors(cpuinfo: str) -> Iterator[dict[str, str]]:
    """The fields of each processor."""
    for block in cpuinfo.split("\n\n"):
        lines = [line.partition(":") for line in block.splitlines()]
        fields = {name.strip(): value.strip() for name, _, value in lines}
        if "processor" in fields or "Features" in fields:
            yield fields
