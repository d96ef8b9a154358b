"""What a compilation gives: a model that can be saved, loaded, verified."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..compiler.artifact import Code, TensorSpec
from ..compiler.backend import AnyBackend, Emulator
from ..compiler.compilation import Compilation, KernelInfo, Stages
from ..compiler.errors import RunError, UsageError
from ..compiler.knobs import VERIFY_TIME
from ..compiler.scratch import written_whole
from ..compiler.target import Target
from .argument_checks import (
    check_choice,
    check_file,
    check_runs_here,
    check_writable,
    have_run_here,
    stands_in,
    threads_of,
)
from .budget.report import BudgetReport
from .compare import Tolerance
from .emits import EMITS, emit_of
from .engines import EngineSpec
from .memory import give_back_memory
from .model_source import ModelSource
from .precision_choice import PrecisionChoice
from .request import INT8, TEXTS, reference_precision
from .second_opinion import add_opinions
from .verify import Verification, verify_random
from .verify_report import INCOMPLETE, VerifyReport

if TYPE_CHECKING:
    from ..runtime.loader import Module
    from .model_build import ModelBuild

_LARGE = 16 << 20  # bytes of constants: what is smaller links in less memory than compiling took


class Artifact:
    """A compiled model; its intermediate files lie in a folder.

    kernels: in the order of the plan. stages: seconds by stage. manifest: see `driver/manifest.py`.
    sampler: draws random inputs. notes: what the user should know of the model. report: of the last
    verification, or None. choice: between precisions, where there was one. budget: what became of
    one, where there was one. build: what it was built of. ranges: that calibration gave the values
    of the model that its backend asked about, in this order, where it computes in integers.
    choices: by key, that it was compiled with.
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
        self.choice: PrecisionChoice | None = None
        self.budget: BudgetReport | None = None
        self.build: ModelBuild | None = None
        self.ranges: tuple[tuple[float, float], ...] = ()
        self.choices: Mapping[str, Mapping[str, Any]] = {}
        self._backend = backend
        self._model = compilation.model
        self._stages = stages
        self._threads = source.threads
        self._work_dir = work_dir
        self._source = source
        self._library: Path | None = None

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

        emit: "so", "exe", "lib", "obj", "elf", "c", or, if it was named in `texts` of `compile`,
        "llvm", "asm", "ptx", "cubin" (a zip archive) or "triton"; by default the suffix of the path
        tells (.so .a .o .elf .c .ll .s .ptx .zip .py; none: exe). Raises UsageError for an unknown
        kind or a path that cannot be written.
        """
        output = Path(path)
        kind = emit or emit_of(output)
        if kind not in EMITS:
            raise UsageError(f"unknown --emit '{kind}'", remedy=f"choose from {', '.join(EMITS)}")
        check_writable(output, other_than=self._source.given)
        with self._stages.stage(f"link {kind}"):
            if kind not in TEXTS:
                if self.weights.stat().st_size >= _LARGE:
                    give_back_memory()  # the linker maps as much as the file has, twice
                return self._backend.link(self._model, kind, output, self.manifest)
            code = self._model.code
            text = code.texts.get(kind)
            held = code.archives.get(kind) if text is None else text.encode()
            if held is None:
                raise UsageError(
                    f"the text form '{kind}' was not made",
                    remedy=f"compile(..., texts=('{kind}',))",
                )
            with written_whole(output) as new:
                new.write_bytes(held)
            return [output]

    def library(self) -> Path:
        """A shared library in the artifact's own folder, made at the first call."""
        if self._library is None:
            self._library = self.save(self._work_dir / f"{self.name}.so", "so")[0]
        return self._library

    @property
    def is_stood_in(self) -> bool:
        """Whether something slow takes the place of its hardware here."""
        return self._backend.stand_in is not None and bool(self._backend.runs_here(self.target))

    def __reduce__(self) -> NoReturn:
        raise UsageError(
            "an artifact cannot be pickled or copied",
            why="its files are in a folder of its own",
            remedy="save it, and load the file where it is needed; a loaded model can be pickled",
        )

    def subject(self) -> EngineSpec:
        """How to run it here in another process: as a library, if need be with what stands in for
        hardware, or, when it was compiled for another architecture, as a program in the emulator of
        that one.

        Raises UsageError when this machine has no such emulator.
        """
        if stands_in(self._backend, self.target):
            name = self.target.name
            return EngineSpec("tensmith", self.library(), self._threads, stand_in=name)
        emulator = self.emulated_by()
        if emulator is None:
            return EngineSpec("tensmith", self.library(), self._threads)
        program = self.save(self._work_dir / f"{self.name}.program", emulator.emit)[0]
        kind = "firmware" if emulator.emit == "elf" else "program"
        device = self.target.name if emulator.device else ""
        return EngineSpec(kind, program, self._threads, emulator=emulator.command, stand_in=device)

    def emulated_by(self) -> Emulator | None:
        """What runs its programs here; None where they, or what stands in for hardware, do.

        Raises UsageError when it is not installed.
        """
        if self._backend.stand_in is not None and self.target.has_system:
            return None
        return self._backend.emulator(self.target)

    def check_runs_here(self) -> None:
        """Raise UsageError when it was compiled for another architecture than this machine's."""
        check_runs_here(self._backend, self.target)

    def load(self, threads: int | None = None, *, dicts: bool = False) -> Module:
        """The model, ready to run here; `threads` defaults to those it was compiled for.

        dicts: see `load`.

        Raises UsageError when it was compiled for another architecture, RunError when this machine
        lacks instructions that it needs.
        """
        have_run_here(self._backend, self.target)
        module = load(self.library(), threads or self._threads, dicts=dicts)
        weakref.finalize(module, _keep_alive, self)
        return module

    @property
    def reference(self) -> str:
        """The precision of what it is verified with."""
        return INT8 if self._backend.integers else reference_precision(self.manifest["precision"])

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
                precision=self.reference,
                target=self._source.target,
                ranges=self.ranges,
                choices=self.choices,
                tolerance=tolerance or self.tolerance(),
                time_limit=float(VERIFY_TIME.value) if time_limit is None else time_limit,
                progress=progress,
            )
            self.report = add_opinions(job, verify_random(job, self.sampler), self.sampler)
        return self.report


