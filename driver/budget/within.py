"""The fastest choice of integer products that is within an accuracy budget."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np

from ...compiler.artifact import TensorSpec
from ...compiler.backend import resolve_target
from ...compiler.errors import UsageError
from ...compiler.ir.dims import Dim, evaluate, symbols_of
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
from .metrics import identity_of, metric_of
from .product_times import ProductTimes
from .report import BudgetReport, GroupDecision

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
        self.groups = _groups(self.calibrated)
        self._switched: GraphRun | None = None

    def run(self) -> tuple[Recipe, dict[str, str], BudgetReport]:
        """The recipe, why products stay in floats, by key, and the report."""
        errors = self._errors()
        times = self._times()
        saved = self._saved(times)
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

    # ------------------------------------------------------------------ what is timed

    def _data(self, group: int) -> str:
        keys = set(self.groups[group])
        return next(p.data for p in self.calibrated.source.products if p.key in keys)

    def _times(self) -> list[tuple[float, float] | None]:
        """Seconds of a run in floats and in integers of every group; None where not timed."""
        backend, target = resolve_target(self.request.target)
        if backend.runs_here(target):
            return [None] * len(self.groups)
        source, recipe = self.calibrated.source, self.calibrated.recipe
        parts = self.folder / "parts"
        parts.mkdir()
        timed = ProductTimes(
            source, recipe, parts, self.request.target, self.request.threads, self.note,
            self.request.timer, self.request.fresh, self.notes.append,
        )  # fmt: skip
        operands = {p.key: p.operands for p in source.products}
        shapes = self._shapes([name for keys in self.groups for k in keys for name in operands[k]])
        found: list[tuple[float, float] | None] = []
        for keys in self.groups:
            tensors = list(dict.fromkeys(name for key in keys for name in operands[key]))
            if any(size is None for name in tensors for size in shapes[name]):
                found.append(None)
                continue
            sizes = {name: [size or 0 for size in shapes[name]] for name in tensors}
            pairs = [timed.of(key, [sizes[name] for name in operands[key]]) for key in keys]
            made = tensors if set(keys) - recipe.dynamic else []
            kept = [name for name in made if source.read_as_floats(name, set(keys))]
            extra = sum(timed.of_bytes(sizes[name]) for name in kept)
            found.append((sum(a for a, _ in pairs), sum(b for _, b in pairs) + extra))
        return found

    def _saved(self, times: Sequence[tuple[float, float] | None]) -> list[float]:
        """Seconds that integers save; of groups that were not timed, by their multiplications."""
        source = self.calibrated.source
        data = {p.key: p.data for p in source.products}
        results = [key for keys in self.groups for key in keys]
        shapes = self._shapes([*results, *(data[key] for key in results)])
        terms = {p.key: p.terms or shapes[p.data][-1] or 1 for p in source.products
                 if p.data in shapes}  # fmt: skip
        work = [
            sum(terms[k] * float(np.prod([size or 1 for size in shapes[k]])) for k in keys)
            for keys in self.groups
        ]
        timed = [(t[0] - t[1], w) for t, w in zip(times, work, strict=True) if t is not None]
        rate = sum(max(s, 0.0) for s, _ in timed) / sum(w for _, w in timed) if timed else 1.0
        return [
            t[0] - t[1] if t is not None else w * (rate or 1e-12)
            for t, w in zip(times, work, strict=True)
        ]

    def _shapes(self, names: Sequence[str]) -> dict[str, list[int | None]]:
        """Of tensors, with the largest sample; None for a size that only a run knows."""
        sizes = check_inputs(self.specs, largest(self.samples))
        graph = self.calibrated.source.floats(list(dict.fromkeys(names)))
        return {v.name: [_size(dim, sizes) for dim in v.shape] for v in graph.outputs}

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
            precision, reason = "fp32", "int8 is no faster"
        else:
            precision, reason = "fp32", "for the accuracy budget"
        f32, int8 = times or (None, None)
        products = tuple(names[key] for key in self.groups[group])
        return GroupDecision(self._data(group), products, precision, error, f32, int8, reason)


def _groups(calibrated: Calibrated) -> list[list[str]]:
    """Keys of the products that can be integer, those that read one tensor together."""
    readers: dict[str, list[str]] = {}
    together = nx.Graph()
    for product in calibrated.source.products:
        if product.key in calibrated.recipe.integer:
            together.add_node(product.key)
            for name in product.operands:
                readers.setdefault(name, []).append(product.key)
    for keys in readers.values():
        nx.add_path(together, keys)
    place = {key: n for n, key in enumerate(together)}
    return [sorted(keys, key=place.__getitem__) for keys in nx.connected_components(together)]


def _held(samples: Samples, calibrated: Calibrated, specs: Sequence[TensorSpec]) -> Any:
    """The samples that calibration measured errors on."""
    rows = rows_of(next(iter(samples)), specs) if calibrated.by_rows else samples
    judged = frozenset(calibrated.judged)
    return (sample for number, sample in enumerate(rows) if number in judged)


def _size(dim: Dim, sizes: Mapping[str, int]) -> int | None:
    return evaluate(dim, sizes) if symbols_of(dim) <= set(sizes) else None
