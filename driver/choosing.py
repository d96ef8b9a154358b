"""In which precision a model is compiled: the one that is asked for, where its binary is faster
here than that of f32; or the fastest of all that are within a budget."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..compiler.backend import AnyBackend
from ..compiler.compilation import Stages
from ..compiler.errors import UsageError
from ..compiler.target import Target
from .artifacts import Artifact
from .building import build, built
from .calibration import repeatable
from .halves import HALVES
from .precision_choice import PrecisionChoice
from .request import AUTO, FP32, INT8, WEIGHT_BITS, CompileRequest
from .timed_inputs import timed_inputs
from .timing import SAME, Times, share_of, timer_of, why_not_timed

if TYPE_CHECKING:
    from .budget.whole_models import WholeModels

WEIGHTS_OF_BYTES = "int8-weights"


def compiled(
    path: Path, request: CompileRequest, backend: AnyBackend, target: Target, work_dir: Path
) -> Artifact:
    """Compile a file in the precision that is asked for, or in f32 where that is no slower.

    Binaries run here in turns (`timing.py`), on a calibration sample or random inputs. Where they
    cannot, or a request forces the precision, that is what is compiled. Raises as `build`.
    """
    stages = Stages(progress=request.progress)
    request = replace(  # data are read several times
        request,
        calibration=repeatable(request.calibration, work_dir / "calibration"),
        eval=repeatable(request.eval, work_dir / "eval"),
    )
    if request.precision == FP32 or request.probe or backend.integers is not None:
        return build(path, request, backend, target, work_dir, stages)
    choosing = _Choosing(path, request, backend, target, work_dir, stages)
    return choosing.automatic() if request.precision == AUTO else choosing.asked()


class _Choosing:
    """Builds what is needed to choose, each in a folder of its own."""

    def __init__(
        self,
        path: Path,
        request: CompileRequest,
        backend: AnyBackend,
        target: Target,
        work_dir: Path,
        stages: Stages,
    ) -> None:
        self.path, self.request, self.work_dir = path, request, work_dir
        self.backend, self.target, self.stages = backend, target, stages
        self.folders = 0

    def built(self, path: Path, **changes: Any) -> Artifact:
        """The binary of a file and a request with some changes."""
        request = replace(self.request, **changes)
        folder = self._folder()
        return build(path, request, self.backend, self.target, folder, self.stages)

    def _folder(self) -> Path:
        self.folders += 1
        folder = self.work_dir / f"choice{self.folders}"
        folder.mkdir()
        return folder

    @cached_property
    def plain(self) -> Artifact:
        """The binary of f32."""
        return self.built(self.path, precision=FP32, dump_after=None, **_NO_DATA)

    @cached_property
    def whole_models(self) -> WholeModels:
        """What evaluates binaries."""
        from .budget.whole_models import WholeModels

        with self.stages.stage("evaluate"):
            return WholeModels(self.path, self.request, self._folder(), self.plain.load())

    # ------------------------------------------------------------------ one precision

    def asked(self) -> Artifact:
        """The binary of the precision that is asked for, or that of f32."""
        asked = self.request.precision
        lower = self.built(self.path)
        if self.request.has_budget and lower.budget is None:
            self._evaluate(lower, asked)
        reason = self._untimed(lower)
        if reason == _SAME and self._gives_way():
            return self._reverted(lower, _why_nothing(lower, asked), {})
        if reason:
            return _chosen(lower, PrecisionChoice(asked, asked, reason))
        times = self._timed({asked: lower, FP32: self.plain})
        if times is None:
            return _chosen(lower, PrecisionChoice(asked, asked, _NO_INPUTS))
        seconds = _seconds(times)
        if _is_faster(times, asked):
            return _chosen(lower, PrecisionChoice(asked, asked, "", seconds))
        return self._faster(lower, seconds) or self._reverted(
            lower, f"{asked} is not faster on this machine", seconds
        )

    def _faster(self, lower: Artifact, seconds: Mapping[str, float]) -> Artifact | None:
        """The binary of the most exact other model in integers that is faster than that of f32, of
        those that may take less time than one that is not; None where there is none."""
        made, asked = lower.build, self.request.precision
        if made is None or made.quantised is None:
            return None
        for write in made.quantised.faster:
            folder = self._folder()
            quantised = write(folder / "model.onnx")
            if quantised is None:
                continue
            other = built(
                replace(made, path=quantised.path, quantised=quantised), folder, self.stages
            )
            times = self._timed({asked: other, FP32: self.plain})
            if times is not None and _is_faster(times, asked):
                other.notes += (
                    f"the most exact model in {asked} is not faster than fp32 on this machine "
                    f"({seconds[asked] * 1e3:.4g} ms, fp32 {seconds[FP32] * 1e3:.4g} ms): in the "
                    f"one that is compiled the error is {quantised.worst:.1f} dB below the outputs,"
                    f" {made.quantised.worst:.1f} dB in that one; --force-precision "
                    "(force_precision=True) keeps it",
                )
                return _chosen(other, PrecisionChoice(asked, asked, "", _seconds(times)))
        return None

    def _reverted(self, lower: Artifact, reason: str, seconds: Mapping[str, float]) -> Artifact:
        asked, told = self.request.precision, ""
        if seconds:
            told = f" ({seconds[asked] * 1e3:.4g} ms, fp32 {seconds[FP32] * 1e3:.4g} ms)"
        keep = f"--force-precision (force_precision=True) keeps {asked}"
        self.plain.notes += (f"compiled in fp32: {reason}{told}; {keep}",)
        if lower.budget is not None:
            self.plain.budget = replace(lower.budget, drop=None, met=True)
        return _chosen(self.plain, PrecisionChoice(asked, FP32, reason, seconds))

    def _gives_way(self) -> bool:
        """Whether a binary whose precision changes no product is that of f32 in the end: weights
        that int8 rounds only lose, and models in halves go through further passes, which may cost
        time."""
        asked = self.request.precision
        if self.request.force_precision:
            return False
        timed = not why_not_timed(self.backend, self.target)
        return asked == INT8 or (asked in HALVES and timed)

    def _untimed(self, lower: Artifact) -> str:
        """Why the binary is not timed against that of f32; "" where it is."""
        if not is_lower(lower):
            return _SAME
        if lower.budget is not None and not lower.budget.met:
            return "not timed: the budget is not met"
        if self.request.precision in WEIGHT_BITS:
            return "not timed: weights of few bits are there for size"
        if self.request.force_precision:
            return "not timed: the precision is forced"
        reason = why_not_timed(self.backend, self.target)
        return f"not timed: {reason}" if reason else ""

    # ------------------------------------------------------------------ any precision

    def automatic(self) -> Artifact:
        """The fastest binary within the budget. Raises UsageError for another machine's target."""
        elsewhere = self.backend.runs_here(self.target)
        if elsewhere:
            raise UsageError(
                "--precision auto chooses by times that are measured, and the target is another "
                "machine's",
                why=elsewhere,
                remedy="name a precision, or compile there",
            )
        found, reasons = {FP32: self.plain}, list[str]()
        integer = self._integer(reasons)
        half = self._half()
        if half is not None:
            self._admit(found, half.manifest["precision"], half, reasons)
        if integer is not None:
            self._admit(found, integer.manifest["precision"], integer, reasons)
        if half is not None and integer is not None and self.request.calibration is not None:
            name, mixed = self._mixed(integer, half.manifest["precision"])
            self._admit(found, name, mixed, reasons)
            if mixed.budget is not None and integer.budget is not None:
                mixed.budget = replace(mixed.budget, groups=integer.budget.groups)
        times = self._timed(found) if len(found) > 1 else {}
        if times is None:
            raise UsageError(
                "--precision auto cannot time the model: it takes no inputs that were tried",
                remedy="give --calibration or --eval, or name a precision",
            )
        kept = _fastest(found, times) if times else FP32
        choice = PrecisionChoice(AUTO, kept, "; ".join(reasons), _seconds(times))
        chosen = found[kept]
        if chosen.budget is None and integer is not None and integer.budget is not None:
            chosen.budget = replace(integer.budget, drop=None, met=True)
        return _chosen(chosen, choice)

    def _admit(
        self, found: dict[str, Artifact], name: str, artifact: Artifact, reasons: list[str]
    ) -> None:
        """Let a binary be chosen that is lower than f32 and within the budget."""
        if not is_lower(artifact):
            reasons.append(f"{name} changes nothing")
            return
        if artifact.budget is None:
            self._evaluate(artifact, name)
        if artifact.budget is not None and artifact.budget.met:
            found[name] = artifact
        elif artifact.budget is not None and artifact.budget.drop is not None:
            reasons.append(f"{name} loses {artifact.budget.drop.drop:.4g}")

    def _integer(self, reasons: list[str]) -> Artifact | None:
        """The binary of int8 within the budget; without calibration data that of weights in 8
        bits."""
        from ..frontends.onnx.quantising.quantisable import NothingToQuantise

        precision, changes = INT8, {"max_accuracy_drop": self.request.accuracy_drop}
        if self.request.calibration is None:
            reasons.append("int8 needs calibration data")
            precision, changes = WEIGHTS_OF_BYTES, _NO_DATA
        try:
            return self.built(self.path, precision=precision, **changes)
        except NothingToQuantise as error:
            reasons.append(f"{precision}: {error.what}")
            return None

    def _half(self) -> Artifact | None:
        """The binary of bf16, or of fp16 where that changes nothing."""
        for precision in HALVES:
            artifact = self.built(self.path, precision=precision, **_NO_DATA)
            if is_lower(artifact):
                return artifact
        return None

    def _mixed(self, integer: Artifact, half: str) -> tuple[str, Artifact]:
        """What int8 leaves in floats, in a half."""
        mixed = self.built(integer.compiled, precision=half, **_NO_DATA)
        rows = {row["name"]: row for row in integer.manifest["contractions"]}
        own = {row["name"]: row for row in mixed.manifest["contractions"]}
        halves = {name: row for name, row in own.items() if row["precision"].startswith(half)}
        if not halves:
            mixed.manifest["contractions"] = []  # it is what int8 alone is
        else:
            mixed.manifest["quantisation"] = integer.manifest["quantisation"]
            merged = {**rows, **{n: {**rows.get(n, {}), **r} for n, r in halves.items()}}
            mixed.manifest["contractions"] = list(merged.values())
        return f"{INT8}+{half}", mixed

    # ------------------------------------------------------------------ measuring

    def _evaluate(self, artifact: Artifact, name: str) -> None:
        elsewhere = self.backend.runs_here(self.target)
        if elsewhere:
            raise UsageError(
                f"what {name} loses is measured by its binary, and the target is another machine's",
                why=elsewhere,
                remedy="compile there, or leave out --max-accuracy-drop",
            )
        whole = self.whole_models
        with self.stages.stage("evaluate"):
            artifact.budget = whole.report(artifact.load(), name)

    def _timed(self, artifacts: Mapping[str, Artifact]) -> Times | None:
        """Seconds of every round by name; None where no inputs are taken by all."""
        from ..runtime.loader import ModuleError

        modules = {name: artifact.load() for name, artifact in artifacts.items()}
        timer = self.request.timer or timer_of(self.target, alone=self.request.threads == 1)
        with self.stages.stage("timing"):
            data = (self.request.calibration, self.request.eval)
            for inputs in timed_inputs(self.plain, data, self._folder):
                try:
                    for module in modules.values():
                        module(inputs)
                except (ModuleError, UsageError):
                    continue  # of sizes that do not fit together
                return timer({n: lambda m=m, x=inputs: m(x) for n, m in modules.items()})  # type: ignore[misc]
        return None


