"""The fewest cycles within an accuracy budget, on targets that compute in integers alone: weights
of fewer steps take fewer bytes, which there may be what takes the time (`Backend.integers`).

Noise and cycles of a choice are, about, sums over products. So the best choice for every weight of
noise against cycles is found product by product, and these choices are a list: each product goes
from one number of steps to the next along the convex hull of what it can be, in the order of noise
by cycles saved. The list is searched as that of groups of products is (`frontier.py`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from ...compiler.backend import WeightDecision, backend_of
from ...compiler.compilation import CompileOptions, NpuReport, Stages
from ...compiler.ir import Graph
from ...compiler.ir.copying import copied
from ...compiler.ir.flops import graph_flops
from ...compiler.kernel.schedule.choices import Choices
from ...frontends.onnx.quantising.quantisable import Quantisable
from ..calibration import Samples, specs_of_inputs
from ..float_values import spread
from ..graph_run import compiled_graph
from ..integer_ranges import twins
from ..journal import Journal, journal_of
from ..model_build import ModelBuild
from ..ranges_observed import share_of_noise
from .drops import Drop, Limit, limit_of
from .evaluation import Evaluation
from .frontier import Found, Group, frontier, search
from .metrics import identity_of
from .report import BudgetReport
from .within import evaluation_of

PROBED = 15  # steps that noise is measured at; its power falls with the square of their number
NOISE_SAMPLES = 8
FEW_OPERATIONS = 1e9  # of an evaluation that is over in numpy before anything would be compiled
_NAMED = 8  # products, in a note
Steps = Mapping[str, int]


@dataclass(frozen=True)
class CoarseWeights:
    """key: of the choice. steps: to either side of zero, by the names of decisions about products.
    decisions: how many there are. cycles, before: of the model with these and with all steps.
    origin: where cycles come from. report: what became of the budget.
    """

    key: str
    steps: Steps
    decisions: int
    cycles: int
    before: int
    origin: str
    report: BudgetReport

    def in_options(self, options: CompileOptions) -> CompileOptions:
        """Options with the choice."""
        if not self.steps:
            return options
        return replace(options, choices=Choices({**options.choices.by_key, self.key: self.steps}))

    @property
    def note(self) -> str:
        """What a user should know of it."""
        if not self.steps:
            return "all weights have the usual number of steps"
        named = [f"{steps} {name}" for name, steps in self.steps.items()]
        more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        return (
            f"weights of {len(named)} of {self.decisions} products have fewer steps to either side "
            f"of zero than 127 ({', '.join(named[:_NAMED])}{more}): {self.cycles} cycles instead "
            f"of {self.before}, {self.origin}"
        )

    def in_manifest(self) -> dict[str, Any]:
        """Entries of a manifest."""
        told = {"steps": dict(self.steps), "estimated_cycles": self.cycles,
                "estimated_cycles_before": self.before}  # fmt: skip
        return {"weight_steps": told, "budget": self.report.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CoarseWeights:
        """What `asdict` made of one."""
        told = dict(data["report"])
        report = BudgetReport(**{**told, "drop": Drop(**told["drop"]), "groups": ()})
        return cls(**{**data, "report": report})


def coarse_weights(graph: Graph, model: ModelBuild, options: CompileOptions) -> CoarseWeights:
    """Search the weights of a graph that `with_ranges` has rewritten, within the budget of a model.

    options: with the ranges. The graph stays as it is. Raises UsageError for data and metrics that
    do not fit.
    """
    return _Search(graph, model, options).result()


@dataclass(frozen=True)
class _Move:
    """A product goes to fewer steps, behind its earlier moves."""

    name: str
    steps: int


@dataclass(frozen=True)
class _Point:
    noise: float
    cycles: int
    steps: int


class _Search:
    def __init__(self, graph: Graph, model: ModelBuild, options: CompileOptions) -> None:
        assert model.backend.integers is not None
        self.form, self.target, self.request = model.backend.integers, model.target, model.request
        self.graph, self.options = graph, options
        self.note = self.request.progress or (lambda text: None)
        self.folder = options.work_dir / "weights"
        samples = None
        if self.request.calibration is not None:
            specs = specs_of_inputs(graph)
            samples = Samples(self.request.calibration, specs, self.folder / "samples")
        source = Quantisable(model.path, self.request.shapes)
        self.evaluation = evaluation_of(source, self.request, self.folder, samples)
        self.evaluation.check()
        self.journal = self._journal(source, samples)
        self.integers, ranges = self._copy()
        self.form.rewrite(self.integers, self.target, ranges)
        self.key, self.decisions = self.form.weights(self.integers)
        self.threads, self.runs = len(os.sched_getaffinity(0)), 0
        evaluate, flops = backend_of("reference").evaluate, graph_flops(graph)
        assert evaluate is not None
        self.evaluate = evaluate
        count = sum(1 for _ in self.evaluation.samples)
        self.operations = flops * count if isinstance(flops, int) else np.inf

    def _journal(self, source: Quantisable, samples: Samples | None) -> Journal:
        calibration = Evaluation.digest_of((sample, None) for sample in samples or ())
        shapes = json.dumps({name: list(dims) for name, dims in self.request.shapes.items()})
        made = (self.target.name, str(self.request.opt_level), self.form.estimator())
        parts = ("weight steps", source.digest(), calibration, shapes, *made)
        return journal_of(*parts, fresh=self.request.fresh, note=self.note)

    def result(self) -> CoarseWeights:
        """What the journal holds, or a search finds."""
        metric = identity_of(self.request.metric)
        given = str(Limit.of(self.request.accuracy_drop))
        told = (self.evaluation.digest(), metric, self.request.metric_direction, given)
        kept = None if metric is None else self.journal.get("weights", *told)
        if kept is not None and kept["key"] == self.key:
            return CoarseWeights.from_json(kept)
        found = self._search()
        if metric is not None:
            self.journal.put(asdict(found), "weights", *told)
        return found

    def _search(self) -> CoarseWeights:
        self.evaluation.run_exact(self._run(self._copy()[0]))
        metric, given = self.evaluation.metric, Limit.of(self.request.accuracy_drop)
        limit = limit_of(given, metric.name, self.evaluation.exact, metric.relative)
        plain, before = self._drop({}, float("inf")), self._placed({})
        found, moves = Found(frozenset(), plain, plain.meets(limit)), list[_Move]()
        if found.met:
            groups, moves = self._moves(before)
            found = search(
                frontier(groups), lambda chosen: self._drop(_steps(moves, chosen), limit), limit
            )
        steps = _steps(moves, found.integer) if found.met else {}
        after = self._placed(steps) if steps else before
        if _cycles(after) >= _cycles(before):
            steps, after = {}, before
        drop = found.drop if steps else plain
        report = BudgetReport(
            metric.name, str(given), limit, drop, plain.meets(limit), self.evaluation.evaluations,
            self.journal.found, self.request.eval is not None,
        )  # fmt: skip
        return CoarseWeights(
            self.key, steps, len(self.decisions), _cycles(after), _cycles(before), after.origin,
            report,
        )  # fmt: skip

    # ------------------------------------------------------------------ graphs

    def _copy(self) -> tuple[Graph, dict[Any, Any]]:
        """A copy of the graph of floats, and the ranges of its values."""
        copy = copied(self.graph)
        pairs = twins(self.graph, copy)
        return copy, {pairs[value]: known for value, known in self.options.ranges.items()}

    def _decided(self, steps: Steps) -> Graph:
        """The graph of integers with so many steps."""
        graph = copied(self.integers)
        self.form.decide(graph, self.target, {self.key: steps} if steps else {})
        return graph

    def _run(self, graph: Graph) -> Any:
        if self.operations <= FEW_OPERATIONS:
            return partial(self.evaluate, graph)
        self.runs += 1
        return compiled_graph(graph, self.folder, f"run{self.runs}", self.threads)

    # ------------------------------------------------------------------ what is measured

    def _drop(self, steps: Steps, limit: float) -> Drop:
        what = f"weights of fewer steps in {len(steps)} of {len(self.decisions)} products"
        return self.evaluation.drop(self._run(self._decided(steps)), limit, what)

    def _placed(self, steps: Steps) -> NpuReport:
        """What is told of the model with so many steps."""
        graph, ranges = self._copy()
        own = {self.key: steps} if steps else {}
        choices = Choices({**self.options.choices.by_key, **own})
        options = replace(self.options, ranges=ranges, choices=choices, dump_after=None)
        return self.form.placed(graph, self.target, options, Stages())

    def _noise(self) -> dict[str, float]:
        """Power of noise, as a share of that of the outputs, of every product alone at `PROBED`
        steps, or those next to it; on some samples."""
        samples = spread(self.evaluation.samples, NOISE_SAMPLES)
        plain = [self.evaluate(self._decided({}), sample) for sample in samples]
        found = {}
        for done, own in enumerate(self.decisions):
            self.note(f"measuring weights alone ({done + 1} of {len(self.decisions)})")
            steps = min(own.values, key=lambda steps: abs(steps - PROBED))
            graph = self._decided({own.name: steps})
            pairs = [(a, self.evaluate(graph, s)) for a, s in zip(plain, samples, strict=True)]
            found[own.name] = share_of_noise(pairs) * (steps / PROBED) ** 2
        return found

    def _moves(self, before: NpuReport) -> tuple[list[Group], list[_Move]]:
        """What can be done one behind the other, and what it costs and saves."""
        noise = self._noise()
        levels = sorted({steps for own in self.decisions for steps in own.values}, reverse=True)
        placed = {}
        for done, steps in enumerate(levels):
            self.note(f"estimating weights of fewer steps ({done + 1} of {len(levels)})")
            every = {own.name: steps for own in self.decisions if steps in own.values}
            placed[steps] = self._placed(every)
        groups, moves = list[Group](), list[_Move]()
        for own in self.decisions:
            points = [_Point(0.0, _cycles_of(before, own), 0)]
            for steps in own.values:
                power = noise[own.name] * (PROBED / steps) ** 2
                points.append(_Point(power, _cycles_of(placed[steps], own), steps))
            line = _hull(points)
            for last, point in pairwise(line):
                error, saved = point.noise - last.noise, float(last.cycles - point.cycles)
                groups.append(Group(len(moves), error, saved))
                moves.append(_Move(own.name, point.steps))
        return groups, moves


def _steps(moves: Sequence[_Move], chosen: frozenset[int]) -> dict[str, int]:
    """Of products, the fewest steps that moves among these take them to."""
    found: dict[str, int] = {}
    for number in sorted(chosen):
        move = moves[number]
        found[move.name] = min(move.steps, found.get(move.name, move.steps))
    return found


def _hull(points: Sequence[_Point]) -> list[_Point]:
    """Of points in the order of noise those that no mixture of others betters, from the first."""
    found, rest = [points[0]], list(points[1:])
    while rest:
        last = found[-1]
        best = max(rest, key=lambda p: (last.cycles - p.cycles) / max(p.noise - last.noise, 1e-30))
        if best.cycles >= last.cycles:
            break
        found.append(best)
        rest = [point for point in rest if point.noise > best.noise]
    return found


def _cycles(report: NpuReport) -> int:
    return sum(segment.cycles for segment in report.segments)


def _cycles_of(report: NpuReport, own: WeightDecision) -> int:
    """Of the operators that a decision is about."""
    nodes = [node for segment in report.segments for node in segment.nodes]
    return sum(node.cycles for node in nodes if node.name in own.nodes)
