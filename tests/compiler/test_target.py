"""Targets as data: a base, and what each kind of hardware adds."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from tensmith.backends import arm, x86
from tensmith.backends.arm.aarch64 import INSTRUCTIONS as ARM
from tensmith.backends.x86.targets import INSTRUCTIONS as X86
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import UsageError
from tensmith.compiler.target import CpuTarget, Target, instructions_of

CPU_TARGETS = [name for b in (x86, arm) for name in b.BACKEND.targets if name != "native"]


def test_numpy_has_no_figures_of_a_processor() -> None:
    target = resolve_target("reference")[1]
    assert type(target) is Target
    assert target.names == {"name": "reference", "backend": "reference", "triple": ""}
    figures = {field.name for field in fields(CpuTarget)} - {field.name for field in fields(Target)}
    assert {"vector_bits", "l1_bytes", "fma_ports"} <= figures
    assert not [name for name in figures if hasattr(target, name)]


@pytest.mark.parametrize("name", CPU_TARGETS)
def test_instructions_are_what_the_features_have(name: str) -> None:
    target = resolve_target(name)[1]
    assert isinstance(target, CpuTarget)
    assert "fma" in target.instructions
    assert ("sdot" in target.instructions) == ("dotprod" in target.features)
    assert ("usdot" in target.instructions) == ("i8mm" in target.features)
    assert ("smmla" in target.instructions) == ("i8mm" in target.features)
    assert ("bfmmla" in target.instructions) == ("bf16" in target.features)
    assert ("mve" in target.instructions) == (name in ("cortex-m55", "cortex-m85"))
    assert ("vnni" in target.instructions) == ("avx512vnni" in target.features)
    assert ("vnni" in target.instructions) == (name in ("znver4", "znver5", "sapphirerapids"))


def test_an_instruction_needs_all_its_features() -> None:
    server = ("fma", "avx512vnni", "avx512bf16", "amx-tile")
    vnni = ("vnni", "vnniw")
    assert instructions_of(server, X86) == ("fma", *vnni, "bf16")
    assert instructions_of((*server, "amx-int8"), X86) == ("fma", *vnni, "bf16", "amx")
    assert instructions_of((*server, "amx-bf16"), X86) == ("fma", *vnni, "bf16", "amxbf16")
    assert instructions_of(("fma", "avx2", "avxvnni"), X86) == (
        "fma",
        "madd",
        "maddw",
        "vpshufb256",
        "avxvnni",
        "avxvnniw",
    )
    assert instructions_of(("neon", "i8mm"), ARM) == (
        "fma",
        "tbl",
        "saturate",
        "usdot",
        "smmla",
        "usmmla",
    )
    assert instructions_of((), ARM) == ()


@pytest.mark.parametrize(
    ("figures", "message"),
    [({"vector_bits": 96}, "vectors of 96 bits"), ({"vector_registers": 4}, "4 vector registers")],
)
def test_a_target_checks_itself(figures: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(resolve_target("aarch64")[1], **figures)


def test_names_of_a_processor() -> None:
    names = resolve_target("aarch64:cortex-a76")[1].names
    assert list(names) == ["name", "backend", "triple", "cpu", "tune"]
    assert (names["cpu"], names["tune"]) == ("generic", "cortex-a76")