def _keep_alive(artifact: Artifact) -> None:
    """A finalizer's argument lives until the finalizer runs: nothing is left to do then."""
    del artifact


def manifest_of(path: str | Path) -> dict[str, Any]:
    """The manifest of a compiled shared library, which need not be able to run here.

    Raises UsageError when there is no such file, RunError when it is no compiled model.
    """
    from ..runtime.opening import read_manifest
    from ..runtime.slots import ModuleError

    try:
        return read_manifest(check_file(Path(path), "compiled model"))
    except ModuleError as error:
        raise RunError(str(error), code=error.code) from None


def load(
    path: str | Path,
    threads: int = 1,
    max_trips: int = 0,
    *,
    dicts: bool = False,
    device: int = 0,
    stream: int = 0,
    idle: str = "spin",
    cache_bytes: int = 0,
) -> Module:
    """A compiled shared library, ready to run: `load("model.so")({"input": array})`.

    dicts: scores of named classes (ZipMap) come as a list of dicts, one per row, not as an array.
    max_trips: a run whose Loop goes on for more rounds fails; 0: any number. Of models for GPUs:
    device: which GPU, as the driver counts them; stream: the CUstream to work in, as a number, 0:
    one of its own. idle: what threads do between calls: "spin" for 0.3 ms, then sleep; or "park":
    sleep at once, and take no processor time. cache_bytes: of memory in which responses are kept, 0
    for none: a call whose inputs are, byte for byte, those of an earlier one gets its outputs
    (docs/plan.md). Raises UsageError when there is no such file,
    RunError when this machine cannot run it.
    """
    from ..runtime.loader import ModuleError
    from ..runtime.loader import load as load_library

    threads = threads_of(threads)
    check_choice("idle", idle, ("spin", "park"))
    try:
        file = check_file(Path(path), "compiled model")
        return load_library(
            file, threads=threads, max_trips=max_trips, dicts=dicts, device=device, stream=stream,
            idle=idle, cache_bytes=cache_bytes,
        )  # fmt: skip
    except ModuleError as error:
        raise RunError(str(error), code=error.code) from None
