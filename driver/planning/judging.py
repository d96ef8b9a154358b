"""What every variant loses against the model in fp32, on all evaluation data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.errors import UsageError
from ...frontends.onnx.quantising.quantisable import Quantisable
from ...runtime.loader import Module
from ..budget.drops import Drop, Limit, limit_of
from ..budget.evaluation import Evaluation
from ..budget.metrics import identity_of
from ..budget.within import evaluation_of
from ..journal import Journal
from ..request import AUTO, CompileRequest
from ..tensor_files import Array
from .plan_request import PlanRequest
from .variants import Variant


class Judge:
    """The evaluation data of a request. Figures are kept in the journal, but for metrics that have
    no identity. exact: the model in fp32, which is run where a figure is missing.

    Raises UsageError for data that do not fit.
    """

    def __init__(self, request: PlanRequest, folder: Path, journal: Journal) -> None:
        self.journal = journal
        self.source = Quantisable(request.model, request.shapes)
        asked = CompileRequest(
            precision=AUTO, eval=request.eval, metric=request.metric, shapes=request.shapes,
            metric_direction=request.metric_direction, progress=request.progress,
            max_accuracy_drop=request.max_accuracy_drop,
        )  # fmt: skip
        self.given = Limit.of(request.max_accuracy_drop)
        self.evaluation: Evaluation = evaluation_of(self.source, asked, folder, None)
        self.evaluation.check()
        identity = identity_of(request.metric)
        kept = request.metric is None or identity is not None
        self._key = (identity or "", request.metric_direction) if kept else None
        self._exact_run = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs that are judged."""
        return self.evaluation.outputs

    def run_exact(self, module: Module) -> None:
        """Take the outputs of the model in fp32 for what they should be; once."""
        if not self._exact_run:
            self.evaluation.run_exact(self.runner(module))
            self._exact_run = True

    def figure(self, exact: Module) -> tuple[str, float, float]:
        """Name of the metric, its figure in fp32, and the most that it may drop."""
        kept = self.journal.get("exact", *self._key) if self._key else None
        if kept is None:
            self.run_exact(exact)
            metric = self.evaluation.metric
            kept = [metric.name, self.evaluation.exact, metric.relative]
            if self._key:
                self.journal.put(kept, "exact", *self._key)
        name, score, relative = kept
        return name, score, limit_of(self.given, name, score, relative)

    def drop(self, variant: Variant, module: Module, exact: Module) -> Drop:
        """What a binary loses, on every sample."""
        key = ("drop", variant.judged.name, *(self._key or ()))
        kept = self.journal.get(*key) if self._key else None
        if kept is None:
            self.run_exact(exact)
            found = self.evaluation.drop(self.runner(module), math.inf, variant.name)
            if self._key:
                self.journal.put(found.to_json(), *key)
            return found
        return Drop(**kept)

    def runner(self, module: Module) -> Any:
        """What runs a module on a sample; outputs have the names of the model's, by their order.

        Raises UsageError for a model of fewer outputs.
        """
        own = [spec.name for spec in module.outputs]
        if len(own) < len(self.outputs):
            raise UsageError(
                f"'{module.name}' has {len(own)} output(s), and the model {len(self.outputs)}",
                remedy="a candidate has the model's inputs and outputs",
            )
        names = self.outputs if set(self.outputs) <= set(own) else own[: len(self.outputs)]

        def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
            told = module(inputs)
            pairs = zip(self.outputs, names, strict=True)
            return {name: np.array(told[theirs]) for name, theirs in pairs}

        return run
