"""The Python API: `compile` a model to an `Artifact`, or `load` what was saved."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Unpack

from ..compiler.errors import ModelWarning, system_refusals
from ..compiler.ir import Graph
from .argument_checks import make_work_dir, remove_work_dir, require_available
from .artifacts import Artifact, load
from .choosing import compiled
from .given import ModelLike, model_file
from .request import CompileRequest, FurtherOptions
from .shapes import DimSpec, shapes_of
from .verify_report import VerifyReport

__all__ = ["Artifact", "compile", "compile_request", "load"]


def compile(
    model: ModelLike,
    *,
    folder: str | Path | None = None,
    target: str = "native",
    precision: str = "fp32",
    threads: int = 1,
    opt_level: int = 2,
    shapes: Mapping[str, Sequence[DimSpec] | str | None] | None = None,
    name: str | None = None,
    verify: bool = False,
    texts: Iterable[str] = (),
    dump_after: Callable[[str, Graph], None] | None = None,
    progress: Callable[[str], None] | None = None,
    work_dir: str | Path | None = None,
    choices: str | Path | None = None,
    **further: Unpack[FurtherOptions],
) -> Artifact:
    """Compile an ONNX model: a file, or its bytes, an open binary file, an `onnx.ModelProto`.

    folder: where the external data of a model lies that is no path. target: see `tensmith targets`.
    precision: "fp32", "tf32" (GPUs), "bf16", "fp16", or "int8" (products of 8 bits); further: what
    it is told, and records of tuning (`FurtherOptions`, docs/precision.md, docs/tuning.md).
    threads: of the plan's partition (any number can run it). opt_level: 0 (naive kernels) to 3.
    shapes: input name -> dims that replace declared ones: numbers fix them, names make them
    symbolic (equal names, equal sizes), "?" symbolic with a size of their own, "1..8" bounds what
    is symbolic; or text, as --shape has it ("1x3x224x224"); None: an optional that holds nothing.
    name: C identifier; by default from the file name. verify: compare with the reference, and warn
    where another engine differs. texts: forms to keep for `save` ("llvm", "asm", of GPUs "ptx",
    "cubin", "triton"). dump_after: called with (pass name, graph) after the import (pass name
    "import") and after every pass. progress: told the name of each stage as it begins. work_dir: a
    folder for intermediate files where the system has none. choices: a file of decisions about
    kernels in place of the heuristics'.

    What the model says and does not hold is a ModelWarning, and in the artifact's `notes`.
    Raises UsageError (wrong arguments, no such file), InvalidModelError (malformed model),
    UnsupportedError (names every node that cannot be compiled), ScheduleError (an illegal choice),
    VerificationError, BudgetError (an accuracy budget is not met; `best` is the best that is).
    """
    request = CompileRequest(
        target=target,
        precision=precision,
        opt_level=opt_level,
        threads=threads,
        shapes=shapes_of(shapes),
        choices=_path(choices or None),
        name=name or "",
        texts=frozenset(texts),
        folder=_path(folder),
        work_dir=_path(work_dir),
        dump_after=dump_after,
        progress=progress,
        **further,
    )
    artifact = _compile(model, request)
    _warn(artifact)
    _check_budget(artifact)
    if verify:
        _settle(artifact.verify(progress=progress))
    return artifact


def compile_request(model: ModelLike, request: CompileRequest) -> Artifact:
    """`compile` for a request that is made; nothing is verified."""
    artifact = _compile(model, request)
    _warn(artifact)
    return artifact


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)


def _warn(artifact: Artifact) -> None:
    for note in artifact.notes:
        warnings.warn(note, ModelWarning, stacklevel=3)


def _check_budget(artifact: Artifact) -> None:
    """Raise BudgetError, with the artifact as its `best`, where one is not met."""
    error = artifact.budget.error() if artifact.budget else None
    if error is not None:
        error.best = artifact
        raise error


def _settle(report: VerifyReport) -> None:
    """Raise VerificationError where it failed, warn where it is disputed."""
    report.raise_if_failed()
    if report.disputed:
        warnings.warn(report.summary(), stacklevel=3)


def _compile(model: ModelLike, request: CompileRequest) -> Artifact:
    backend, target = request.resolve()
    require_available(backend)
    own = make_work_dir(request.work_dir)
    try:
        with system_refusals("cannot write the files of a compilation"):
            path = model_file(model, request.folder, own)
            artifact = compiled(path, request, backend, target, own)
    except BaseException:
        remove_work_dir(own)
        raise
    weakref.finalize(artifact, remove_work_dir, own)
    return artifact
