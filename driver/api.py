"""The Python API: `compile` a model to an `Artifact`, `save` it, `load` it, run it."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..compiler.artifact import Code, TensorSpec
from ..compiler.backend import AnyBackend
from ..compiler.compilation import Compilation, KernelInfo, Stages
from ..compiler.errors import (
    InvalidModelError,
    ModelWarning,
    RunError,
    UnsupportedError,
    UsageError,
    system_refusals,
)
from ..compiler.ir import Graph
from ..compiler.ir.flops import graph_flops
from ..compiler.knobs import VERIFY_TIME
from ..compiler.scratch import called, written_whole
from ..compiler.target import Target
from .argument_checks import (
    check_file,
    check_runs_here,
    check_threads,
    check_writable,
    make_work_dir,
    remove_work_dir,
    require_available,
    unsupported_nodes,
)
from .calibration import CalibrationData
from .compare import Tolerance
from .emits import EMITS, emit_of
from .engines import EngineSpec
from .faults import faults_explained
from .given import ModelLike, model_file
from .halves import InPrecision
from .manifest import build_manifest, sha256_of
from .memory import give_back_memory
from .model_source import ModelSource
from .request import INT8, TEXTS, CompileRequest, reference_precision
from .samples import Sampler
from .second_opinion import add_opinions
from .shapes import DimSpec, ShapeSpecs, shape_of
from .verify import INCOMPLETE, Verification, VerifyReport, verify_random

if TYPE_CHECKING:
    from ..runtime.loader import Module


class Artifact:
    """A compiled model. Its folder of intermediate files lives as long as the object.

    kernels: in the order of the plan. stages: seconds by stage. manifest: see `driver/manifest.py`.
    sampler: draws random inputs. notes: what the user should know of the model. report: of the last
    verification, or None.
    """

    def __init__(
        self,
        compilation: Compilation,
        manifest: dict[str, Any],
        backend: AnyBackend,
        target: Target,
        stages: Stages,
        work_dir: Path,
        source: ModelSource,
    ) -> None:
        self.target = target
        self.kernels: tuple[KernelInfo, ...] = compilation.kernels
        self.manifest = manifest
        self.sampler = source.sampler
        self.notes = source.notes
        self.report: VerifyReport | None = None
        self._backend = backend
        self._model = compilation.model
        self._stages = stages
        self._threads = source.threads
        self._work_dir = work_dir
        self._source = source
        self._library: Path | None = None
        weakref.finalize(self, remove_work_dir, work_dir)

    @property
    def stages(self) -> dict[str, float]:
        """Seconds by stage, in order."""
        return dict(self._stages.seconds)

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the model takes."""
        return self._model.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the model gives."""
        return self._model.outputs

    @property
    def name(self) -> str:
        """The C identifier of the model."""
        return self._model.name

    @property
    def code(self) -> Code:
        """Its machine code and texts, before they are linked."""
        return self._model.code

    @property
    def compiled(self) -> Path:
        """The model that was compiled: the given one, or what quantising made of it."""
        return self._source.path

    @property
    def weights(self) -> Path:
        """The file of its constants, packed as kernels read them; gone when the artifact is."""
        return self._model.weights

    def save(self, path: str | Path, emit: str | None = None) -> list[Path]:
        """Write the artifact; returns the files written, the main one first.

        emit: "so", "exe", "lib", "obj", "llvm" or "asm"; by default the suffix of the path tells
        (.so .a .o .ll .s; none: exe). "llvm" and "asm" must have been named in `texts` of
        `compile`. Raises UsageError for an unknown kind or a path that cannot be written.
        """
        output = Path(path)
        kind = emit or emit_of(output)
        if kind not in EMITS:
            raise UsageError(f"unknown --emit '{kind}'", remedy=f"choose from {', '.join(EMITS)}")
        check_writable(output, other_than=self._source.given)
        with self._stages.stage(f"link {kind}"):
            if kind not in TEXTS:
                give_back_memory()  # the linker maps as much as the file has, twice
                return self._backend.link(self._model, kind, output, self.manifest)
            text = self._model.code.texts.get(kind)
            if text is None:
                raise UsageError(
                    f"the text form '{kind}' was not made",
                    remedy=f"compile(..., texts=('{kind}',))",
                )
            with written_whole(output) as new:
                new.write_text(text, encoding="utf-8")
            return [output]

    def library(self) -> Path:
        """A shared library in the artifact's own folder, made at the first call."""
        if self._library is None:
            self._library = self.save(self._work_dir / f"{self.name}.so", "so")[0]
        return self._library

    def subject(self) -> EngineSpec:
        """How to run it here in another process: as a library or, when it was compiled for another
        architecture, as a program in the emulator of that one.

        Raises UsageError when this machine has no such emulator.
        """
        emulator = self._backend.emulator(self.target)
        if not emulator:
            return EngineSpec("tensmith", self.library(), self._threads)
        program = self.save(self._work_dir / f"{self.name}.program", "exe")[0]
        return EngineSpec("program", program, self._threads, emulator=emulator)

    def check_runs_here(self) -> None:
        """Raise UsageError when it was compiled for another architecture than this machine's."""
        check_runs_here(self._backend, self.target)

    def load(self, threads: int | None = None, *, dicts: bool = False) -> Module:
        """The model, ready to run here; `threads` defaults to those it was compiled for.

        dicts: see `load`.

        Raises UsageError when it was compiled for another architecture, RunError when this machine
        lacks instructions that it needs.
        """
        self.check_runs_here()
        module = load(self.library(), threads or self._threads, dicts=dicts)
        weakref.finalize(module, _keep_alive, self)
        return module

    def tolerance(self, rtol: float | None = None, atol: float | None = None) -> Tolerance:
        """What differences `verify` allows; None leaves the default of the element type."""
        return Tolerance(rtol, atol, quantised=self.sampler.quantised)

    def verify(
        self,
        *,
        time_limit: float | None = None,
        tolerance: Tolerance | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> VerifyReport:
        """Compare with the reference on random inputs (`driver/verify.py`), then with another
        engine where one is installed (`driver/second_opinion.py`); also in `report`.

        Does not raise on a difference: see `VerifyReport.raise_if_failed`.
        """
        try:
            subject = self.subject()
        except UsageError as error:
            self.report = VerifyReport(INCOMPLETE, "reference", f"{error.what}: {error.why}")
            return self.report
        with self._stages.stage("verify"):
            job = Verification(
                subject=subject,
                model=self._source.path,
                shapes=self._source.shapes,
                precision=reference_precision(self.manifest["precision"]),
                target=self._source.target,
                tolerance=tolerance or self.tolerance(),
                time_limit=float(VERIFY_TIME.value) if time_limit is None else time_limit,
                progress=progress,
            )
            self.report = add_opinions(job, verify_random(job, self.sampler), self.sampler)
        return self.report


def _keep_alive(artifact: Artifact) -> None:
    """A finalizer's argument lives until the finalizer runs: nothing is left to do then."""
    del artifact


def compile(
    model: ModelLike,
    *,
    folder: str | Path | None = None,
    target: str = "native",
    precision: str = "fp32",
    calibration: CalibrationData | None = None,
    threads: int = 1,
    opt_level: int = 2,
    shapes: Mapping[str, Sequence[DimSpec] | str] | None = None,
    name: str | None = None,
    verify: bool = False,
    texts: Iterable[str] = (),
    dump_after: Callable[[str, Graph], None] | None = None,
    progress: Callable[[str], None] | None = None,
    work_dir: str | Path | None = None,
    choices: str | Path | None = None,
) -> Artifact:
    """Compile an ONNX model: a file, or its bytes, an open binary file, an `onnx.ModelProto`.

    folder: where the external data of a model lies that is no path. target: see `tensmith targets`.
    precision: "fp32", "bf16", "fp16", or "int8": products of 8 bits, by ranges that `calibration`
    shows: a path, a dict of arrays or an iterable of dicts (docs/precision.md); without it those of
    matrix products are found in every run. threads: how many the plan is partitioned for (any
    number can run it). opt_level: 0 (naive kernels) to 3. shapes: input name -> dims that replace
    declared ones: numbers fix them, names make them symbolic (equal names, equal sizes), "?"
    symbolic with a size of their own, "1..8" bounds what is symbolic; or text, as --shape has it
    ("1x3x224x224"). name: C identifier; by default from the file name. verify: compare with the
    reference, and warn where another engine differs. texts: forms to keep for `save` ("llvm",
    "asm"). dump_after: called with (pass name, graph) after the import (pass name "import") and
    after every pass. progress: told the name of each stage as it begins. work_dir: a folder for
    intermediate files where the system has none that can be written. choices: a file of decisions
    about kernels (`compiler/kernel/schedule/choices.py`) that stand in place of the heuristics'.

    What the model says and does not hold is a ModelWarning, and in the artifact's `notes`.
    Raises UsageError (wrong arguments, no such file), InvalidModelError (malformed model),
    UnsupportedError (names every node that cannot be compiled), ScheduleError (an illegal choice),
    VerificationError.
    """
    request = CompileRequest(
        target=target,
        precision=precision,
        calibration=calibration,
        opt_level=opt_level,
        threads=threads,
        shapes={key: shape_of(key, dims) for key, dims in (shapes or {}).items()},
        choices=_path(choices or None),
        name=name or "",
        texts=frozenset(texts),
        folder=_path(folder),
        work_dir=_path(work_dir),
        dump_after=dump_after,
        progress=progress,
    )
    artifact = _compile(model, request)
    _warn(artifact)
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
            return _compile_file(path, request, backend, target, own)
    except BaseException:
        remove_work_dir(own)
        raise


def _compile_file(
    path: Path, request: CompileRequest, backend: AnyBackend, target: Target, work_dir: Path
) -> Artifact:
    options = request.options(path, work_dir, target)
    stages = Stages(progress=request.progress)
    given, quantised = path, None
    if request.precision == INT8:
        from .quantisation import quantised_as

        with stages.stage("quantise"):
            quantised = quantised_as(request, given, work_dir)
            path = quantised.path
    with stages.stage("import"):
        graph = import_model(path, request.shapes)
        digest = sha256_of(given)
    if options.dump_after:
        options.dump_after("import", graph)
    unsupported = unsupported_nodes(graph, backend, target)
    if unsupported:
        raise UnsupportedError(unsupported, where=f"target '{target.name}'")
    sampler, notes = Sampler(graph), (*graph.notes, *(quantised.notes if quantised else ()))
    flops = graph_flops(graph)
    options = replace(options, sizes=sampler.usual_sizes)
    with faults_explained(path, stages):
        decisions = InPrecision(request.precision, target).rewrite(graph, options.dump_after)
        compilation = backend.compile(graph, target, options, stages)
    manifest = build_manifest(
        compilation, target, options, source_sha256=digest, flops=flops, decisions=decisions
    )
    manifest |= quantised.to_json() if quantised else {}
    used = [key for kernel in compilation.kernels for key in kernel.keys]
    if unused := options.choices.unused(used):
        notes += (f"choices for no group of this model: {', '.join(unused)}",)
    source = ModelSource(
        path, given, request.shapes, request.threads, request.target, sampler, notes
    )
    return Artifact(compilation, manifest, backend, target, stages, work_dir, source)


def load(path: str | Path, threads: int = 1, max_trips: int = 0, *, dicts: bool = False) -> Module:
    """A compiled shared library, ready to run: `load("model.so")({"input": array})`.

    dicts: scores of named classes (ZipMap) come as a list of dicts, one per row, not as an array.
    max_trips: a run whose Loop goes on for more rounds fails; 0: any number. Raises UsageError when
    there is no such file, RunError when this machine cannot run it.
    """
    from ..runtime.loader import ModuleError
    from ..runtime.loader import load as load_library

    check_threads(threads)
    try:
        file = check_file(Path(path), "compiled model")
        return load_library(file, threads=threads, max_trips=max_trips, dicts=dicts)
    except ModuleError as error:
        raise RunError(str(error), code=error.code) from None


def import_model(path: Path, shapes: ShapeSpecs) -> Graph:
    """The graph of a model file, unoptimised. Raises as `frontends.onnx.load`.

    A malformed model can drive the parser's and our recursion too deep, or ask for absurd sizes;
    both are the model's fault and said so.
    """
    from ..frontends.onnx import load as load_model

    try:
        return load_model(path, shapes=shapes)
    except RecursionError:
        raise InvalidModelError(f"{called(path)} is nested too deeply") from None
    except MemoryError:
        raise InvalidModelError(f"{called(path)} needs more memory than there is") from None
