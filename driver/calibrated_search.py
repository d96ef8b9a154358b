"""Post-training quantisation with data: ranges are observed, and what they cost is measured.

Ranges are observed on calibration samples in two ways, of which the better one on samples that took
no part is kept. Products that make most of the noise for little work stay in floats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from ..compiler.errors import UsageError
from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.recipe import Limits, Recipe
from ..passes.precision.observers import (
    HIGH,
    HIGHS,
    LOW,
    LOWS,
    MEAN,
    NOISE,
    SAMPLE,
    SQUARE,
    compare,
    observe,
    observed,
    sample,
)
from .batch_rows import only_rows
from .calibration import CalibrationData, Samples, specs_of_inputs
from .calibration_notes import DataNotes, untrained
from .graph_run import Array, GraphRun, compiled_graph
from .noisy_products import count_of, noisy, worst
from .ranges_observed import (
    CLIPS,
    Spread,
    clipped_ranges,
    decibels,
    means_of,
    squared_errors,
)
from .tensor_files import check_inputs
from .timing import SAME, Timer, share_of

MINMAX, CLIPPED, USUAL = "minmax", "mse", "usual samples"
CHANNELS = "scales of channels"
PRODUCTS_OF_DATA = "products of data"
EVERY = 4  # one sample of so many is held out
MOST_HELD = 32
CLEAR = 0.1  # decibels by which clipped ranges must be better
ENOUGH = 40.0  # decibels of error below the outputs, which no product stays in floats for
LOSS = 1.75  # decibels that products of two operands that the run makes may lose: half the noise
GAIN = 3.0  # decibels for which products stay in floats: half the noise
_FRAGILE = "it makes much of the noise for little work: in floats the outputs have half of it"
_LOSING = "its operands would lose more than the whole model may by them"
_NO_FASTER = "the model is no faster with its operands in integers"
_STRAY = "its data were not finite in calibration"


class Search:
    """Calibration, and the choice between what was observed.

    count: of samples. held: (inputs, outputs in floats) of those on which errors are measured;
    shared: they took part in calibration too. rule: of the ranges that were kept. decibels: how far
    the error of each scored tensor lies below it; tried: the mean of that for all that was tried.
    reasons: why products that could be integer stay in floats, by key. spares: whether some do for
    the noise that they make, or the time that they take; timer: tells the latter (None: nothing).
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
        self.count, self.data = 0, DataNotes()
        self.held: list[tuple[dict[str, Array], dict[str, Array]]] = []
        self.shared = False
        self.tried: dict[str, float] = {}
        self.decibels: dict[str, float] = {}
        self.rule = MINMAX
        self.reasons: dict[str, str] = {}
        self._of_data = frozenset(p.key for p in self.products if p.other)
        self._judged = Recipe()  # with ranges of the samples that are not held out
        self._seen: dict[str, Spread] = {}  # in samples that are not held out
        self._every: dict[str, Spread] = {}
        self._norm: Spread | None = None  # what the first batch normalisation made
        self._open: dict[frozenset[str], GraphRun] = {}  # by what is integer, and what is scaled

    @property
    def mean(self) -> float:
        """The mean of the decibels."""
        return _mean(self.decibels)

    def begin(self) -> None:
        """Observe the samples, and score the plain ranges that they show (`tried`)."""
        next(iter(self.samples))
        self._seen, other = self._observe()
        every = {name: spread.merged(other[name]) for name, spread in self._seen.items()}
        self._norm = every.pop(self.more[0]) if self.more else None
        seen = {name: self._seen[name] for name in self.points}
        stray = {name for name, spread in every.items() if not spread.finite}
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
        dynamic = frozenset(p.key for p in self.products if p.by_run)
        recipe = Recipe({name: spread.range for name, spread in seen.items()}, integer, dynamic)
        self._accepts(recipe, MINMAX)
        self._seen, self._every, self._judged = seen, every, recipe

    def finish(self) -> Recipe:
        """The recipe that is best where it was not calibrated, after `begin`."""
        seen, every = self._seen, self._every
        recipe, final = self._with_usual(self._judged, every)
        recipe, final = self._with_clips(recipe, final, every)
        recipe, final = self._with_scales(recipe, final, seen, every)
        corrections = self.source.corrections(recipe.integer, means_of(seen))
        corrected = replace(recipe, biases=corrections)
        if self._accepts(corrected, "corrected biases", CLEAR):
            recipe = corrected
        self._judged = recipe = self._without_fragile(recipe)
        means = means_of(seen if self.data.outlying else every)
        biases = self.source.corrections(frozenset(recipe.biases), means)
        return replace(recipe, ranges=final, biases=biases)

    def _with_usual(
        self, recipe: Recipe, every: Mapping[str, Spread]
    ) -> tuple[Recipe, dict[str, Limits]]:
        """The recipe, with the ranges that most samples show if those are better where few are far
        larger; and the ranges of all samples, but of those so large that took no part."""
        final = {
            name: (spread.usual if self._seen[name].usual is None else None) or spread.range
            for name, spread in every.items()
        }
        usual = {name: own for name, s in self._seen.items() if (own := s.usual) is not None}
        if not usual:
            return recipe, final
        trial = replace(recipe, ranges={**recipe.ranges, **usual})
        if not self._accepts(trial, USUAL, CLEAR):
            return recipe, final
        self.rule = USUAL
        return trial, final | {n: every[n].usual or own for n, own in usual.items()}

    def _with_clips(
        self, recipe: Recipe, final: dict[str, Limits], every: Mapping[str, Spread]
    ) -> tuple[Recipe, dict[str, Limits]]:
        """The recipe, with clipped ranges if those are better; and the ranges of all samples
        (`final` without them)."""
        tails = {name: s for name, s in every.items() if s.is_long_tailed and s.usual is None}
        errors = self._clip_errors(tails) if tails else {}
        clipped = clipped_ranges(every, {name: used for name, (used, _) in errors.items()})
        if not clipped:
            return recipe, final
        narrower = replace(recipe, ranges={**recipe.ranges, **clipped})
        if not self._accepts(narrower, CLIPPED, CLEAR):
            return recipe, final
        self.rule = CLIPPED
        whole = {name: used + held for name, (used, held) in errors.items()}
        return narrower, final | clipped_ranges(every, whole)

    def _with_scales(
        self,
        recipe: Recipe,
        final: dict[str, Limits],
        seen: Mapping[str, Spread],
        every: Mapping[str, Spread],
    ) -> tuple[Recipe, dict[str, Limits]]:
        """The recipe with scales for channels in front of depthwise convolutions, if those are
        better; and the ranges of all samples (`final` without them)."""
        peaks = {
            name: spread.channel_peaks
            for name, spread in seen.items()
            if spread.channel_peaks is not None and every[name].usual is None
        }
        scales = self.source.channel_scales(recipe.integer, peaks)
        if not scales:
            return recipe, final
        limits = {name: seen[name].scaled(own) for name, own in scales.items()}
        trial = replace(recipe, ranges={**recipe.ranges, **limits}, scales=scales)
        if not self._accepts(trial, CHANNELS, CLEAR):
            return recipe, final
        return trial, final | {name: every[name].scaled(own) for name, own in scales.items()}

    def with_products_of_data(self, recipe: Recipe) -> Recipe:
        """What `finish` gave, with products of two operands that the run makes where they lose
        little and save time."""
        keys = self._of_data - recipe.integer - frozenset(self.reasons)
        reason = self._why_without(keys) if keys and self.spares else ""
        self.reasons |= dict.fromkeys(keys if reason else (), reason)
        return recipe if reason else replace(recipe, integer=recipe.integer | keys)

    def _why_without(self, keys: frozenset[str]) -> str:
        """Why such products stay in floats; "" where they do not."""
        known, before = self.decibels, self._judged
        wider = replace(before, integer=before.integer | keys)
        if not self._accepts(wider, PRODUCTS_OF_DATA, min(-LOSS, ENOUGH - self.mean)):
            return _LOSING
        if self.timer is None:
            return ""
        runs = {
            name: partial(self._compiled(recipe, name), self.held[0][0])
            for name, recipe in (("floats", before), ("integers", wider))
        }
        times = self.timer(runs)
        if share_of(times, "integers", "floats") * SAME < 1.0:
            return ""
        self.decibels = known
        return _NO_FASTER

    # ------------------------------------------------------------------ observing

    def _is_held(self, index: int) -> bool:
        return index % EVERY == 1 and len(self.held) < MOST_HELD

    def _observe(self) -> tuple[dict[str, Spread], dict[str, Spread]]:
        """What is known of every point: from samples that are used, and from those held out."""
        axes, names = self.axes, [*self.points, *self.more]
        observe(self.graph, len(self.scores), [axes.get(name) for name in names])
        self.note("compiling observers")
        run = compiled_graph(self.graph, self.folder, "observers", self.threads)
        del self.graph
        rows = only_rows(self.samples, self.specs, run, self.scores)
        self.by_rows = bool(rows)
        self.samples = rows or self.samples
        used = {name: Spread() for name in names}
        held = {name: Spread() for name in names}
        first: list[tuple[dict[str, Array], dict[str, Array]]] = []
        places = list[int]()  # of those held out
        for index, inputs in enumerate(self.samples):
            self.note(f"calibrating ({index + 1})")
            self.data.add(inputs)
            outputs = run(inputs)
            pair = (inputs, {name: outputs[name] for name in self.scores})
            spreads = held if self._is_held(index) else used
            if self._is_held(index):
                self.held.append(pair)
                places.append(index)
            elif not index:
                first.append(pair)
            for name in names:
                square = float(outputs[observed(name, SQUARE)])
                if name not in axes:
                    low, high = (float(outputs[observed(name, what)]) for what in (LOW, HIGH))
                    spreads[name].add(low, high, square)
                    continue
                limits = (outputs[observed(name, LOWS)], outputs[observed(name, HIGHS)])
                low = float(limits[0].min(initial=np.inf))
                high = float(limits[1].max(initial=-np.inf))
                spreads[name].add(low, high, square, outputs[observed(name, MEAN)], limits)
            self.count = index + 1
        far = self.data.outlying
        kept = [pair for n, pair in zip(places, self.held, strict=True) if n not in far]
        self.held = kept or self.held
        if not self.held:
            self.held, self.shared = first, True
        return used, held

    def notes(self) -> list[str]:
        """What the user should know of the data, after `begin`."""
        return [*self.data.notes(), *self._untrained()]

    def _untrained(self) -> list[str]:
        """A note where what the first batch normalisation made is far from what training saw."""
        norm = self.source.first_norm
        seen = self._norm or (self._every.get(norm.result) if norm else None)
        return untrained(norm, seen, self.data.ranges) if norm and seen else []

    def _clip_errors(self, tails: Mapping[str, Spread]) -> dict[str, tuple[Array, Array]]:
        """What each clip loses of each tensor: in samples used, and in those held out."""
        graph = self.source.floats([*self.scores[:1], *tails])
        sample(graph, 1)
        self.note("compiling observers of tails")
        run = compiled_graph(graph, self.folder, "tails", self.threads)
        ranges = {
            name: [spread.clipped(factor) for factor in CLIPS] for name, spread in tails.items()
        }
        used = {name: np.zeros(len(CLIPS)) for name in tails}
        held = {name: np.zeros(len(CLIPS)) for name in tails}
        for index, inputs in enumerate(self.samples):
            self.note(f"looking at tails ({index + 1} of {self.count})")
            outputs = run(inputs)
            is_held = not self.shared and index % EVERY == 1 and index // EVERY < MOST_HELD
            errors = held if is_held else used
            for name in tails:
                errors[name] += squared_errors(outputs[observed(name, SAMPLE)], ranges[name])
        return {name: (used[name], held[name]) for name in tails}

    # ------------------------------------------------------------------ choosing

    def _accepts(self, recipe: Recipe, name: str, gain: float | None = None) -> bool:
        """Whether a recipe is better than what was accepted before, by so many decibels.

        The first, of no gain, is accepted in any case; others never where nothing can be scored.
        """
        found = self._score(recipe, name)
        self.tried[name] = _mean(found)
        if gain is not None and (not found or _mean(found) < self.mean + gain):
            return False
        self.decibels = found
        return True

    def _without_fragile(self, recipe: Recipe) -> Recipe:
        """Without the few products that make most of the noise, where that halves it at least."""
        if not self.spares or len(recipe.integer) < 2 or not self.decibels or self.mean >= ENOUGH:
            return recipe
        noise, work = self._local_noise(recipe)
        last = {product.key for product in self.products if product.last}
        floats = worst(noise, work) | noisy(last & set(noise), noise, work)
        wider = replace(recipe, integer=recipe.integer - floats)
        if not floats or not self._accepts(wider, "float parts", GAIN):
            return recipe
        self.reasons |= dict.fromkeys(floats, _FRAGILE)
        return wider

    def _local_noise(self, recipe: Recipe) -> tuple[dict[str, float], dict[str, float]]:
        """Of every product: the noise that its own operands make in its result, relative to that,
        and how many multiplications it takes."""
        graph = self.source.beside(recipe)
        results = {value.name: value.shape for value in graph.outputs[::2]}
        terms = {p.key: p.terms or count_of([self.depths[p.data]], {}) for p in self.products}
        compare(graph)
        self.note("compiling pairs of products")
        run = compiled_graph(graph, self.folder, "pairs", self.threads)
        noise, work = dict.fromkeys(results, 0.0), dict.fromkeys(results, 0.0)
        for index, inputs in enumerate(self.samples):
            if index >= MOST_HELD:
                break
            self.note(f"comparing products ({index + 1})")
            outputs = run(inputs)
            sizes = check_inputs(self.specs, inputs)
            for key, shape in results.items():
                square, lost = (float(outputs[observed(key, what)]) for what in (SQUARE, NOISE))
                noise[key] += lost / square if square > 0 else 0.0
                work[key] += count_of(shape, sizes) * terms[key]
        return noise, work

    def _score(self, recipe: Recipe, name: str) -> dict[str, float]:
        """Decibels of every scored tensor on the samples held out.

        Recipes that differ in ranges and corrections alone are runs of one binary.
        """
        self.note(f"trying {name}")
        kind = recipe.integer | {f"scaled {tensor}" for tensor in recipe.scales}
        if kind not in self._open:
            graph = self.source.open(recipe, self.scores)
            run = compiled_graph(graph, self.folder, f"trial_{len(self.tried)}", self.threads)
            self._open[kind] = run
        run, parameters = self._open[kind], self.source.parameters(recipe)
        return decibels(self._pairs(lambda inputs: run({**inputs, **parameters})))

    def _compiled(self, recipe: Recipe, name: str) -> GraphRun:
        """The model of a recipe as it is compiled in the end."""
        self.note(f"timing {name}")
        graph = self.source.quantised(recipe, self.scores)
        return compiled_graph(graph, self.folder, f"timed_{name}", self.threads)

    def _pairs(self, run: GraphRun) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
        for inputs, wanted in self.held:
            yield wanted, run(inputs)


def _mean(found: Mapping[str, float]) -> float:
    return float(np.mean(list(found.values()))) if found else 0.0
