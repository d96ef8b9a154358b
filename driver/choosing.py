"""A lower precision is kept where its binary is faster than that of f32, as both run here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from ..compiler.backend import AnyBackend
from ..compiler.compilation import Stages
from ..compiler.errors import UsageError
from ..compiler.knobs import TIME_PRECISION
from ..compiler.target import Target
from .artifacts import Artifact
from .building import build
from .calibration import Samples
from .precision_choice import PrecisionChoice
from .request import FP32, CompileRequest
from .tensor_files import Arrays
from .timing import Timer, interleaved, share_of

_SIZES = 6  # of symbolic dims that are tried, until the model takes one
_AS_GIVEN = (FP32, "int32")  # of products that no lower precision has changed


def compiled(
    path: Path, request: CompileRequest, backend: AnyBackend, target: Target, work_dir: Path
) -> Artifact:
    """Compile a file in the precision that is asked for, or in f32 where that is no slower.

    Both binaries run here in turns (`timing.py`), on a calibration sample or random inputs. Where
    they cannot, or a request forces the precision, that is what is compiled. Raises as `build`.
    """
    stages = Stages(progress=request.progress)
    lower = build(path, request, backend, target, work_dir, stages)
    if request.precision == FP32:
        return lower
    reason = _untimed(lower, request, backend, target)
    if reason:
        return _chosen(lower, PrecisionChoice(request.precision, request.precision, reason))
    folder = work_dir / FP32
    folder.mkdir()
    in_f32 = replace(request, precision=FP32, calibration=None, dump_after=None)
    plain = build(path, in_f32, backend, target, folder, stages)
    with stages.stage("timing"):
        times = _timed({request.precision: lower, FP32: plain}, request, folder)
    if times is None:
        reason = "not timed: the model takes no inputs that were tried"
        return _chosen(lower, PrecisionChoice(request.precision, request.precision, reason))
    seconds = {name: median(rounds) for name, rounds in times.items()}
    if share_of(times, request.precision, FP32) < 1.0:
        return _chosen(lower, PrecisionChoice(request.precision, request.precision, "", seconds))
    reason = f"{request.precision} is not faster on this machine"
    note = (
        f"compiled in fp32: {reason} ({seconds[request.precision] * 1e3:.4g} ms, fp32 "
        f"{seconds[FP32] * 1e3:.4g} ms); --force-precision (force_precision=True) keeps it"
    )
    plain.notes += (note,)
    return _chosen(plain, PrecisionChoice(request.precision, FP32, reason, seconds))


def _untimed(lower: Artifact, request: CompileRequest, backend: AnyBackend, target: Target) -> str:
    """Why the binary is not timed against that of f32; "" where it is."""
    if all(row["precision"] in _AS_GIVEN for row in lower.manifest["contractions"]):
        return "not timed: no product is computed otherwise than in fp32"
    if request.force_precision:
        return "not timed: the precision is forced"
    if not TIME_PRECISION.value:
        return f"not timed: {TIME_PRECISION.variable} is off"
    elsewhere = backend.runs_here(target)
    return f"not timed: compiled for another machine ({elsewhere})" if elsewhere else ""


def _chosen(artifact: Artifact, choice: PrecisionChoice) -> Artifact:
    artifact.choice = choice
    artifact.manifest["precision_choice"] = choice.in_manifest()
    return artifact


def _timed(
    artifacts: Mapping[str, Artifact], request: CompileRequest, folder: Path
) -> Mapping[str, Any] | None:
    """Seconds of every round by name; None where no inputs are taken by all."""
    from ..runtime.loader import ModuleError

    modules = {name: artifact.load() for name, artifact in artifacts.items()}
    timer: Timer = request.timer or interleaved
    for inputs in _inputs(next(iter(artifacts.values())), request, folder):
        try:
            for module in modules.values():
                module(inputs)
        except (ModuleError, UsageError):
            continue  # of sizes that do not fit together
        return timer({name: lambda m=m, x=inputs: m(x) for name, m in modules.items()})  # type: ignore[misc]
    return None


def _inputs(artifact: Artifact, request: CompileRequest, folder: Path) -> Iterator[Arrays]:
    """The first calibration sample, or such as are drawn."""
    if request.calibration is not None and not isinstance(request.calibration, Iterator):
        yield next(iter(Samples(request.calibration, artifact.inputs, folder / "samples")))
        return
    sampler = artifact.sampler
    yield sampler.draw(sampler.usual_sizes, 0)
    for sizes in islice(sampler.candidate_sizes(), _SIZES):
        yield sampler.draw(sizes, 0)
