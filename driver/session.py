"""A model ready to run, from an ONNX file or from a compiled library."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.artifact import TensorSpec
from ..compiler.errors import ModelWarning, RunError, UsageError
from . import api
from .argument_checks import check_file, have_run_here
from .artifacts import Artifact
from .engines import open_engine
from .request import CompileRequest
from .tensor_files import Array, as_declared, check_inputs

if TYPE_CHECKING:
    from ..runtime.loader import Module

_FLAGS = {  # of the fields of a CompileRequest that commands have options for
    "target": "--target", "opt_level": "-O", "threads": "--threads", "shapes": "--shape",
    "precision": "--precision", "calibration": "--calibration",
}  # fmt: skip
_ELF = b"\x7fELF"


def is_compiled(path: Path) -> bool:
    """Whether the file is an ELF file and so not an ONNX model. Raises UsageError if unreadable."""
    with check_file(path, "model").open("rb") as file:
        return file.read(len(_ELF)) == _ELF


class EmulatedModel:
    """A model that an emulator of its target runs, one start for every call.

    Raises UsageError where the emulator is not installed.
    """

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact  # whose folder holds the program
        self._run = open_engine(artifact.subject())
        self.name, self.inputs = artifact.name, artifact.inputs
        self.manifest: dict[str, Any] = artifact.manifest

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._run(inputs)


def refuse_for_library(request: CompileRequest, *taken: str) -> None:
    """Raise UsageError for options of a compilation that a compiled model cannot follow any more;
    `taken`: fields of those that it can."""
    usual = CompileRequest()
    lost = [
        flag
        for name, flag in _FLAGS.items()
        if name not in taken and getattr(request, name) != getattr(usual, name)
    ]
    if lost:
        raise UsageError(
            f"{', '.join(lost)}: without effect on a compiled model",
            remedy="leave them out, or compile the ONNX file with them",
        )


def compile_or_load(path: Path, request: CompileRequest) -> Module | EmulatedModel:
    """The model, ready to run with threads as asked; an ONNX file is compiled, not verified."""
    if is_compiled(path):
        refuse_for_library(request, "target", "threads")
        if request.target != CompileRequest.target:
            have_run_here(*request.resolve())
        return api.load(path, request.threads)
    artifact = api.compile_request(path, request)
    if emulator := artifact.emulated_by():
        name = Path(emulator.command[0]).name
        warnings.warn(f"{name} runs the model: its times mean nothing", ModelWarning, stacklevel=2)
        return EmulatedModel(artifact)
    return artifact.load()


def specs_of(module: Module | EmulatedModel) -> tuple[TensorSpec, ...]:
    """What the model takes."""
    if isinstance(module, EmulatedModel):
        return module.inputs
    told = {entry["name"]: entry for entry in module.manifest.get("inputs", ())}
    defaults = {s.name: tuple(told[s.name]["default"]) for s in module.inputs if s.optional}
    return tuple(
        TensorSpec(s.name, s.dtype, s.dims, s.strings, default=defaults.get(s.name))
        for s in module.inputs
    )


def run_once(module: Module | EmulatedModel, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Run after checking the inputs. Raises UsageError when they do not fit, RunError when the
    model fails on them."""
    from ..runtime.loader import ModuleError

    specs = specs_of(module)
    inputs = as_declared(inputs, specs)
    check_inputs(specs, inputs)
    try:
        return module(inputs)
    except ModuleError as error:
        raise RunError(str(error), code=error.code, where=module.name) from None
