"""What some samples tell of a model's tensors, and the recipe that follows by given rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.recipe import Limits, Recipe
from .ranges_observed import CLIPS, Array, Spread, means_of


@dataclass(frozen=True)
class CalibrationRules:
    """How a model is quantised, whatever samples show. integer, dynamic: keys of products (see
    `Recipe`). usual: ranges are those of samples that are not far larger than most; clipped: of
    long-tailed tensors, those that lose least; scaled: channels that only depthwise convolutions
    read have scales; corrected: biases make up for what rounding weights loses on average.
    """

    integer: frozenset[str]
    dynamic: frozenset[str] = frozenset()
    usual: bool = False
    clipped: bool = False
    scaled: bool = False
    corrected: bool = False


@dataclass
class Evidence:
    """What some samples tell: spreads by tensor, and what each of `CLIPS` loses of long-tailed
    ones, sums over samples of shares of their power."""

    spreads: dict[str, Spread] = field(default_factory=dict)
    lost: dict[str, Array] = field(default_factory=dict)

    @classmethod
    def of(cls, parts: Iterable[Evidence]) -> Evidence:
        """Of the samples of all parts."""
        found = cls()
        for part in parts:
            for name, spread in part.spreads.items():
                own = found.spreads.get(name, Spread())
                found.spreads[name] = own.merged(spread)
            for name, lost in part.lost.items():
                found.lost[name] = found.lost.get(name, np.zeros(len(CLIPS))) + lost
        return found


class RecipeMaker:
    """Recipes of a model. every: what all samples tell, outlying ones too; points: the tensors that
    are quantised by ranges."""

    def __init__(self, source: Quantisable, points: Iterable[str], every: Evidence) -> None:
        self.source, self.points, self.every = source, [*points], every
        self.bounds = {
            name: spread.usual_peak
            for name, spread in every.spreads.items()
            if spread.usual_peak < spread.peak
        }

    @property
    def long_tailed(self) -> dict[str, Spread]:
        """The tensors that clips are looked into for."""
        spreads = self.every.spreads
        kept = {name: spreads[name] for name in self.points if name not in self.bounds}
        return {name: spread for name, spread in kept.items() if spread.is_long_tailed}

    def recipe(self, rules: CalibrationRules, seen: Evidence, counted: Evidence) -> Recipe:
        """What some samples say (`seen`; `counted`: those of them that are not outlying)."""
        used = counted if rules.usual else seen
        ranges = {name: used.spreads[name].range for name in self.points}
        if rules.usual:
            own = {n: used.spreads[n].within(b) for n, b in self.bounds.items() if n in ranges}
            ranges |= own
        if rules.clipped:
            ranges |= self._clipped(used, counted.lost)
        scales = self._scales(rules.integer, used) if rules.scaled else {}
        ranges |= {name: used.spreads[name].scaled(own) for name, own in scales.items()}
        biases = dict[str, Array]()
        if rules.corrected:
            biases = self.source.corrections(rules.integer, means_of(counted.spreads))
        return Recipe(ranges, rules.integer, rules.dynamic, biases=biases, scales=scales)

    def _clipped(self, used: Evidence, lost: Mapping[str, Array]) -> dict[str, Limits]:
        """The ranges that lose least, where that is not the whole range."""
        best = {name: CLIPS[int(np.argmin(own))] for name, own in lost.items()}
        peaks = {name: self.every.spreads[name].peak for name in best}
        return {n: used.spreads[n].clipped(c * peaks[n]) for n, c in best.items() if c < 1.0}

    def clips(self) -> dict[str, list[Limits]]:
        """The ranges that are tried for each long-tailed tensor."""
        found = self.long_tailed.items()
        return {name: [s.clipped(factor * s.peak) for factor in CLIPS] for name, s in found}

    def _scales(self, integer: frozenset[str], used: Evidence) -> dict[str, Array]:
        peaks = {
            name: spread.channel_peaks
            for name, spread in used.spreads.items()
            if spread.channel_peaks is not None and name not in self.bounds
        }
        return self.source.channel_scales(integer, peaks)
