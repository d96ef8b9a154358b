"""Arm's Ethos-U processors as data, and what a target string says of their memory.

`ethos-u55-128`, or with Vela's words behind it:
`ethos-u55-128+system-config=Ethos_U55_Deep_Embedded+memory-mode=Sram_Only+optimise=Size`. The
processor beside it is this machine's kind, for the simulator, or `+host=cortex-m55`.
Figures: technical reference manuals of Ethos-U55, U65 and U85; usual memories: those that Vela 5.2
takes where it is told of none (architecture_features.py).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ...compiler.backend import resolve_target
from ...compiler.errors import UsageError
from ...compiler.target import CpuTarget, NpuTarget
from ..common.hosts import x86_64_v3

PREFIX = "ethos-u"
HOST = x86_64_v3("ethosu")
SYSTEM_CONFIG, MEMORY_MODE, OPTIMISE = "system-config", "memory-mode", "optimise"
ARENA_CACHE_SIZE, CONFIG, BESIDE = "arena-cache-size", "config", "host"
_WORDS = (SYSTEM_CONFIG, MEMORY_MODE, OPTIMISE, ARENA_CACHE_SIZE, CONFIG, BESIDE)
_SIZES = {"u55": (32, 64, 128, 256), "u65": (256, 512), "u85": (128, 256, 512, 1024, 2048)}
_MEMORY = {
    "u55": ("Ethos_U55_High_End_Embedded", "Shared_Sram"),
    "u65": ("Ethos_U65_High_End", "Dedicated_Sram_512KB"),
    "u85": ("Ethos_U85_SYS_DRAM_Mid", "Dedicated_Sram_512KB"),
}


def _target(family: str, macs: int) -> NpuTarget:
    system, mode = _MEMORY[family]
    return NpuTarget(
        name=f"ethos-{family}-{macs}", backend="ethosu", triple=HOST.triple,
        architecture=f"EthosU{family[1:]}", macs=macs, cores=2 if (family, macs) == ("u65", 512)
        else 1, host=HOST, system_config=system, memory_mode=mode,
    )  # fmt: skip


TARGETS: dict[str, NpuTarget] = {
    target.name: target
    for target in (_target(family, macs) for family, sizes in _SIZES.items() for macs in sizes)
}


def parse_target(text: str) -> NpuTarget | None:
    """The target of a string that begins with the name of an Ethos-U; None for another backend's.

    Raises UsageError for an Ethos-U or a setting that there is not.
    """
    if not text.startswith(PREFIX):
        return None
    name, *settings = text.split("+")
    base = TARGETS.get(name)
    if base is None:
        raise UsageError(f"there is no '{name}'", remedy=f"known ones: {', '.join(TARGETS)}")
    given: dict[str, str] = {}
    for setting in settings:
        word, equals, value = setting.partition("=")
        if word not in _WORDS or not equals or not value or word in given:
            raise UsageError(
                f"target '{text}': '{setting}' says nothing",
                remedy=f"settings are {', '.join(f'+{known}=VALUE' for known in _WORDS)}",
            )
        given[word] = value
    return replace(
        base,
        name=text,
        system_config=given.get(SYSTEM_CONFIG, base.system_config),
        memory_mode=given.get(MEMORY_MODE, base.memory_mode),
        optimise=given.get(OPTIMISE, base.optimise),
        config=_config(given.get(CONFIG, "")),
        arena_bytes=_bytes(text, given.get(ARENA_CACHE_SIZE)),
        **_beside(text, given.get(BESIDE)),
    )


def _beside(text: str, name: str | None) -> dict[str, Any]:
    """The fields about the processor beside it, where one is named."""
    if name is None:
        return {}
    host = None if name.startswith(PREFIX) else resolve_target(name)[1]
    if not isinstance(host, CpuTarget):
        raise UsageError(
            f"target '{text}': '{name}' is no processor that could be beside it",
            remedy="name a target for processors, such as cortex-m55",
        )
    return {"host": host, "triple": host.triple}


def _config(path: str) -> str:
    if path and not Path(path).is_file():
        raise UsageError(f"there is no file '{path}' of system configurations and memory modes")
    return path


def _bytes(text: str, number: str | None) -> int | None:
    if number is None:
        return None
    if not number.isdecimal() or not int(number):
        raise UsageError(f"target '{text}': '{number}' is no number of bytes")
    return int(number)
