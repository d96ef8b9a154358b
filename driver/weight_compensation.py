"""Weights of few bits that calibration samples make better.

Every matrix is rounded to nearest and with compensation, as it is and with finer steps for what
large data meet; what changes results least, for data that took no part, is kept. So is the whole,
against that of nothing but nearest rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

import networkx as nx
import numpy as np

from ..frontends.onnx.quantising.compensation import compensated, results_lost
from ..frontends.onnx.quantising.data_scales import EXPONENTS, scales_of
from ..frontends.onnx.quantising.few_bits import FewBits, WeightForm, in_few_bits
from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.weights import NEAREST as ALL_NEAREST
from ..frontends.onnx.quantising.weights import Matrix, Rounded
from ..passes.precision.observers import MOMENTS, multiply, observed
from .batch_rows import only_rows
from .calibration import CalibrationData, Samples, specs_of_inputs
from .calibration_notes import DataNotes
from .graph_run import Array, compiled_graph
from .held_samples import SampleParts, parts_of
from .ranges_observed import ratio_in_decibels, share_of_noise

NEAREST, COMPENSATED, DIVIDED = "nearest", "compensated", "divided data"
MOST_MOMENTS = 1 << 27  # sums of products that are gathered in one reading of the samples: 1 GiB
FEW_BITS = 4  # of which single rows of weights need finer steps
_NEAREST_ONLY = (
    "weights are rounded to nearest, as nothing tells whether anything else is better; give two or "
    "more"
)
_NO_BETTER = (
    "rounding with compensation, or of what data are divided by, is no better on samples held out: "
    "weights are the nearest"
)


@dataclass(frozen=True)
class Compensation:
    """What was found. given: what is not rounded to nearest. samples, held: how many
    there were, and took no part. tried: how far the error of the scored tensors lies below them,
    in decibels, on those. notes: what the user should know."""

    given: Rounded = ALL_NEAREST
    samples: int = 0
    held: int = 0
    tried: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


Pairs = list[tuple[dict[str, Array], dict[str, Array]]]


@dataclass(frozen=True)
class _Unit:
    """Matrices that read the same tensors, and no others do."""

    matrices: tuple[Matrix, ...]
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class _Choice:
    """A matrix in few bits. is_compensated: not to nearest. lost: by results for data held out, a
    share of their power."""

    few: FewBits
    is_compensated: bool
    lost: float


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
        self.specs = specs_of_inputs(source.floats(self.scores))
        self.samples: Iterable[dict[str, Array]] = Samples(data, self.specs, folder / "samples")
        self.held: Pairs = []
        self.data, self.parts = DataNotes(), SampleParts(0)

    def run(self) -> Compensation:
        """What becomes of the matrices."""
        next(iter(self.samples))
        plain: dict[Matrix, FewBits] = {}
        finer, divided = dict[Matrix, FewBits](), dict[str, Array]()
        for number, group in enumerate(self._groups()):
            moments = self._observed([name for unit in group for name in unit.tensors], number)
            if not self.held:
                notes = (nearest_only(self.parts), *self.data.notes())
                return Compensation(samples=self.parts.count, notes=notes)
            for unit in group:
                found = self._plain(unit, moments)
                plain |= {m: c.few for m, c in found.items() if c.is_compensated}
                scaled = self._divided(unit, moments, sum(c.lost for c in found.values()))
                if scaled is not None:
                    finer |= scaled.matrices
                    divided |= scaled.divided
        trials = {NEAREST: ALL_NEAREST}
        if plain:
            trials[COMPENSATED] = Rounded(plain)
        if divided:
            trials[DIVIDED] = Rounded({**plain, **finer}, divided)
        tried = {name: self._score(given, name) for name, given in trials.items()}
        best = max(tried, key=lambda name: tried[name])
        notes = (*self.data.notes(), *(() if best != NEAREST else (_NO_BETTER,)))
        return Compensation(trials[best], self.parts.count, len(self.held), tried, notes)

    def _units(self) -> Iterator[_Unit]:
        """The matrices, those together that read one tensor."""
        joined = nx.Graph()
        for matrix, data in self.matrices.items():
            joined.add_edges_from((matrix, name) for name in data)
        for part in nx.connected_components(joined):
            own = [matrix for matrix in self.matrices if matrix in part]
            names = dict.fromkeys(name for matrix in own for name in self.matrices[matrix])
            yield _Unit(tuple(own), tuple(names))

    def _groups(self) -> Iterator[list[_Unit]]:
        """The units, so many at a time as their data's moments take memory."""
        group, size = list[_Unit](), 0
        for unit in self._units():
            depth = unit.matrices[0].columns(self.source.constants).shape[1]
            own = len(unit.tensors) * depth**2
            if group and size + own > MOST_MOMENTS:
                yield group
                group, size = [], 0
            group.append(unit)
            size += own
        yield group

    def _observed(self, tensors: list[str], number: int) -> _Moments:
        graph = self.source.floats([*self.scores, *tensors])
        multiply(graph, len(self.scores))
        self.note("compiling observers")
        run = compiled_graph(graph, self.folder, f"moments_{number}", self.threads)
        first = not self.parts.count
        if first:
            self.samples = only_rows(self.samples, self.specs, run, self.scores) or self.samples
            self.parts = parts_of(self.samples, self.data)
        found, held, counted = _Moments(), self.parts.held_out(), frozenset(self.parts.counted)
        for index, inputs in enumerate(self.samples):
            self.note(f"calibrating ({index + 1})")
            if index not in counted:
                continue
            outputs, is_held = run(inputs), index in held
            if is_held and first:
                self.held.append((inputs, {name: outputs[name] for name in self.scores}))
            sums = found.held if is_held else found.used
            for name in tensors:
                own = outputs[observed(name, MOMENTS)].astype(np.float64)
                sums[name] = sums[name] + own if name in sums else own
        return found

    def _plain(self, unit: _Unit, moments: _Moments) -> dict[Matrix, _Choice]:
        """What becomes of the matrices of a unit while their data stay as they are."""
        found = {}
        for matrix in unit.matrices:
            weights = matrix.columns(self.source.constants)
            tensors = self.matrices[matrix]
            used, held = (_sum_of(sums, tensors) for sums in (moments.used, moments.held))
            found[matrix] = self._chosen(matrix, weights, used, held)
        return found

    def _chosen(self, matrix: Matrix, weights: Array, used: Array, held: Array) -> _Choice:
        """The weights, rounded to nearest or with compensation, as loses less."""
        self.note(f"rounding {matrix.name}")
        near = in_few_bits(weights, self.form)
        lost = results_lost(near, weights, held)
        other = compensated(weights, self.form, used)
        if other is None or not np.isfinite(held).all():
            return _Choice(near, False, lost)
        own = results_lost(other, weights, held)
        return _Choice(other, True, own) if own < lost else _Choice(near, False, lost)

    def _divided(self, unit: _Unit, moments: _Moments, lost: float) -> Rounded | None:
        """The matrices of a unit with finer steps for what large data meet; None where that loses
        no less than what they do as they are (`lost`)."""
        if self.form.bits > FEW_BITS or len(unit.tensors) != 1 or not np.isfinite(lost):
            return None
        [name] = unit.tensors
        used, held = moments.used[name], moments.held[name]
        power = np.diagonal(used)
        if not (np.isfinite(used).all() and np.isfinite(held).all() and power.any()):
            return None
        columns = {m: m.columns(self.source.constants) for m in unit.matrices}
        self.note(f"scaling what reads {name}")

        def loss(scales: Array) -> float:
            own, wide = _turned(used, scales), {m: w * scales for m, w in columns.items()}
            return sum(results_lost(in_few_bits(w, self.form), w, own) for w in wide.values())

        trials = [np.ones(len(power), np.float32), *(scales_of(power, e) for e in EXPONENTS)]
        best = min(trials, key=loss)
        if best is trials[0]:
            return None
        found = {
            m: self._chosen(m, w * best, _turned(used, best), _turned(held, best))
            for m, w in columns.items()
        }
        if sum(choice.lost for choice in found.values()) >= lost:
            return None
        return Rounded({m: choice.few for m, choice in found.items()}, {name: best})

    def _score(self, given: Rounded, name: str) -> float:
        """How far the error lies below the scored tensors on the samples held out: the mean."""
        self.note(f"trying {name}")
        graph = self.source.with_weights(self.form, self.keys, given, self.scores)
        own = f"trial_{name.replace(' ', '_')}"
        run = compiled_graph(graph, self.folder, own, self.threads)
        share = share_of_noise((wanted, run(inputs)) for inputs, wanted in self.held)
        return ratio_in_decibels(1.0, share)


def nearest_only(parts: SampleParts) -> str:
    """The note where no more than one sample counts."""
    if parts.count == 1:
        return f"there is one calibration sample: {_NEAREST_ONLY}"
    return (
        f"one of {parts.count} calibration samples counts, as the others are far larger than most: "
        f"{_NEAREST_ONLY} that are alike"
    )


def _sum_of(sums: Mapping[str, Array], tensors: Sequence[str]) -> Array:
    return np.asarray(sum(sums[name] for name in tensors))


def _turned(moments: Array, scales: Array) -> Array:
    """Those of data that are divided by scales."""
    own = 1 / scales.astype(np.float64)
    return np.asarray(moments * own[:, None] * own)
