"""Graphs compiled for a target and run: many models in one library or program, linked once."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensmith.backends.common.cdesc import WEIGHTS_SYMBOL, describe
from tensmith.backends.common.elf import write_data_object
from tensmith.backends.common.toolchain import (
    PROGRAM_SOURCES,
    RUNTIME,
    SHARED_SOURCES,
    CTarget,
    arch_of,
    runtime_objects,
)
from tensmith.backends.common.zig import run_zig
from tensmith.backends.x86.hosts import host_features
from tensmith.compiler.artifact import WEIGHT_ALIGNMENT, CompiledModel
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import CompileOptions, Stages
from tensmith.compiler.errors import UsageError
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.knobs import SANITIZE
from tensmith.runtime.loader import load

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]
EMULATOR = "qemu-aarch64"
# Processors with the features of a target and few others, those preferred first.
EMULATED: dict[str, tuple[str, ...]] = {
    "aarch64": ("cortex-a53", "cortex-a57"),
    "aarch64:cortex-a76": ("cortex-a76", "neoverse-n1", "max"),
    "aarch64:neoverse-v1": ("neoverse-v1", "max"),
    "aarch64+dotprod": ("cortex-a76", "max"),
    "aarch64+i8mm": ("neoverse-v1", "max"),
    "aarch64+bf16": ("neoverse-v1", "max"),
    "aarch64+fp16": ("cortex-a76", "max"),
    "aarch64+sve": ("a64fx", "neoverse-v1", "max"),
}
_CHOOSER = """#include <stdlib.h>
TS_API const ts_model *ts_model_get(void);
TS_API const ts_model *ts_model_get(void) {{
  static const ts_model *(*const models[])(void) = {{{names}}};
  const char *number = getenv("CHOSEN_MODEL");
  return models[number ? atoi(number) : 0]();
}}
"""


@dataclass(frozen=True)
class Job:
    """A graph to compile (it is rewritten) and the inputs to run it on.

    choices: decisions about its kernels that are given.
    """

    graph: Graph
    inputs: Arrays
    choices: Choices = field(default_factory=Choices)


@dataclass(frozen=True)
class Setting:
    """What to compile for; `emulated`: run by the emulator of another architecture."""

    target: str
    level: int
    emulated: bool = False

    def __str__(self) -> str:
        return f"{self.target}-O{self.level}"

    def missing(self) -> str:
        """Why code for the target cannot run here; "" when it can."""
        if self.emulated:
            if not shutil.which(EMULATOR):
                return f"{EMULATOR} is not installed"
            return "" if self.processor() else f"{EMULATOR} has none of {EMULATED[self.target]}"
        if platform.machine() != "x86_64":
            return "the host is not an x86-64 machine"
        try:
            lacking = set(resolve_target(self.target)[1].features) - host_features()
        except UsageError:
            return f"the host cannot run code for '{self.target}'"
        return f"the host lacks {', '.join(sorted(lacking))}" if lacking else ""

    def processor(self) -> str:
        """The processor that the emulator runs code for the target as; "" if it knows none."""
        known = _emulated_processors()
        return next((name for name in EMULATED[self.target] if name in known), "")


@cache
def _emulated_processors() -> frozenset[str]:
    command = [EMULATOR, "-cpu", "help"]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    return frozenset(told.stdout.split())


_MISSING = Setting("native", 2).missing()
needs_native = pytest.mark.skipif(bool(_MISSING), reason=_MISSING)


def compile_graph(
    graph: Graph, setting: Setting, folder: Path, name: str = "model", **options: Any
) -> CompiledModel:
    """The compiled model of a graph; its weights go to a file in `folder`."""
    backend, target = resolve_target(setting.target)
    own = folder / f"{name}.parts"
    own.mkdir()
    options.setdefault("sanitize", bool(SANITIZE.value))
    chosen = CompileOptions(name, own, opt_level=setting.level, **options)
    return backend.compile(graph, target, chosen, Stages()).model


class Library:
    """Models compiled for one setting and linked into one file.

    errors: by name, what ended the compilation of those that are not in it.
    """

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        setting: Setting,
        folder: Path,
        choices: Mapping[str, Choices] | None = None,
    ) -> None:
        self.errors: dict[str, Exception] = {}
        self.models: dict[str, CompiledModel] = {}
        self.processor = setting.processor() if setting.emulated else ""
        self.binary = folder / ("program" if setting.emulated else "library.so")
        for number, (name, graph) in enumerate(graphs.items()):
            try:
                given = {"choices": choices[name]} if choices else {}
                self.models[name] = compile_graph(graph, setting, folder, f"m{number}", **given)
            except Exception as error:
                self.errors[name] = error
        if self.models:
            _link(list(self.models.values()), setting.emulated, self.binary)

    def run(self, name: str, inputs: Arrays, threads: int = 1) -> dict[str, Array] | Exception:
        """The outputs of a model, or the error that its compilation or run ended with."""
        if name in self.errors:
            return self.errors[name]
        os.environ["CHOSEN_MODEL"] = str(list(self.models).index(name))
        try:
            if self.processor:
                model = self.models[name]
                return _emulate(self.binary, self.processor, inputs, model, threads)
            return dict(load(self.binary, threads=threads)(dict(inputs)))
        except Exception as error:
            return error


def run_all(
    jobs: Mapping[str, Job], setting: Setting, folder: Path
) -> dict[str, dict[str, Array] | Exception]:
    """The outputs of every job by name, or the error that it ended with."""
    graphs = {name: job.graph for name, job in jobs.items()}
    choices = {name: job.choices for name, job in jobs.items()}
    library = Library(graphs, setting, folder, choices)
    return {name: library.run(name, job.inputs) for name, job in jobs.items()}


def _link(models: Sequence[CompiledModel], program: bool, output: Path) -> None:
    """All models into one shared library, or one static program, that runs $CHOSEN_MODEL."""
    parts = output.parent / "link"
    parts.mkdir()
    target = CTarget(arch_of(models[0].code.triple), static=program)
    source, texts = parts / "models.c", []
    files = [source]
    for model in models:
        weights = f"{WEIGHTS_SYMBOL}_{model.name}"
        text = describe(model, {}, exports_get=False, side_file=None, tag=b"")
        texts.append(f"#define {WEIGHTS_SYMBOL} {weights}\n{text}#undef {WEIGHTS_SYMBOL}\n")
        for stem, data in model.code.objects:
            files.append(parts / f"{stem}.o")
            files[-1].write_bytes(data)
        if model.weights.stat().st_size:
            files.append(parts / f"{model.name}_weights.o")
            write_data_object(files[-1], target.arch, weights, model.weights, WEIGHT_ALIGNMENT)
    names = [f"ts_model_{model.name}" for model in models]
    source.write_text("".join(texts) + _CHOOSER.format(names=", ".join(names)))
    runtime = runtime_objects(PROGRAM_SOURCES if program else SHARED_SOURCES, target, parts)
    kind = ["-static"] if program else ["-shared", "-fPIC", "-lm", "-lpthread", "-ldl"]
    flags = ["-target", target.zig_name, "-D_GNU_SOURCE", "-O0", "-s", f"-I{RUNTIME}"]
    run_zig(["cc", *flags, *kind, "-o", output, *files, *runtime], parts)


def _emulate(
    program: Path, processor: str, inputs: Arrays, model: CompiledModel, threads: int
) -> dict[str, Array]:
    folder = program.parent / model.name
    folder.mkdir(exist_ok=True)
    np.savez(folder / "in.npz", **{name: _plain(array) for name, array in inputs.items()})
    command = [EMULATOR, "-cpu", processor, str(program), "--quiet", "--threads", str(threads)]
    if inputs:
        command += ["--input", str(folder / "in.npz")]
    for number, spec in enumerate(model.outputs):
        command += ["--output", f"{spec.name}={folder}/{number}.npy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()}")
    outputs = {}
    for number, spec in enumerate(model.outputs):
        array = np.load(folder / f"{number}.npy")
        bf16 = DType(spec.dtype) is DType.BF16
        outputs[spec.name] = array.view(DType.BF16.numpy) if bf16 else array
    return outputs


def _plain(array: Array) -> Array:
    return array.view("V2") if DType.of(array.dtype) is DType.BF16 else array
