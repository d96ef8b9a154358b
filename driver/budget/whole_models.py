"""The drop of binaries as they are: bf16, fp16, and what is mixed with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...frontends.onnx.quantising.quantisable import Quantisable
from ...runtime.loader import Module
from ..calibration import Samples, specs_of_inputs
from ..request import CompileRequest
from .drops import Limit, limit_of
from .report import BudgetReport
from .within import evaluation_of

Array = np.ndarray[Any, Any]


class WholeModels:
    """Evaluates binaries against that of f32. Raises UsageError for data that do not fit."""

    def __init__(self, path: Path, request: CompileRequest, folder: Path, exact: Module) -> None:
        source = Quantisable(path, request.shapes)
        samples = None
        if request.calibration is not None:
            specs = specs_of_inputs(source.floats(source.outputs))
            samples = Samples(request.calibration, specs, folder / "samples")
        self.own_data = request.eval is not None
        self.given = Limit.of(request.accuracy_drop)
        self.evaluation = evaluation_of(source, request, folder, samples)
        self.evaluation.run_exact(_run(exact))
        metric = self.evaluation.metric
        self.limit = limit_of(self.given, metric.name, self.evaluation.exact, metric.relative)

    def report(self, module: Module, name: str) -> BudgetReport:
        """What becomes of the budget with a binary."""
        drop = self.evaluation.drop(_run(module), self.limit, name)
        return BudgetReport(
            self.evaluation.metric.name,
            str(self.given),
            self.limit,
            drop,
            drop.meets(self.limit),
            self.evaluation.evaluations,
            own_data=self.own_data,
        )


def _run(module: Module) -> Any:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.array(array) for name, array in module(inputs).items()}

    return run
