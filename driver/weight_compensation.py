"""Weights of few bits whose rounding makes up for itself on calibration samples.

Every matrix is rounded to nearest and with compensation; the one that changes results less, for
data that took no part, is kept. So is the whole, against that of nothing but nearest rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..frontends.onnx.quantising.compensation import compensated, results_lost
from ..frontends.onnx.quantising.few_bits import FewBits, WeightForm, in_few_bits
from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.weights import Matrix
from ..passes.precision.observers import MOMENTS, multiply, observed
from .calibrated_search import EVERY, MOST_HELD
from .calibration import CalibrationData, Samples, specs_of_inputs
from .graph_run import Array, compiled_graph
from .ranges_observed import decibels

NEAREST, COMPENSATED = "nearest", "compensated"
MOST_MOMENTS = 1 << 27  # sums of products that are gathered in one reading of the samples: 1 GiB
_ONE = (
    "there is one calibration sample: weights are rounded to nearest, as nothing tells whether "
    "anything else is better; give two or more"
)
_NO_BETTER = "rounding with compensation is no better on samples held out: weights are the nearest"


@dataclass(frozen=True)
class Compensation:
    """What was found. given: matrices that are not rounded to nearest. samples, held: how many
    there were, and took no part. tried: how far the error of the scored tensors lies below them,
    in decibels, on those. notes: what the user should know."""

    given: Mapping[Matrix, FewBits] = field(default_factory=dict)
    samples: int = 0
    held: int = 0
    tried: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Pairs = list[tuple[dict[str, Array], dict[str, Array]]]


@dataclass
class _Moments:
    """Sums over samples of what data are times their transposes: of those used, of those held."""

    used: dict[str, Array] = field(default_factory=dict)
    held: dict[str, Array] = field(default_factory=dict)


class WeightSearch:
    """Rounds the matrices of a model's products (`keys`).

    folder: for what is made on the way. Raises UsageError for data that do not fit.
    """

    def __init__(
        self,
        source: Quantisable,
        form: WeightForm,
        keys: Set[str],
        data: CalibrationData,
        folder: Path,
        threads: int,
        note: Callable[[str], None],
    ) -> None:
        self.source, self.form, self.keys = source, form, keys
        self.folder, self.threads, self.note = folder, threads, note
        self.matrices = source.matrices(keys)
        self.scores = source.scores()
        specs = specs_of_inputs(source.floats(self.scores))
        self.samples = Samples(data, specs, folder / "samples")
        self.held: Pairs = []
        self.count = 0

    def run(self) -> Compensation:
        """What becomes of the matrices."""
        next(iter(self.samples))
        given: dict[Matrix, FewBits] = {}
        for number, group in enumerate(self._groups()):
            tensors = list(dict.fromkeys(name for m in group for name in self.matrices[m]))
            moments = self._observed(tensors, number)
            if not self.held:
                return Compensation(samples=self.count, notes=(_ONE,))
            for matrix in group:
                few = self._compensated(matrix, moments)
                if few is not None:
                    given[matrix] = few
        tried = {NEAREST: self._score({}, NEAREST)}
        if given:
            tried[COMPENSATED] = self._score(given, COMPENSATED)
        if given and tried[COMPENSATED] > tried[NEAREST]:
            return Compensation(given, self.count, len(self.held), tried)
        return Compensation({}, self.count, len(self.held), tried, (_NO_BETTER,))

    def _groups(self) -> Iterator[list[Matrix]]:
        """The matrices, so many at a time as their data's moments take memory."""
        group, size = list[Matrix](), 0
        for matrix, data in self.matrices.items():
            own = len(data) * matrix.columns(self.source.constants).shape[1] ** 2
            if group and size + own > MOST_MOMENTS:
                yield group
                group, size = [], 0
            group.append(matrix)
            size += own
        yield group

    def _observed(self, tensors: list[str], number: int) -> _Moments:
        graph = self.source.floats([*self.scores, *tensors])
        multiply(graph, len(self.scores))
        self.note("compiling observers")
        run = compiled_graph(graph, self.folder, f"moments_{number}", self.threads)
        found, first = _Moments(), not self.held
        for index, inputs in enumerate(self.samples):
            self.note(f"calibrating ({index + 1})")
            outputs = run(inputs)
            is_held = index % EVERY == 1 and index // EVERY < MOST_HELD
            if is_held and first:
                self.held.append((inputs, {name: outputs[name] for name in self.scores}))
            sums = found.held if is_held else found.used
            for name in tensors:
                own = outputs[observed(name, MOMENTS)].astype(np.float64)
                sums[name] = sums[name] + own if name in sums else own
            self.count = index + 1
        return found

    def _compensated(self, matrix: Matrix, moments: _Moments) -> FewBits | None:
        """The matrix, rounded with compensation; None where that is no better than to nearest."""
        self.note(f"rounding {matrix.name}")
        weights = matrix.columns(self.source.constants)
        used, held = (
            np.asarray(sum(sums[name] for name in self.matrices[matrix]))
            for sums in (moments.used, moments.held)
        )
        other = compensated(weights, self.form, used)
        if other is None or not np.isfinite(held).all():
            return None
        lost = results_lost(in_few_bits(weights, self.form), weights, held)
        return other if results_lost(other, weights, held) < lost else None

    def _score(self, given: Mapping[Matrix, FewBits], name: str) -> float:
        """How far the error lies below the scored tensors on the samples held out: the mean."""
        self.note(f"trying {name}")
        graph = self.source.with_weights(self.form, self.keys, given, self.scores)
        run = compiled_graph(graph, self.folder, f"trial_{name}", self.threads)
        found = decibels((wanted, run(inputs)) for inputs, wanted in self.held)
        return float(np.mean(list(found.values()))) if found else 0.0
