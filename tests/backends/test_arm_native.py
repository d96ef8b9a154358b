"""What `native` means on AArch64 machines, by what Linux tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensmith.backends.arm import targets
from tensmith.backends.arm.aarch64 import FEATURES, TARGETS
from tensmith.backends.arm.native import native_target
from tensmith.compiler.backend import resolve_target

ARMV8 = "fp asimd evtstrm crc32 cpuid"
ARMV8_2 = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop "
    "asimddp"
)
V1 = (
    f"{ARMV8_2} jscvt fcma sha3 sm3 sm4 sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg "
    "dcpodp svei8mm svebf16 i8mm bf16 dgh rng"
)
V2 = f"{V1} sve2 sveaes svepmull svebitperm svesha3 flagm2 frint bti"
APPLE = f"{ARMV8_2} jscvt fcma sha3 sha512 asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg frint"
# machine -> (processors: how many, implementer, part, words), the target, its core's pipes
MACHINES = {
    "Graviton2": ([(64, 0x41, 0xD0C, f"{ARMV8_2} ssbs")], "aarch64:neoverse-n1", 2),
    "Graviton3": ([(64, 0x41, 0xD40, V1)], "aarch64:neoverse-v1", 4),
    "Graviton4": ([(96, 0x41, 0xD4F, V2)], "aarch64:neoverse-v2", 4),
    "Raspberry Pi 4": ([(4, 0x41, 0xD08, ARMV8)], "aarch64:cortex-a72", 2),
    "Raspberry Pi 5": ([(4, 0x41, 0xD0B, ARMV8_2)], "aarch64:cortex-a76", 2),
    "Apple M1": ([(4, 0x61, 0x22, APPLE), (4, 0x61, 0x23, APPLE)], "aarch64:apple-m1", 4),
    "Apple M2": (
        [(4, 0x61, 0x32, f"{APPLE} i8mm bf16"), (4, 0x61, 0x33, f"{APPLE} i8mm bf16")],
        "aarch64:apple-m1+i8mm+bf16",
        4,
    ),
    "Ampere Altra": ([(80, 0x41, 0xD0C, f"{ARMV8_2} ssbs")], "aarch64:neoverse-n1", 2),
    "AmpereOne": ([(192, 0xC0, 0xAC3, f"{ARMV8_2} i8mm bf16")], "aarch64:ampere1", 2),
    "RK3588": (
        [(4, 0x41, 0xD05, ARMV8_2), (4, 0x41, 0xD0B, ARMV8_2)],
        "aarch64:cortex-a76",
        2,
    ),
    # cores of which only some have dot products
    "SDM": ([(4, 0x41, 0xD05, ARMV8), (4, 0x41, 0xD0B, ARMV8_2)], "aarch64", 2),
    # a virtual machine that hides SVE
    "masked": ([(2, 0x41, 0xD40, V1.replace(" sve ", " "))], "aarch64+dotprod+fp16+i8mm+bf16", 4),
    "unknown": ([(2, 0x99, 0x123, ARMV8_2)], "aarch64+dotprod+fp16", 2),
}


def cpuinfo(groups: list[tuple[int, int, int, str]]) -> str:
    """As Linux writes /proc/cpuinfo for such processors."""
    blocks = []
    for count, implementer, part, words in groups:
        for _ in range(count):
            blocks.append(
                f"processor\t: {len(blocks)}\nBogoMIPS\t: 243.75\nFeatures\t: {words}\n"
                f"CPU implementer\t: {implementer:#x}\nCPU architecture: 8\nCPU variant\t: 0x1\n"
                f"CPU part\t: {part:#x}\nCPU revision\t: 1\n"
            )
    return "\n".join(blocks)


@pytest.mark.parametrize("machine", MACHINES)
def test_machines(machine: str) -> None:
    groups, name, pipes = MACHINES[machine]
    target = native_target(cpuinfo(groups))
    assert (target.name, target.fma_ports) == (name, pipes)
    words = set.intersection(*({*words.split()} for *_, words in groups))
    assert ("dotprod" in target.features) == ("asimddp" in words)
    assert ("smmla" in target.instructions) == ("i8mm" in words)
    assert ("bfmmla" in target.instructions) == ("bf16" in words)
    assert ("sve" in target.features) == ("sve" in words)
    named = resolve_target(name)[1]  # the name stands for the same features
    assert set(named.features) == set(target.features)


def test_nothing_known() -> None:
    assert native_target("").name == "aarch64"
    unknown = native_target("processor\t: 0\nCPU part\t: what\n")
    assert unknown == TARGETS["aarch64"]


def test_native_reads_what_linux_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets.platform, "machine", lambda: "aarch64")
    text = cpuinfo(MACHINES["Graviton3"][0])
    monkeypatch.setattr(Path, "read_text", lambda self, **options: text)
    assert targets.parse_target("native") is TARGETS["aarch64:neoverse-v1"]
    monkeypatch.setattr(targets.platform, "machine", lambda: "x86_64")
    assert targets.parse_target("native") is None


def test_features_have_the_names_that_targets_take() -> None:
    known = {feature for names in FEATURES.values() for feature in names} | {"neon"}
    assert all(set(target.features) <= known for target in TARGETS.values())
