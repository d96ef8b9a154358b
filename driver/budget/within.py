"""The fastest choice of integer products that is within an accuracy budget."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.artifact import TensorSpec
from ...compiler.errors import UsageError
from ...frontends.onnx.quantising.quantisable import Quantisable
from ...frontends.onnx.quantising.recipe import Recipe
from ...frontends.onnx.quantising.switching import switch_of
from ..batch_rows import rows_of
from ..calibrated_recipe import Calibrated, calibrate
from ..calibration import Samples, largest, specs_of_inputs
from ..graph_run import GraphRun, compiled_graph
from ..held_samples import MOST_HELD
from ..journal import Journal, journal_of
from ..ranges_observed import share_of_noise
from ..request import CompileRequest
from ..tensor_files import check_inputs
from .drops import Drop, Limit, limit_of
from .evaluation import SURE, Evaluation
from .frontier import Found, Group, frontier, search
from .group_times import GroupTimes, groups_of
from .metrics import identity_of, metric_of
from .report import NO_FASTER, BudgetReport, GroupDecision

Array = np.ndarray[Any, Any]

RUNS = 1600  # of one group alone, at most, beyond 8 samples each
FEWEST = 8


def evaluation_of(
    source: Quantisable, request: CompileRequest, folder: Path, samples: Samples | None
) -> Evaluation:
    """The evaluation data of a request; without any, calibration samples.

    Raises UsageError where there are neither.
    """
    data = samples if request.eval is None else request.eval
    if data is None:
        raise UsageError(
            "an accuracy budget needs data to measure with",
            remedy="give --eval: inputs as the model gets them, with labels if you have them",
        )
    graph = source.floats(source.outputs)
    return Evaluation(
        data,
        specs_of_inputs(graph),
        metric_of(request.metric, request.metric_direction),
        folder / "evaluation",
        request.progress or (lambda text: None),
        classifies=source.classifies,
        outputs=source.outputs,
    )


class BudgetSearch:
    """Calibration, what every group costs and saves, and the search between.

    Everything that takes time is kept in a journal as it is found. Results: calibrated; recipe: the
    part of it that was chosen; reasons: for products that stay in floats; report. notes: what the
    user should know.
    """

    def __init__(self, source: Quantisable, request: CompileRequest, folder: Path) -> None:
        assert request.calibration is not None
        self.source, self.request, self.folder = source, request, folder
        self.note = request.progress or (lambda text: None)
        self.notes: list[str] = []
        self.given = Limit.of(request.accuracy_drop)
        specs = specs_of_inputs(source.floats(source.outputs))
        self.specs = specs
        self.samples = Samples(request.calibration, specs, folder / "samples")
        self.evaluation = evaluation_of(source, request, folder, self.samples)
        self.evaluation.check()
        if self.given.decibels and request.metric is not None:
            limit_of(self.given, str(request.metric), 0.0, relative=False)
        self.journal = self._journal()
        self.threads = len(os.sched_getaffinity(0))
        self.calibrated = self._calibrated()
        self.groups = groups_of(self.calibrated)
        self._switched: GraphRun | None = None

    def run(self) -> tuple[Recipe, dict[str, str], BudgetReport]:
        """The recipe, why products stay in floats, by key, and the report."""
        errors = self._errors()
        sizes = check_inputs(self.specs, largest(self.samples))
        timed = GroupTimes(
            self.calibrated, self.groups, self.request, sizes, self.folder / "parts",
            self.notes.append,
        )  # fmt: skip
        times = timed.times()
        saved = timed.saved(times)
        candidates = [Group(n, errors[n], saved[n]) for n in range(len(self.groups))]
        limit = self._limit()
        found = search(frontier(candidates), lambda chosen: self._drop(chosen, limit), limit)
        found = self._whole(found)
        decisions = [
            self._decision(n, found, errors[n], times[n], saved[n]) for n in range(len(self.groups))
        ]
        reasons = dict(self.calibrated.reasons)
        for keys, decision in zip(self.groups, decisions, strict=True):
            reasons |= dict.fromkeys(keys, decision.reason)
        integer = frozenset(key for n in found.integer for key in self.groups[n])
        report = BudgetReport(
            self._metric()["name"],
            str(self.given),
            limit,
            found.drop,
            found.met,
            self.evaluation.evaluations,
            self.journal.found,
            self.request.eval is not None,
            tuple(decisions),
        )
        return replace(self.calibrated.recipe, integer=integer), reasons, report

    # ------------------------------------------------------------------ what is kept

    def _journal(self) -> Journal:
        self.note("looking for an earlier search")
        calibration = Evaluation.digest_of((sample, None) for sample in self.samples)
        shapes = json.dumps({name: list(dims) for name, dims in self.request.shapes.items()})
        parts = ("search", self.source.digest(), calibration, shapes)
        self.data_digest = self.evaluation.digest()
        return journal_of(*parts, fresh=self.request.fresh, note=self.notes.append)

    def _calibrated(self) -> Calibrated:
        kept = self.journal.get("calibration")
        if kept is not None:
            return Calibrated.from_json(self.source, kept)
        own = self.folder / "calibration"
        own.mkdir()
        found = calibrate(self.source, self.samples, own, self.threads, self.note, spares=False)
        self.journal.put(found.to_json(), "calibration")
        return found

    def _metric(self) -> dict[str, Any]:
        """Name of the metric and the figure of f32."""
        key = self._figure_key("exact")
        kept = self.journal.get(*key) if key else None
        if kept is None:
            self._run_exact()
            metric = self.evaluation.metric
            kept = {
                "name": metric.name,
                "exact": self.evaluation.exact,
                "relative": metric.relative,
            }
            if key:
                self.journal.put(kept, *key)
        found: dict[str, Any] = kept
        return found

    def _figure_key(self, kind: str, *more: Any) -> tuple[Any, ...]:
        """That of a figure in the journal; () where none is kept: the metric has no identity."""
        metric = identity_of(self.request.metric)
        direction = self.request.metric_direction
        return () if metric is None else (kind, self.data_digest, metric, direction, *more)

    def _limit(self) -> float:
        told = self._metric()
        return limit_of(self.given, told["name"], told["exact"], told["relative"])

    # ------------------------------------------------------------------ what is run

    def _switches(self, integer: frozenset[int]) -> dict[str, Array]:
        return {switch_of(n): np.array(n in integer) for n in range(len(self.groups))}

    def _run(self, integer: frozenset[int]) -> Callable[[Mapping[str, Array]], dict[str, Array]]:
        """The model with some groups in integers."""
        if self._switched is None:
            self.note("compiling the model with switches")
            source = self.calibrated.source
            tensors = list(dict.fromkeys([*source.outputs, *source.scores()]))
            graph = source.switched(self.calibrated.recipe, self.groups, tensors)
            self._switched = compiled_graph(graph, self.folder, "switched", self.threads)
        run, switches = self._switched, self._switches(integer)
        return lambda inputs: run({**inputs, **switches})

    def _run_exact(self) -> None:
        if not self.evaluation.records:
            self.evaluation.run_exact(self._run(frozenset()))

    def _drop(self, integer: frozenset[int], limit: float) -> Drop:
        """The drop of a choice, measured or taken from the journal."""
        names = sorted(self._data(n) for n in integer)
        key = self._figure_key("drop", names)
        kept = self.journal.get(*key) if key else None
        if kept is not None:
            found = Drop(**kept)
            if found.whole or found.drop - SURE * (found.high - found.drop) > limit:
                return found
        self._run_exact()
        what = f"{len(integer)} of {len(self.groups)} groups in int8"
        drop = self.evaluation.drop(self._run(integer), limit, what)
        if key:
            self.journal.put(drop.to_json(), *key)
        return drop

    def _whole(self, found: Found) -> Found:
        """With the drop on all data, where the evaluation ended early."""
        if found.drop is None or found.drop.whole:
            return found
        return replace(found, drop=self._drop(found.integer, float("inf")))

    def _errors(self) -> list[float]:
        """Noise in the outputs of every group alone, on samples that errors are measured on."""
        every = range(len(self.groups))
        missing = [n for n in every if self.journal.get("error", self._data(n)) is None]
        if missing:
            count = min(MOST_HELD, max(FEWEST, RUNS // len(self.groups)))
            held = list(islice(_held(self.samples, self.calibrated, self.specs), count))
            exact = [self._run(frozenset())(inputs) for inputs in held]
            for done, n in enumerate(missing):
                self.note(f"measuring groups alone ({done + 1} of {len(missing)})")
                run = self._run(frozenset({n}))
                error = self._noise(exact, [run(inputs) for inputs in held])
                self.journal.put(error, "error", self._data(n))
        return [self.journal.get("error", self._data(n)) for n in every]

    def _noise(self, exact: Sequence[Any], real: Sequence[Any]) -> float:
        """Of the tensors that tell how good a model is, the share of noise in them."""
        names = self.calibrated.source.scores()
        own = ([{name: run[name] for name in names} for run in runs] for runs in (exact, real))
        return share_of_noise(zip(*own, strict=True))

    def _data(self, group: int) -> str:
        keys = set(self.groups[group])
        return next(p.data for p in self.calibrated.source.products if p.key in keys)

    def _decision(
        self,
        group: int,
        found: Found,
        error: float,
        times: tuple[float, float] | None,
        saved: float,
    ) -> GroupDecision:
        names = {p.key: p.name for p in self.calibrated.source.products}
        if group in found.integer:
            precision, reason = "int8", ""
        elif saved <= 0:
            precision, reason = "fp32", NO_FASTER
        else:
            precision, reason = "fp32", "for the accuracy budget"
        f32, int8 = times or (None, None)
        products = tuple(names[key] for key in self.groups[group])
        return GroupDecision(self._data(group), products, precision, error, f32, int8, reason)


def _held(samples: Samples, calibrated: Calibrated, specs: Sequence[TensorSpec]) -> Any:
    """The samples that calibration measured errors on."""
    rows = rows_of(next(iter(samples)), specs) if calibrated.by_rows else samples
    judged = frozenset(calibrated.judged)
    return (sample for number, sample in enumerate(rows) if number in judged)
