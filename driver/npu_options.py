"""Options about the memory of an NPU, in Vela's words, which become part of the target's name."""

from __future__ import annotations

from typing import Annotated

import typer

SystemConfig = Annotated[
    str,
    typer.Option(
        "--system-config", metavar="NAME", help="Of an NPU: memories and clock, in Vela's words."
    ),
]
MemoryMode = Annotated[
    str,
    typer.Option("--memory-mode", metavar="NAME", help="Of an NPU: what lies in which memory."),
]
Optimise = Annotated[
    str,
    typer.Option("--optimise", metavar="Performance|Size", help="Of an NPU: cycles or memory."),
]


def on_npu(target: str, system_config: str, memory_mode: str, optimise: str) -> str:
    """The target with the settings that are given.

    Raises UsageError for a target that has no such memory.
    """
    from ..compiler.backend import resolve_target
    from ..compiler.errors import UsageError
    from ..compiler.target import NpuTarget

    words = {
        "system-config": system_config,
        "memory-mode": memory_mode,
        "optimise": optimise,
    }
    given = {word: value for word, value in words.items() if value}
    if given and not isinstance(resolve_target(target)[1], NpuTarget):
        raise UsageError(
            f"'{target}' has no memory that {' and '.join(given)} could be about",
            remedy="name a target such as ethos-u55-128",
        )
    return "".join((target, *(f"+{word}={value}" for word, value in given.items())))
