"""`tensmith cascade`: two models as one binary, with a threshold between them that data chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.errors import UsageError
from ...compiler.scratch import make_folder
from ...frontends.onnx.cascading.merging import (
    CONFIDENCE,
    DEFERRED,
    CascadeStages,
    cascade_model,
    confidence_model,
)
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
from .thresholds import (
    JudgedSamples,
    ThresholdChoice,
    check_useful,
    choose_threshold,
    told_of,
)

USUAL_DROP = "0.2%"  # that a cascade may lose against the large model
AUTO_THRESHOLD = "auto"

Compile = Callable[[Path, CompileRequest], Artifact]


@dataclass(frozen=True)
class CascadeRequest:
    """stages: the models, and how sure the small one has to be. threshold: a number, or "auto": the
    lowest that loses no more than `max_accuracy_drop` on evaluation data. request: how all is
    compiled. Raises UsageError where "auto" has no data to go by.
    """

    stages: CascadeStages
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
            threshold_of(self.threshold)


def threshold_of(given: str | float) -> float:
    """The number. Raises UsageError for anything else."""
    try:
        value = float(given)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise UsageError(f"the threshold is '{given}'", remedy="give a number, or auto")
    return value


@dataclass(frozen=True)
class CascadeReport:
    """metric: what accuracy is. choice: the threshold with what it does. limit: the drop that was
    allowed; None: the threshold was given. samples: how many there were, half of which chose it."""

    metric: str
    choice: ThresholdChoice
    limit: float | None
    samples: int

    def to_json(self) -> dict[str, Any]:
        """For manifests and `--json`."""
        return {**asdict(self), "choice": {**asdict(self.choice)}}

    def lines(self) -> list[str]:
        """For people."""
        own, drop = self.choice, self.choice.drop
        return [
            f"threshold {own.threshold:.6g}: {own.deferred:.1%} of other samples are deferred "
            f"({own.chosen_deferred:.1%} of those that chose it)",
            f"{self.metric} on other samples: small {own.small:.4f}, large {own.large:.4f}, "
            f"cascade {drop.score:.4f}; drop {drop.drop:.4g} ({drop.low:.4g} to {drop.high:.4g} "
            f"with 90 %) on {drop.rows} results",
        ]


@dataclass(frozen=True)
class Cascade:
    """The binary, the ONNX file that it was made of, and what is known of its threshold (None: no
    data were given)."""

    artifact: Artifact
    model: Path
    report: CascadeReport | None


def make_cascade(
    asked: CascadeRequest, folder: Path, compile: Compile = api.compile_request
) -> Cascade:
    """Choose the threshold, and compile both models as one. folder: for the file of the model.

    Raises UsageError for models or data that do not fit, BudgetError where the small model can
    answer nothing, and as `api.compile`.
    """
    report = None
    if asked.eval is not None:
        report = _report(asked, folder, compile)
        if report.limit is not None:
            check_useful(report.choice, report.limit)
    threshold = report.choice.threshold if report else threshold_of(asked.threshold)
    path = write_cascade(asked.stages, threshold, folder)
    artifact = compile(path, asked.request)
    artifact.manifest["cascade"] = {
        "small": asked.stages.small.name, "large": asked.stages.large.name,
        "confidence": asked.stages.confidence, "threshold": threshold,
        "report": report.to_json() if report else None,
    }  # fmt: skip
    return Cascade(artifact, path, report)


def write_cascade(stages: CascadeStages, threshold: float, folder: Path) -> Path:
    """The file of the model that is both."""
    single = "_single" if stages.single else ""
    path = folder / f"{stages.small.stem}_{stages.large.stem}{single}.onnx"
    path.write_bytes(cascade_model(stages, threshold).SerializeToString(deterministic=True))
    return path


def _report(asked: CascadeRequest, folder: Path, compile: Compile) -> CascadeReport:
    evaluation, samples = judged_samples(asked, folder, compile)
    name = evaluation.metric.name
    if asked.threshold != AUTO_THRESHOLD:
        choice = told_of(samples, threshold_of(asked.threshold))
        return CascadeReport(name, choice, None, len(samples.confidences))
    limit = limit_of(
        Limit.of(asked.max_accuracy_drop), name, evaluation.exact, evaluation.metric.relative
    )
    choice = choose_threshold(samples, limit)
    return CascadeReport(name, choice, limit, len(samples.confidences))


def judged_samples(
    asked: CascadeRequest, folder: Path, compile: Compile
) -> tuple[Evaluation, JudgedSamples]:
    """What both models give for evaluation data, and how sure the small one is."""
    stages, request = asked.stages, asked.request
    source = Quantisable(stages.large, request.shapes)
    judging = CompileRequest(
        precision=AUTO, eval=asked.eval, metric=asked.metric, shapes=request.shapes,
        progress=request.progress,
    )  # fmt: skip
    own = make_folder("tensmith-cascade-", near=folder)
    evaluation = evaluation_of(source, judging, own, None)
    evaluation.check()
    front = folder / f"{stages.small.stem}_confidence.onnx"
    front.write_bytes(confidence_model(stages).SerializeToString(deterministic=True))
    plain = replace(request, shapes=request.shapes)
    with compile(stages.large, plain).load() as large:
        evaluation.run_exact(lambda sample: _copied(large, sample))
    confidences: list[float] = []
    records = []
    with compile(front, plain).load() as small:
        for (sample, label), exact in zip(
            evaluation.pairs(), evaluation.exact_outputs(), strict=True
        ):
            told = _copied(small, sample)
            confidences.append(float(np.min(told.pop(CONFIDENCE))))
            named = dict(zip(evaluation.outputs, _in_order(told, evaluation.outputs), strict=True))
            records.append(evaluation.metric.record(named, exact, label))
    return evaluation, JudgedSamples(
        evaluation.metric, records, evaluation.records, np.asarray(confidences, np.float32)
    )


def _in_order(told: Mapping[str, Array], names: Sequence[str]) -> list[Array]:
    """Outputs by the names of others, or in their order."""
    if set(names) <= set(told):
        return [told[name] for name in names]
    return list(told.values())[: len(names)]


def _copied(module: Module, sample: Mapping[str, Array]) -> dict[str, Array]:
    return {name: np.array(array) for name, array in module(sample).items()}


__all__ = ["DEFERRED", "Cascade", "CascadeReport", "CascadeRequest", "make_cascade"]
