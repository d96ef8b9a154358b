"""Random models in emulators: programs for AArch64, and firmware for Cortex-M."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from bare_models import QEMU, compile_bare, linked, run_linked
from compiled import Job, Library, Setting

from tensmith.compiler.artifact import CompiledModel
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph

from .builder import Array

Arrays = Mapping[str, Array]


class FirmwareModels:
    """Models in one program for a board. errors: why others are not in it."""

    def __init__(self, graphs: Mapping[str, Graph], target: str, level: int, folder: Path) -> None:
        self.errors: dict[str, Exception] = {}
        self._models: dict[str, CompiledModel] = {}
        self._target, self._folder = target, folder
        for number, (name, graph) in enumerate(graphs.items()):
            try:
                job = Job(graph, {})
                self._models[name] = compile_bare(job, target, folder, f"m{number}", level)
            except Exception as error:
                self.errors[name] = error
        self._program = linked(self._models, folder) if self._models else folder

    @property
    def models(self) -> Iterable[str]:
        """Their names."""
        return self._models

    def run(self, name: str, inputs: Arrays) -> Arrays | Exception:
        """The outputs of one, or how it failed."""
        calls = [(list(self._models).index(name), inputs)]
        (done,) = run_linked(self._program, calls, self._target, self._folder)
        if done.status:
            return RuntimeError(f"{done.status}: {done.message}")
        specs = self._models[name].outputs
        return {s.name: array for s, array in zip(specs, done.outputs, strict=True)}


def missing(target: str) -> str:
    """Why code for a target cannot run in an emulator here; "" when it can."""
    if resolve_target(target)[1].has_system:
        return Setting(target, 2, emulated=True).missing()
    return "" if shutil.which(QEMU) else f"{QEMU} is not installed"


def on_target(target: str) -> Callable[[dict[str, Graph], int, Path], Library | FirmwareModels]:
    """What compiles graphs for a target that an emulator here runs code for."""

    def compiled(graphs: dict[str, Graph], level: int, folder: Path) -> Library | FirmwareModels:
        if resolve_target(target)[1].has_system:
            return Library(graphs, Setting(target, level, emulated=True), folder)
        return FirmwareModels(graphs, target, level, folder)

    return compiled
