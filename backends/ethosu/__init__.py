"""The backend of Arm's Ethos-U: integers, as TOSA graphs, to command streams that Vela makes.

What the processor does not take runs on the host beside it. Without an Ethos-U, models run in this
machine's own process, or, where the host is a microcontroller, in its emulator, and their command
streams in the simulator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...compiler.artifact import CompiledModel
from ...compiler.backend import LINKED, Backend, Emulator, backend_of
from ...compiler.errors import UsageError
from ...compiler.target import NpuTarget
from ..common.link import NO_MANIFEST
from ..common.link import link as link_hosted
from .pipeline import INTEGERS, compile_ethosu, supports_ethosu
from .targets import TARGETS, parse_target
from .tuning import TUNING
from .vela_package import reason_unavailable

NAME = "ethosu"


def emits(target: NpuTarget) -> tuple[str, ...]:
    """The kinds that `link` makes: those of the processor beside it."""
    if target.host.backend == NAME:
        return LINKED
    return backend_of(target.host.backend).emits(target.host)


def link(
    model: CompiledModel, emit: str, output: Path, manifest: Mapping[str, Any] = NO_MANIFEST
) -> list[Path]:
    """Write a model as the backend of the processor beside it does."""
    target = manifest.get("target", {})
    host = parse_target(str(target.get("name", "")))
    if host is None or host.host.backend == NAME:
        return link_hosted(model, emit, output, manifest)
    return backend_of(host.host.backend).link(model, emit, output, manifest)


def runs_here(target: NpuTarget) -> str:
    """Why this machine does not run code for the target itself."""
    return f"this machine has no {target.name}, and cycles are what Vela estimates"


def emulator(target: NpuTarget) -> Emulator | None:
    """That of a host without an operating system, with the simulator as the device beside it.

    Raises UsageError where it is not installed, and for hosts that have one.
    """
    beside = None if target.has_system else backend_of(target.host.backend).emulator(target.host)
    if beside is not None:
        return replace(beside, device=_simulated)
    raise UsageError(
        "a program for an Ethos-U runs where there is one",
        why=runs_here(target),
        remedy="make a shared library (--emit so): the simulator runs that",
    )


def _simulated(commands: bytes, memory: dict[int, NDArray[Any]]) -> None:
    from .simulator import simulate

    simulate(commands, memory)


def stand_in(target: NpuTarget) -> None:
    """Have the simulator run command streams in this process."""
    from .simulated.install import install

    install()


BACKEND = Backend(
    name=NAME,
    targets=tuple(TARGETS),
    parse_target=parse_target,
    supports=supports_ethosu,
    compile=compile_ethosu,
    link=link,
    available=reason_unavailable,
    runs_here=runs_here,
    emulator=emulator,
    emits=emits,
    stand_in=stand_in,
    tuning=TUNING,
    integers=INTEGERS,
)
