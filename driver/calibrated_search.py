"""Post-training quantisation with data: ranges are observed, and what they cost is measured.

What samples show is turned to a recipe by rules (`evidence.py`), one after the other, each of which
is kept where errors fall on samples that took no part: every part of the samples is judged by what
the others show. Products that make most of the noise for little work stay in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..compiler.errors import UsageError
from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.recipe import Recipe
from ..passes.precision.observers import (
    HIGH,
    HIGHS,
    LOW,
    LOWS,
    MEAN,
    SAMPLE,
    SQUARE,
    observe,
    observed,
    sample,
)
from .batch_rows import only_rows
from .calibration import CalibrationData, Samples, specs_of_inputs
from .calibration_notes import DataNotes, untrained
from .evidence import CalibrationRules, Evidence, RecipeMaker
from .float_parts import FloatParts
from .graph_run import Array, GraphRun, compiled_graph
from .held_samples import FOLDS, OUTLYING, SampleParts, parts_of
from .ranges_observed import (
    Spread,
    decibels_of,
    means_of_outputs,
    shares_of_noise,
    squared_errors,
)
from .timing import SAME, Timer, share_of

MINMAX, CLIPPED, USUAL = "minmax", "mse", "usual samples"
CHANNELS, BIASES, FLOATS = "scales of channels", "corrected biases", "float parts"
PRODUCTS_OF_DATA = "products of data"
CLEAR = 0.1  # decibels by which rules must be better: a hundredth of the size of the noise
ENOUGH = 40.0  # decibels of error below the outputs, a hundredth of them: it is not looked further
LOSS = 1.75  # decibels that products of two operands that the run makes may lose: half the noise
GAIN = 3.0  # decibels for which products stay in floats: half the noise
_FRAGILE = "it makes much of the noise for little work: in floats the outputs have half of it"
_LOSING = "its operands would lose more than the whole model may by them"
_NO_FASTER = "the model is no faster with its operands in integers"
_STRAY = "its data were not finite in calibration"


@dataclass(frozen=True)
class Judged:
    """A recipe, its rule of ranges, how far the error of each scored tensor lies below it, and why
    products stay in floats, by key."""

    recipe: Recipe
    rule: str
    decibels: Mapping[str, float]
    reasons: Mapping[str, str]


class Search:
    """Calibration, and the choice between what was observed.

    parts: of the samples. held: (number, inputs, outputs in floats) of those on which errors are
    measured. rule: of the ranges that were kept. decibels: how far the error of each scored tensor
    lies below it (`decibels_of`); mean: the same of all of them; tried: that of all that was tried.
    reasons: why products that could be integer stay in floats, by key. spares: whether some do for
    the noise that they make, or the time that they take; timer: tells the latter (None: nothing).
    whole: what was accepted before some stayed in floats for the noise; None where none do.
    data: what the samples look like; by_rows: they are the rows of the only one that was given.
    """

    def __init__(
        self,
        source: Quantisable,
        data: CalibrationData,
        folder: Path,
        threads: int,
        note: Callable[[str], None],
        *,
        spares: bool = True,
        timer: Timer | None = None,
    ) -> None:
        self.spares, self.timer = spares, timer
        self.source, self.folder, self.threads, self.note = source, folder, threads, note
        self.scores = source.scores()
        self.products = [product for product in source.products if not product.reason]
        self.points = list(
            dict.fromkeys(name for p in self.products if not p.by_run for name in p.operands)
        )
        norm = source.first_norm
        self.more = (
            [norm.result] if norm and norm.result not in {*self.points, *self.scores} else []
        )
        self.axes = source.axes | ({norm.result: 1} if norm and self.more else {})
        self.graph = source.floats([*self.scores, *self.points, *self.more])
        self.depths = {v.name: v.shape[-1] for v in self.graph.outputs if v.shape}
        self.specs = specs_of_inputs(self.graph)
        self.samples: Iterable[dict[str, Array]] = Samples(data, self.specs, folder / "samples")
        self.by_rows = False
        self.data, self.parts = DataNotes(), SampleParts(0)
        self.held: list[tuple[int, dict[str, Array], dict[str, Array]]] = []
        self.tried: dict[str, float] = {}
        self.decibels: dict[str, float] = {}
        self.mean = 0.0
        self.rule = MINMAX
        self.reasons: dict[str, str] = {}
        self.whole: Judged | None = None
        self._of_data = frozenset(p.key for p in self.products if p.other)
        self._evidence: dict[int, Evidence] = {n: Evidence() for n in (*range(FOLDS), OUTLYING)}
        self._rules = CalibrationRules(frozenset())  # that were kept
        self._shares = np.zeros(0)  # of noise in the samples judged, by those
        self._open: dict[frozenset[str], GraphRun] = {}  # by what is integer, and what is scaled

    def begin(self) -> None:
        """Observe the samples, and score the plain ranges that they show (`tried`)."""
        next(iter(self.samples))
        self._observe()
        every = Evidence.of(self._evidence.values())
        stray = {name for name in self.points if not every.spreads[name].finite}
        self.reasons = {
            p.key: _STRAY for p in self.products if stray & {*p.operands} and not p.by_run
        }
        fit = frozenset(p.key for p in self.products) - frozenset(self.reasons)
        integer = fit - self._of_data or fit
        if not integer:
            raise UsageError(
                "nothing is quantised: all data of products were NaN or infinite",
                remedy="give calibration data that the model of floats computes finite numbers of, "
                "or compile it with --precision fp32",
            )
        self._maker = RecipeMaker(self.source, self.points, every)
        dynamic = frozenset(p.key for p in self.products if p.by_run)
        self._accepts(CalibrationRules(integer, dynamic), MINMAX)

    def finish(self) -> Recipe:
        """The recipe that is best where it was not calibrated, after `begin`."""
        if self._gains(USUAL, replace(self._rules, usual=True)):
            self.rule = USUAL
        if self._maker.long_tailed:
            self._look_at_tails()
            if self._gains(CLIPPED, replace(self._rules, clipped=True)):
                self.rule = CLIPPED
        self._gains(CHANNELS, replace(self._rules, scaled=True))
        self._gains(BIASES, replace(self._rules, corrected=True))
        self._without_fragile()
        return self._final(self._rules)

    def _gains(self, name: str, rules: CalibrationRules) -> bool:
        """Whether further rules change the recipe, and make errors clearly less: they are kept."""
        before, after = self._final(self._rules), self._final(rules)
        same = before.ranges == after.ranges and before.scales.keys() == after.scales.keys()
        if same and before.biases.keys() == after.biases.keys():
            return False
        return self._accepts(rules, name, CLEAR)

    def _final(self, rules: CalibrationRules) -> Recipe:
        """By all samples."""
        counted = Evidence.of(self._evidence[fold] for fold in range(FOLDS))
        return self._maker.recipe(rules, Evidence.of(self._evidence.values()), counted)

    def _judged(self, rules: CalibrationRules, fold: int) -> Recipe:
        """By the samples of the other parts; by all, where there is one."""
        if self.parts.is_shared:
            return self._final(rules)
        others = [self._evidence[n] for n in range(FOLDS) if n != fold]
        seen = Evidence.of([*others, self._evidence[OUTLYING]])
        return self._maker.recipe(rules, seen, Evidence.of(others))

    def with_products_of_data(self, recipe: Recipe) -> Recipe:
        """What `finish` gave, with products of two operands that the run makes where they lose
        little and save time."""
        keys = self._of_data - recipe.integer - frozenset(self.reasons)
        reason = self._why_without(keys) if keys and self.spares else ""
        self.reasons |= dict.fromkeys(keys if reason else (), reason)
        return recipe if reason else replace(recipe, integer=recipe.integer | keys)

    def _why_without(self, keys: frozenset[str]) -> str:
        """Why such products stay in floats; "" where they do not."""
        known, mean, before = self.decibels, self.mean, self._rules
        wider = replace(before, integer=before.integer | keys)
        if not self._accepts(wider, PRODUCTS_OF_DATA, min(-LOSS, ENOUGH - self.mean)):
            return _LOSING
        if self.timer is None:
            return ""
        runs = {
            name: partial(self._compiled(self._final(rules), name), self.held[0][1])
            for name, rules in (("floats", before), ("integers", wider))
        }
        times = self.timer(runs)
        if share_of(times, "integers", "floats") * SAME < 1.0:
            return ""
        self.decibels, self.mean = known, mean
        return _NO_FASTER

    # ------------------------------------------------------------------ observing

    def _observe(self) -> None:
        """What is known of every point, from the samples of each part."""
        axes, names = self.axes, [*self.points, *self.more]
        observe(self.graph, len(self.scores), [axes.get(name) for name in names])
        self.note("compiling observers")
        run = compiled_graph(self.graph, self.folder, "observers", self.threads)
        del self.graph
        rows = only_rows(self.samples, self.specs, run, self.scores)
        self.by_rows = bool(rows)
        self.samples = rows or self.samples
        self.parts = parts_of(self.samples, self.data)
        judged = frozenset[int]()
        for evidence in self._evidence.values():
            evidence.spreads = {name: Spread() for name in names}
        for number, inputs in enumerate(self.samples):
            self.note(f"calibrating ({number + 1})")
            outputs = run(inputs)
            wanted = {name: outputs[name] for name in self.scores}
            if not number:
                kept = [*inputs.values(), *wanted.values()]
                judged = self.parts.judged(sum(array.nbytes for array in kept))
            if number in judged:
                self.held.append((number, inputs, wanted))
            spreads = self._evidence[self.parts.of(number)].spreads
            for name in names:
                _take_note(spreads[name], name, outputs, name in axes)

    def notes(self) -> list[str]:
        """What the user should know of the data, after `begin`."""
        return [*self.data.notes(), *self._untrained()]

    def _untrained(self) -> list[str]:
        """A note where what the first batch normalisation made is far from what training saw."""
        norm = self.source.first_norm
        seen = self._maker.every.spreads.get(norm.result) if norm else None
        return untrained(norm, seen, self.data.ranges) if norm and seen else []

    def _look_at_tails(self) -> None:
        """What each clip loses of long-tailed tensors, in the samples of each part."""
        ranges = self._maker.clips()
        graph = self.source.floats([*self.scores[:1], *ranges])
        sample(graph, 1)
        self.note("compiling observers of tails")
        run = compiled_graph(graph, self.folder, "tails", self.threads)
        for number, inputs in enumerate(self.samples):
            self.note(f"looking at tails ({number + 1} of {self.parts.count})")
            outputs = run(inputs)
            found = self._evidence[self.parts.of(number)].lost
            for name, limits in ranges.items():
                elements = outputs[observed(name, SAMPLE)]
                power = float(np.square(elements, dtype=np.float64).sum())
                lost = squared_errors(elements, limits) / max(power, 1e-30)
                found[name] = found.get(name, np.zeros(len(limits))) + lost

    # ------------------------------------------------------------------ choosing

    def _accepts(self, rules: CalibrationRules, name: str, gain: float | None = None) -> bool:
        """Whether rules are better than what was accepted before, by so many decibels.

        A gain must be larger than its standard error over samples, too (the rule of L. Breiman et
        al., "Classification and regression trees", 1984, section 3.4.3). The first, of no gain,
        are accepted in any case; others never where nothing can be scored.
        """
        found = self._score(rules, name)
        shares = means_of_outputs(found) if found else np.zeros(0)
        mean = decibels_of(shares) if found else 0.0
        self.tried[name] = mean
        if gain is not None:
            if not found or mean < self.mean + gain:
                return False
            less = self._shares - shares
            less = less[~np.isnan(less)]
            error = np.std(less, ddof=1) / np.sqrt(len(less)) if len(less) > 1 else 0.0
            if gain > 0 and len(less) and np.mean(less) < error:
                return False
        self.decibels = {key: decibels_of(own) for key, own in found.items()}
        self.mean, self._shares, self._rules = mean, shares, rules
        return True

    def _without_fragile(self) -> None:
        """Without the few products that make most of the noise, where that halves it at least."""
        rules = self._rules
        if not self.spares or len(rules.integer) < 2 or not self.decibels or self.mean >= ENOUGH:
            return
        held = [(inputs, wanted) for _, inputs, wanted in self.held]
        parts = FloatParts(self.source, self._final(rules), held, self.specs, self.depths)
        floats = parts.chosen(self.folder, self.threads, self.note)
        whole = self.judged(self._final(rules))
        if floats and self._accepts(replace(rules, integer=rules.integer - floats), FLOATS, GAIN):
            self.reasons |= dict.fromkeys(floats, _FRAGILE)
            self.whole = whole

    def judged(self, recipe: Recipe) -> Judged:
        """A recipe, with what is known of the rules that are accepted now."""
        return Judged(recipe, self.rule, dict(self.decibels), dict(self.reasons))

    def _score(self, rules: CalibrationRules, name: str) -> dict[str, Array]:
        """Shares of noise in every scored tensor, of the samples that are judged.

        Recipes that differ in ranges and corrections alone are runs of one binary.
        """
        self.note(f"trying {name}")
        recipes = {fold: self._judged(rules, fold) for fold in range(FOLDS)}
        first = recipes[0]
        kind = first.integer | {f"scaled {tensor}" for tensor in first.scales}
        if kind not in self._open:
            graph = self.source.open(first, self.scores)
            run = compiled_graph(graph, self.folder, f"trial_{len(self.tried)}", self.threads)
            self._open[kind] = run
        run = self._open[kind]
        given = {fold: self.source.parameters(recipe) for fold, recipe in recipes.items()}
        return shares_of_noise(
            (wanted, run({**inputs, **given[self.parts.of(number)]}))
            for number, inputs, wanted in self.held
        )

    def _compiled(self, recipe: Recipe, name: str) -> GraphRun:
        """The model of a recipe as it is compiled in the end."""
        self.note(f"timing {name}")
        graph = self.source.quantised(recipe, self.scores)
        return compiled_graph(graph, self.folder, f"timed_{name}", self.threads)


def _take_note(spread: Spread, name: str, outputs: Mapping[str, Array], by_channel: bool) -> None:
    """Of a tensor in a sample, as observers tell it."""
    square = float(outputs[observed(name, SQUARE)])
    if not by_channel:
        low, high = (float(outputs[observed(name, what)]) for what in (LOW, HIGH))
        spread.add(low, high, square)
        return
    limits = (outputs[observed(name, LOWS)], outputs[observed(name, HIGHS)])
    low, high = float(limits[0].min(initial=np.inf)), float(limits[1].max(initial=-np.inf))
    spread.add(low, high, square, outputs[observed(name, MEAN)], limits)
