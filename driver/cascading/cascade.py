"""`tensmith cascade`: stages as one binary, with thresholds between them that data chose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.scratch import make_folder
from ...frontends.onnx.cascading.exits import ExitStages
from ...frontends.onnx.cascading.merging import CONFIDENCE, CascadeStages
from ...frontends.onnx.quantising.quantisable import Quantisable
from ...runtime.loader import Module
from .. import api
from ..artifacts import Artifact
from ..budget.drops import Limit, limit_of
from ..budget.evaluation import Evaluation
from ..budget.metrics import UserMetric
from ..budget.within import evaluation_of
from ..calibration import CalibrationData
from ..request import AUTO, CompileRequest
from ..tensor_files import Array
from . import USUAL_DROP
from .costs import CascadeCost, measured_cost, predicted_cost, shapes_of, stage_flops
from .thresholds import (
    JudgedSamples,
    ThresholdChoice,
    Thresholds,
    check_useful,
    choose_thresholds,
    told_of,
)

AUTO_THRESHOLD = "auto"

Compile = Callable[[Path, CompileRequest], Artifact]


Stages = CascadeStages | ExitStages


@dataclass(frozen=True)
class CascadeRequest:
    """stages: the models, or the exits of one, and how sure one has to be. threshold: numbers, one
    for each stage but the last, or "auto": the lowest that lose no more than `max_accuracy_drop` on
    evaluation data. request: how all is compiled. Raises UsageError where "auto" has no data to go
    by, and for numbers that do not fit.
    """

    stages: Stages
    request: CompileRequest
    threshold: str | float = AUTO_THRESHOLD
    eval: CalibrationData | None = None
    metric: str | UserMetric | None = None
    max_accuracy_drop: str | float = USUAL_DROP

    def __post_init__(self) -> None:
        Limit.of(self.max_accuracy_drop)
        if self.threshold == AUTO_THRESHOLD and self.eval is None:
            raise UsageError(
                "a threshold is chosen on evaluation data",
                remedy="give --eval, or a number: --threshold 0.9",
            )
        if self.threshold != AUTO_THRESHOLD:
            self.given_thresholds()

    def given_thresholds(self) -> Thresholds:
        """The numbers. Raises UsageError for anything else."""
        parts = str(self.threshold).split(",")
        wanted = len(self.stages.names) - 1
        try:
            values = tuple(float(part) for part in parts)
        except ValueError:
            values = ()
        if len(values) != wanted or not np.isfinite(values).all():
            raise UsageError(
                f"the threshold is '{self.threshold}'",
                remedy=f"give {wanted} number(s), with commas between them, or auto",
            )
        return values


@dataclass(frozen=True)
class CascadeReport:
    """names: of the stages. metric: what accuracy is. choice: the thresholds with what they do.
    limit: the drop that was allowed; None: the thresholds were given. samples: how many there were,
    half of which chose them. predicted: what a call takes by the cost model, None where there is
    none; measured: here, None where the binary does not run here."""

    names: tuple[str, ...]
    metric: str
    choice: ThresholdChoice
    limit: float | None
    samples: int
    predicted: CascadeCost | None = None
    measured: CascadeCost | None = None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return self.for_manifest() | {
            "measured": None if self.measured is None else self.measured.to_json()
        }

    def for_manifest(self) -> dict[str, Any]:
        """What does not change from one compilation of the same files to the next."""
        return {
            "metric": self.metric, "choice": asdict(self.choice), "limit": self.limit,
            "samples": self.samples,
            "predicted": None if self.predicted is None else self.predicted.to_json(),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """For people."""
        own, drop = self.choice, self.choice.drop
        thresholds = ", ".join(f"{value:.6g}" for value in own.thresholds)
        shares = ", ".join(
            f"{name} {share:.1%} ({chosen:.1%})"
            for name, share, chosen in zip(
                self.names, own.answered, own.chosen_answered, strict=True
            )
        )
        scores = ", ".join(
            f"{name} {score:.4f}" for name, score in zip(self.names, own.scores, strict=True)
        )
        costs = [cost.line() for cost in (self.predicted, self.measured) if cost is not None]
        return [
            f"threshold {thresholds}: {own.deferred:.1%} of other samples are deferred",
            f"of other samples (of those that chose it) are answered by {shares}",
            f"{self.metric} on other samples: {scores}, cascade {drop.score:.4f}; drop "
            f"{drop.drop:.4g} ({drop.low:.4g} to {drop.high:.4g} with 90 %) on {drop.rows} results",
            *costs,
        ]


@dataclass(frozen=True)
class Cascade:
    """The binary, the ONNX file that it was made of, and what is known of its thresholds (None: no
    data were given)."""

    artifact: Artifact
    model: Path
    report: CascadeReport | None


def make_cascade(
    asked: CascadeRequest, folder: Path, compile: Compile = api.compile_request
) -> Cascade:
    """Choose the thresholds, and compile all stages as one. folder: for the files of models.

    Raises UsageError for models or data that do not fit, BudgetError where the small model can
    answer nothing, and as `api.compile`.
    """
    judged = None if asked.eval is None else JudgedCascade(asked, folder, compile)
    report = None
    if judged is not None:
        report = judged.report()
        if report.limit is not None:
            check_useful(report.choice, report.limit)
    thresholds = report.choice.thresholds if report else asked.given_thresholds()
    path = write_cascade(asked.stages, thresholds, folder)
    artifact = compile(path, asked.request)
    artifact.manifest["cascade"] = {
        **asked.stages.to_json(), "thresholds": list(thresholds),
        "report": report.for_manifest() if report else None,
    }  # fmt: skip
    if judged is not None and report is not None and not _elsewhere(artifact):
        report = replace(report, measured=judged.measured(artifact))
    return Cascade(artifact, path, report)


def write_cascade(stages: Stages, thresholds: Thresholds, folder: Path) -> Path:
    """The file of the model that is all stages."""
    path = folder / f"{stages.stem}.onnx"
    path.write_bytes(stages.joined(thresholds).SerializeToString(deterministic=True))
    return path


class JudgedCascade:
    """The stages of a cascade, compiled and run on all evaluation data.

    models: the file of each; samples: what they give; evaluation: of the last one.
    """

    def __init__(self, asked: CascadeRequest, folder: Path, compile: Compile) -> None:
        self.asked, stages, request = asked, asked.stages, asked.request
        self.models = _stage_files(stages, folder)
        source = Quantisable(self.models[-1], request.shapes)
        judging = CompileRequest(
            precision=AUTO, eval=asked.eval, metric=asked.metric, shapes=request.shapes,
            progress=request.progress,
        )  # fmt: skip
        own = make_folder("tensmith-cascade-", near=folder)
        self.evaluation = evaluation_of(source, judging, own, None)
        self.evaluation.check()
        self.last = compile(self.models[-1], request)
        with self.last.load() as module:
            self.evaluation.run_exact(lambda sample: _copied(module, sample))
        records: list[list[Any]] = []
        confidences: list[Array] = []
        for path in self.models[:-1]:
            own_shapes = shapes_of(path, request.shapes)
            with compile(path, replace(request, shapes=own_shapes)).load() as module:
                found, sure = _judged(module, self.evaluation)
            records.append(found)
            confidences.append(sure)
        self.samples = JudgedSamples(
            self.evaluation.metric, [*records, self.evaluation.records], confidences
        )

    def chosen(self, limit: float) -> ThresholdChoice:
        """See `choose_thresholds`."""
        stages = self.asked.stages
        costs = stage_flops(self.models, self.asked.request.shapes, cumulative=stages.cumulative)
        return choose_thresholds(self.samples, limit, costs)

    def report(self) -> CascadeReport:
        """What thresholds do, chosen or given."""
        asked, evaluation = self.asked, self.evaluation
        name, limit = evaluation.metric.name, None
        if asked.threshold == AUTO_THRESHOLD:
            drop = Limit.of(asked.max_accuracy_drop)
            limit = limit_of(drop, name, evaluation.exact, evaluation.metric.relative)
            choice = self.chosen(limit)
        else:
            choice = told_of(self.samples, asked.given_thresholds())
        predicted = predicted_cost(
            self.models, choice.answered, choice.drop.rows, asked.request,
            cumulative=asked.stages.cumulative,
        )  # fmt: skip
        names = asked.stages.names
        return CascadeReport(names, name, choice, limit, self.samples.count, predicted)

    def measured(self, cascade: Artifact) -> CascadeCost:
        """What calls of a binary take, on every second sample: those that chose nothing."""
        with cascade.load() as module, self.last.load() as last:
            return measured_cost(module, last, self._others())

    def _others(self) -> Iterator[Mapping[str, Array]]:
        for number, (sample, _) in enumerate(self.evaluation.pairs()):
            if number % 2:
                yield sample


def _stage_files(stages: Stages, folder: Path) -> list[Path]:
    """The model of each stage as a file."""
    found = []
    for number, model in enumerate(stages.fronts()):
        path = folder / f"{stages.stem}_stage{number}.onnx"
        path.write_bytes(model.SerializeToString(deterministic=True))
        found.append(path)
    return [*found, stages.last(folder)]


def _judged(module: Module, evaluation: Evaluation) -> tuple[list[Any], Array]:
    """Records of all samples by a stage, and how sure it is of each."""
    confidences: list[float] = []
    records = []
    for (sample, label), exact in zip(evaluation.pairs(), evaluation.exact_outputs(), strict=True):
        told = _copied(module, {spec.name: sample[spec.name] for spec in module.inputs})
        confidences.append(float(np.min(told.pop(CONFIDENCE))))
        named = dict(zip(evaluation.outputs, _in_order(told, evaluation.outputs), strict=True))
        records.append(evaluation.metric.record(named, exact, label))
    return records, np.asarray(confidences, np.float32)


def _in_order(told: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """Outputs by the names of others, or in their order."""
    if set(names) <= set(told):
        return [told[name] for name in names]
    return list(told.values())[: len(names)]


def _copied(module: Module, sample: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(array) for name, array in module(sample).items()}


def _elsewhere(artifact: Artifact) -> bool:
    try:
        artifact.check_runs_here()
    except UsageError:
        return True
    return False


__all__ = ["Cascade", "CascadeReport", "CascadeRequest", "JudgedCascade", "make_cascade"]
