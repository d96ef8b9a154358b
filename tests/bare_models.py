"""Models for machines without an operating system: many in one program, one start of QEMU."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Arrays, Job

from tensmith.backends.arm.bare import link_firmware
from tensmith.compiler.artifact import CompiledModel
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.ir import DType
from tensmith.runtime.firmware import FirmwareRun, run_firmware

Array = np.ndarray[Any, Any]
DTYPES = {dtype.value: dtype.numpy for dtype in DType}
QEMU, GCC = "qemu-system-arm", "arm-none-eabi-gcc"


def _has_newlib() -> bool:
    """Whether the compiler finds the C library for programs without an operating system."""
    if shutil.which(GCC) is None:
        return False
    command = [GCC, "-print-file-name=nosys.specs"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return Path(found).is_file()


needs_qemu = pytest.mark.skipif(shutil.which(QEMU) is None, reason=f"{QEMU} is not installed")
needs_newlib = pytest.mark.skipif(not _has_newlib(), reason="the C library newlib is not installed")
needs_gcc = pytest.mark.skipif(shutil.which(GCC) is None, reason=f"{GCC} is not installed")


def compile_bare(
    job: Job, target: str, folder: Path, name: str = "model", level: int = 2, **options: Any
) -> CompiledModel:
    """The compiled model of a graph; its weights go to a file in `folder`."""
    backend, chosen = resolve_target(target)
    own = folder / f"{name}.parts"
    own.mkdir()
    told = CompileOptions(name, own, opt_level=level, choices=job.choices, **options)
    return backend.compile(job.graph, chosen, told, Stages()).model


def description(model: CompiledModel) -> dict[str, Any]:
    """What of a manifest running a program takes."""
    sides = {"inputs": model.inputs, "outputs": model.outputs}
    described = {side: [asdict(spec) for spec in specs] for side, specs in sides.items()}
    return {**described, "symbols": list(model.symbols)}


def linked(models: Mapping[str, CompiledModel], folder: Path) -> Path:
    """A program of all models, in their order."""
    program = folder / "firmware.elf"
    link_firmware(list(models.values()), folder, program, list(map(description, models.values())))
    return program


def run_linked(
    program: Path, calls: Sequence[tuple[int, Arrays]], target: str, folder: Path
) -> list[FirmwareRun]:
    """What became of models of a program, by number, each on inputs."""
    backend, chosen = resolve_target(target)
    emulator = backend.emulator(chosen)
    assert emulator is not None
    return run_firmware(emulator.command, program, calls, DTYPES, folder)


def run_models(
    models: Mapping[str, CompiledModel], inputs: Mapping[str, Arrays], target: str, folder: Path
) -> dict[str, FirmwareRun]:
    """What became of each model on its inputs."""
    calls = [(number, inputs[name]) for number, name in enumerate(models)]
    runs = run_linked(linked(models, folder), calls, target, folder)
    return dict(zip(models, runs, strict=True))


def run_all_bare(
    jobs: Mapping[str, Job], target: str, folder: Path, level: int = 2
) -> dict[str, dict[str, Array] | Exception]:
    """The outputs of every job by name, or the error that it ended with."""
    models: dict[str, CompiledModel] = {}
    results: dict[str, dict[str, Array] | Exception] = {}
    for number, (name, job) in enumerate(jobs.items()):
        try:
            models[name] = compile_bare(job, target, folder, f"m{number}", level)
        except Exception as error:
            results[name] = error
    runs = run_models(models, {name: jobs[name].inputs for name in models}, target, folder)
    for name, run in runs.items():
        specs = models[name].outputs
        results[name] = (
            RuntimeError(f"{run.status}: {run.message}")
            if run.status
            else {s.name: array for s, array in zip(specs, run.outputs, strict=True)}
        )
    return results
