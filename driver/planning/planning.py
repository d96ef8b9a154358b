"""The way of a plan: what could be compiled, what it loses, how long it takes, what it costs."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..._version import __version__
from ...compiler.economics.pareto import frontier
from ...compiler.economics.prices import MachineOffer, stale_note
from ...compiler.economics.serving import ServiceCurve, ServingLayout
from ...compiler.errors import UsageError
from ...compiler.host import processor_name
from ..budget.drops import Drop
from ..budget.evaluation import Evaluation
from ..calibration import Samples, specs_of_inputs
from ..journal import Journal
from ..manifest import sha256_of
from ..model_build import import_model
from ..request import FP32
from ..samples import Sampler
from .builds import Build, Builds
from .cascades import Cascades
from .elsewhere import ModelledPoint, modelled_points
from .energy_use import EnergyMeter, ranking_note
from .judging import Judge
from .load_test import LoadTest, load_test
from .plan_request import PlanRequest
from .plan_tools import PlanTools
from .points import GIB, MeasuredBuild, PlanPoint, Pricing, Stability, stability, this_machine
from .profiles import chosen_profile
from .response_caching import CacheAdvice, cache_advice
from .rounds import joined, measured_rounds
from .sample_rows import write_rows
from .variants import (
    Pruned,
    Variant,
    enumerated,
    labels_of,
    predicted_precisions,
    why_elsewhere,
    why_no_gain,
)

FORMAT = 2
BUSY = 0.05  # share of the cores' time that others may take without being told


@dataclass(frozen=True)
class PlanResult:
    """points: of every binary on every machine, those of the frontier first: of what keeps the p99,
    what nothing beats in cost, p99, accuracy and size. frontier: how many. stable: of these.
    chosen: a place in `points`; None: nothing keeps what was promised. nearest: then, the one that
    breaks it least. metric, exact, limit: what accuracy is, in fp32, and by how much it may drop.
    modelled: on targets that do not run here, which are ranked with nothing. notes: what the user
    should know. test: of the choice under load. curve: of one machine of the choice. cache: what
    one of responses would do, where the trace tells. profile: of the choice's kernels and memory,
    as `Roofline.to_json` says it.
    """

    request: PlanRequest
    machine: str
    metric: str
    exact: float
    limit: float
    points: tuple[PlanPoint, ...]
    frontier: int
    stable: tuple[Stability, ...]
    chosen: int | None
    nearest: int | None
    pruned: tuple[Pruned, ...]
    modelled: tuple[ModelledPoint, ...]
    notes: tuple[str, ...]
    test: LoadTest | None = None
    curve: ServiceCurve | None = None
    cache: CacheAdvice | None = None
    profile: dict[str, Any] | None = None

    @property
    def choice(self) -> PlanPoint | None:
        """The chosen point."""
        return None if self.chosen is None else self.points[self.chosen]


class Planning:
    """One plan, in a folder that holds all that is found as soon as it is."""

    def __init__(self, request: PlanRequest, tools: PlanTools) -> None:
        self.request, self.tools = request, tools
        self.notes: list[str] = []
        self.pruned: list[Pruned] = []
        self.modelled: list[ModelledPoint] = []
        self.cores = len(os.sched_getaffinity(0))
        self.begun = tools.clock()
        self.folder = request.output / "work"
        self.folder.mkdir(parents=True, exist_ok=True)
        graph = import_model(request.model, request.shapes)
        self.specs, self.sampler = specs_of_inputs(graph), Sampler(graph)
        self.journal = Journal(
            self.folder / "journal" / f"{self._identity()}.jsonl", fresh=request.fresh,
            note=self.notes.append,
        )  # fmt: skip
        self.builds = Builds(self.folder / "builds", self.journal, tools.compile)
        self.spent_before = float(self.journal.get("spent") or 0.0)
        self.meter = EnergyMeter(
            tools.probe, self.journal, request, tools.find_counters, tools.clock, tools.sleep
        )
        self._exact: Build | None = None
        self.cascades = Cascades(
            request, self.folder / "cascades", self.journal, self.notes, tools.compile
        )

    def run(self) -> PlanResult:
        """All steps. Raises UsageError for data or models that do not fit, and what a compilation
        raises for the model itself in fp32."""
        self._exact_variant()
        judge, name, exact, limit = self._judge()
        offers = self._offers()
        variants = self._variants(offers, judge, limit)
        measured = self._measured(variants, judge)
        points = self._points(measured, offers, limit)
        return self._result(points, name, exact, limit, measured)

    # ------------------------------------------------------------------ what it depends on

    def _identity(self) -> str:
        """What kept results depend on: models, data, version, machine; not prices, nor the load."""
        request = self.request
        parts = [__version__, str(FORMAT), processor_name(), str(self.cores)]
        parts += [sha256_of(path) for path in (request.model, *request.candidates)]
        parts.append(repr(sorted(request.shapes.items())))
        for what, data in (("evaluation", request.eval), ("calibration", request.calibration)):
            if data is not None:
                given = Samples(
                    data, self.specs, self.folder / what, what=what, labelled=what == "evaluation"
                )
                parts.append(Evaluation.digest_of(given.pairs()))
        found = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
        (self.folder / "journal").mkdir(exist_ok=True)
        return found

    def _spent(self) -> float:
        """Seconds of this run, and of those before that it goes on with."""
        return self.spent_before + self.tools.clock() - self.begun

    def _keep_spent(self) -> None:
        self.journal.put(self._spent(), "spent")

    def _late(self) -> bool:
        budget = self.request.time_budget
        return budget is not None and self._spent() > budget

    # ------------------------------------------------------------------ steps

    def _judge(self) -> tuple[Judge | None, str, float, float]:
        """Who judges, the metric, its figure in fp32, and the most that it may drop."""
        if self.request.eval is None:
            self.notes.append("no --eval: nothing but the model in fp32 is tried")
            return None, "", 0.0, 0.0
        folder = self.folder / "judging"
        _emptied(folder)
        judge = Judge(self.request, folder, self.journal)
        return judge, *judge.figure(self._exact_build().load())

    def _exact_build(self) -> Build:
        """The model in fp32, one row at a time: others are judged by it."""
        if self._exact is None:
            variant = self._exact_variant()
            self.request.note(f"compiling {variant.name}")
            build = self.builds.get(variant.judged, variant.judged.request(self.request))
            if isinstance(build, Pruned):
                raise UsageError(f"the model cannot be compiled: {build.reason}")
            self._exact = build
        return self._exact

    def _exact_variant(self) -> Variant:
        """Raises UsageError where no target runs here."""
        own = enumerated(
            replace(self.request, precisions=(FP32,), batches=(1,), threads=(1,)),
            self.request.model.stem, self.request.model, self.cores,
        )  # fmt: skip
        for variant in own:
            if isinstance(variant, Variant) and not why_elsewhere(variant):
                return variant
        raise UsageError(
            "none of the targets runs on this machine, and plans are measured",
            remedy="add native to --targets: what is modelled stands in a table beside it",
        )

    def _offers(self) -> tuple[MachineOffer, ...]:
        request = self.request
        for offer in request.prices:
            told = (stale_note(offer, request.today), offer.note)
            self.notes += [text for text in told if text and text not in self.notes]
        if request.prices:
            return request.prices
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / GIB
        return (this_machine(processor_name(), self.cores, memory),)

    def _variants(
        self, offers: Iterable[MachineOffer], judge: Judge | None, limit: float
    ) -> list[Variant]:
        """What is compiled; what makes no sense is told."""
        cores = max(self.cores, *(offer.cores for offer in offers))
        models = dict.fromkeys((self.request.model, *self.request.candidates))
        labels = dict(zip(models, labels_of(models), strict=True))
        found: list[Variant | Pruned] = []
        for path, label in labels.items():
            found += enumerated(self.request, label, path, cores)
        if judge is not None and self.request.cascades:
            for path in list(labels)[1:]:
                label = f"{labels[path]}+{labels[self.request.model]}"
                both = self.cascades.make(path, label, limit)
                found += (
                    [both]
                    if isinstance(both, Pruned)
                    else enumerated(self.request, label, both, cores, cascade=True)
                )
        kept = []
        for one in found:
            reason = one.reason if isinstance(one, Pruned) else self._why_not(one)
            if reason:
                self.pruned.append(Pruned(one.name, reason))
            elif isinstance(one, Variant):
                kept.append(one)
        return kept

    def _why_not(self, variant: Variant) -> str:
        if why_elsewhere(variant):
            return self._why_not_modelled(variant)
        if variant.threads > self.cores:
            return f"{variant.threads} threads cannot be measured on {self.cores} core(s)"
        kept = self.journal.get("no gain", variant.name, self.request.latency_p99)
        if kept is None:
            self.request.note(f"predicting {variant.name}")
            kept = why_no_gain(variant, self.request.latency_p99)
            self.journal.put(kept, "no gain", variant.name, self.request.latency_p99)
        return str(kept)

    def _why_not_modelled(self, variant: Variant) -> str:
        """Note what is predicted of a variant that does not run here, and say where it stands; or
        why nothing is."""
        if variant.cascade:
            return "cascades are measured, and this does not run here"
        if variant.precision not in predicted_precisions(variant):
            return f"nothing predicts {variant.precision} on {variant.target}, which is not here"
        self.request.note(f"predicting {variant.name}")
        self.modelled += modelled_points(variant, self.request)
        return "does not run here: in the table of what is modelled"

    def _built(self, variant: Variant) -> Build | None:
        """A binary; None where there is none, which is told."""
        if self._late() and not self.builds.has(variant):
            self.pruned.append(Pruned(variant.name, "not reached within --time-budget"))
            return None
        self.request.note(f"compiling {variant.name}")
        build = self.builds.get(variant, variant.request(self.request))
        self._keep_spent()
        if isinstance(build, Pruned):
            self.pruned.append(build)
            return None
        return build

    def _measured(self, variants: Iterable[Variant], judge: Judge | None) -> list[MeasuredBuild]:
        pairs: list[tuple[Build, ServingLayout]] = []
        drops: list[Drop | None] = []
        for variant in variants:
            build = self._built(variant)
            if build is None:
                continue
            threads = variant.threads
            drops.append(self._drop(build, judge))
            pairs.append((build, ServingLayout(self.cores // threads, threads, variant.batch)))
        if not pairs:
            raise UsageError(
                "nothing was compiled in time",
                remedy="give a longer --time-budget, or less to choose from",
            )
        rows = self._rows(judge)
        reports = measured_rounds(pairs, rows, self.journal, self.tools.probe, self.request.note)
        found = [
            MeasuredBuild(build, layout, own, drop)
            for (build, layout), own, drop in zip(pairs, reports, drops, strict=True)
        ]
        self.notes += self.meter.reasons()
        read = [self.meter.reading(own.build, own.layout, rows, own.machine) for own in found]
        self._keep_spent()
        return [replace(own, energy=energy) for own, energy in zip(found, read, strict=True)]

    def _drop(self, build: Build, judge: Judge | None) -> Drop | None:
        """What a binary loses; None where it is the model itself."""
        if build.variant.cascade:
            return self.cascades.drops[build.variant.label]
        exact = self._exact_build()
        judged = build.variant.judged
        if judge is None or judged.name == exact.variant.name:
            return None
        single = build
        if judged.name != build.variant.name:
            found = self._built(judged)
            if found is None:
                raise UsageError(f"{judged.name} cannot be compiled, and {build.variant.name} can")
            single = found
        self.request.note(f"judging {judged.name}")
        with single.load() as module, exact.load() as own:
            return judge.drop(build.variant, module, own)

    def _rows(self, judge: Judge | None) -> Path:
        """The file of what programs are measured on."""
        path = self.folder / "rows.npz"
        self.request.note("writing rows")
        write_rows(path, judge, self.sampler)
        return path

    def _points(
        self, measured: Iterable[MeasuredBuild], offers: Iterable[MachineOffer], limit: float
    ) -> list[PlanPoint]:
        pricing = Pricing(self.request, limit, self.request.today.isoformat())
        points: list[PlanPoint] = []
        for own in measured:
            self.request.note(f"pricing {own.build.variant.name}")
            for offer in offers:
                if offer.target and offer.target != own.build.variant.target:
                    continue
                point = pricing.point(own, offer)
                if isinstance(point, str):
                    self.pruned.append(Pruned(own.build.variant.name, point))
                else:
                    points.append(point)
        return points

    def _result(
        self, points: list[PlanPoint], metric: str, exact: float, limit: float,
        measured: list[MeasuredBuild],
    ) -> PlanResult:  # fmt: skip
        kept = [point for point in points if point.servable]
        by = self.request.objective
        first = [kept[n] for n in frontier([point.figures(by) for point in kept])]
        first.sort(key=lambda point: (bool(point.misses), point.objective(by), point.figures()))
        rest = [point for point in points if point not in first]
        rest.sort(key=lambda point: (len(point.misses), point.figures()[0], point.name))
        ordered = (*first, *rest)
        self._tell_machine(measured)
        note = ranking_note(self.request, first)
        self.notes += [note] if note else []
        chosen = 0 if first and not first[0].misses else None
        nearest = None
        if chosen is None and ordered:
            nearest = min(range(len(ordered)), key=lambda n: max(m.by for m in ordered[n].misses))
        result = PlanResult(
            self.request, measured[0].machine, metric, exact, limit, ordered, len(first),
            tuple(stability(first, self.request.load)), chosen, nearest, tuple(self.pruned),
            tuple(self.modelled), tuple(self.notes),
        )  # fmt: skip
        if chosen is None:
            return result
        own = next(m for m in measured if m.build == first[0].build)
        curve = ServiceCurve(joined(own.reports), first[0].layout, self.request.latency_p99)
        test = self._test(first[0], own)
        rows = self.folder / "rows.npz"
        cache = cache_advice(first[0], rows, self.request, self.tools.probe, self.journal)
        profile = chosen_profile(
            first[0].build, self.request, self.tools.profile, self.journal, self.notes
        )
        return replace(
            result, test=test, curve=curve, cache=cache, profile=profile, notes=tuple(self.notes)
        )

    def _tell_machine(self, measured: list[MeasuredBuild]) -> None:
        single = [r.stolen for own in measured for r in own.reports if own.layout.threads == 1]
        stolen = float(np.mean(single)) if single else 0.0
        if stolen > BUSY:
            self.notes.append(
                f"other programs took {stolen:.0%} of this machine's cores while it was measured: "
                "calls in which they ran are left out"
            )

    def _test(self, choice: PlanPoint, own: MeasuredBuild) -> LoadTest | None:
        """The load test of what was chosen, on this machine."""
        self.request.note(f"load test of {own.build.variant.name}")
        rows = self.folder / "rows.npz"
        return load_test(own, choice, rows, self.request, self.tools.probe, self.journal)


def _emptied(folder: Path) -> None:
    """A folder without what an earlier run, that was ended, has left in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
