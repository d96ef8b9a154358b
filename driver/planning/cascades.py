"""Candidates with the model behind them, as models of their own."""

from __future__ import annotations

from pathlib import Path

from ...compiler.errors import UsageError
from ...frontends.onnx.cascading.merging import CascadeStages
from ..budget.drops import Drop
from ..cascading.cascade import CascadeRequest, JudgedCascade, write_cascade
from ..journal import Journal
from ..request import CompileRequest
from .builds import Compile
from .plan_request import PlanRequest
from .variants import Pruned


class Cascades:
    """Chooses thresholds, which the journal keeps. drops: what each loses, by label, on the samples
    that did not choose its threshold. notes: is told of each."""

    def __init__(
        self, request: PlanRequest, folder: Path, journal: Journal, notes: list[str],
        compile: Compile,
    ) -> None:  # fmt: skip
        self.request, self.folder, self.journal = request, folder, journal
        self.notes, self.compile = notes, compile
        self.drops: dict[str, Drop] = {}

    def make(self, small: Path, label: str, limit: float) -> Path | Pruned:
        """The file of a candidate with the model behind it; why there is none.

        limit: of the drop, that the threshold is chosen by.
        """
        self.folder.mkdir(exist_ok=True)
        stages = CascadeStages(small, self.request.model, single=True)
        kept = self.journal.get("threshold", label, limit)
        if kept is None:
            self.request.note(f"choosing the threshold of {label}")
            try:
                judged = JudgedCascade(self._asked(stages), self.folder, self.compile)
                choice = judged.chosen(limit)
            except UsageError as error:
                return Pruned(label, error.what)
            kept = {
                "thresholds": list(choice.thresholds),
                "drop": choice.drop.to_json(),
                "answers_nothing": choice.chosen_answered[-1] >= 1.0,
                "deferred": choice.deferred,
            }
            self.journal.put(kept, "threshold", label, limit)
        if kept["answers_nothing"]:
            return Pruned(label, "the small model answers nothing by itself")
        self.drops[label] = Drop(**kept["drop"])
        self.notes.append(
            f"{label}: below a confidence of {kept['thresholds'][0]:.4g} the larger answers, "
            f"{kept['deferred']:.1%} of the samples that did not choose that"
        )
        return write_cascade(stages, tuple(kept["thresholds"]), self.folder)

    def _asked(self, stages: CascadeStages) -> CascadeRequest:
        request = self.request
        return CascadeRequest(
            stages,
            CompileRequest(shapes=request.shapes, progress=request.progress),
            eval=request.eval,
            metric=request.metric,
            max_accuracy_drop=request.max_accuracy_drop,
        )