_NO_DATA: dict[str, Any] = {
    "calibration": None,
    "eval": None,
    "metric": None,
    "max_accuracy_drop": None,
}
_SAME = "not timed: no product is computed otherwise than in fp32"
_NO_INPUTS = "not timed: the model takes no inputs that were tried"


def _is_faster(times: Times, name: str) -> bool:
    """Whether a binary takes less time than that of f32, as far as that can be told."""
    return share_of(times, name, FP32) * SAME < 1.0


def _fastest(names: Iterable[str], times: Times) -> str:
    """The first of those that are as fast as the fastest, as far as that can be told."""
    shares = {name: share_of(times, name, FP32) for name in names}
    least = min(shares.values())
    return next(name for name, share in shares.items() if share <= least * SAME)


def is_lower(artifact: Artifact) -> bool:
    """Whether a product is what the precision of a binary makes of it, or of its weights; others
    are what the model says in fp32, too."""
    made = artifact.manifest["precision"].split("-")[0]
    return any(made in row["precision"].split() for row in artifact.manifest["contractions"])


def _why_nothing(lower: Artifact, asked: str) -> str:
    """Why a precision changes no product."""
    if asked == INT8 and lower.budget is not None:
        return "nothing that is within the budget is faster"
    return f"no product is computed in {'integers' if asked == INT8 else asked}"


def _seconds(times: Times) -> dict[str, float]:
    return {name: median(rounds) for name, rounds in times.items()}


def _chosen(artifact: Artifact, choice: PrecisionChoice) -> Artifact:
    artifact.choice = choice
    artifact.manifest["precision_choice"] = choice.in_manifest()
    if artifact.budget is not None:
        artifact.manifest["budget"] = artifact.budget.to_json()
    return artifact
