"""What a call of a cascade takes, on average and at the most: predicted, and measured."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from ...compiler.economics.estimate import Estimate, Provenance, combined
from ...compiler.host import processor_name
from ...compiler.ir.dims import evaluate
from ...compiler.ir.flops import graph_flops
from ...runtime.loader import Module
from ..console import human_seconds
from ..model_build import import_model
from ..preflight import predicted_run
from ..request import CompileRequest
from ..samples import Sampler
from ..shapes import ShapeSpecs
from ..tensor_files import Array

MOST_TIMED, LEAST_TIMED = 512, 8  # samples
MOST_SECONDS = 20.0  # in which more than the least are timed
TIMED_RUNS = 5  # of a sample, whose median counts
NINETY_NINE = 0.99
_NORMAL_95 = 1.96


@dataclass(frozen=True)
class CascadeCost:
    """Seconds of a call, without any wait. expected: the mean; p99: that 99 of 100 calls take at
    most; last: of the last stage alone, which others are compared with."""

    expected: Estimate
    p99: Estimate
    last: Estimate

    def to_json(self) -> dict[str, Any]:
        """For manifests and `--json`."""
        return {
            "expected": self.expected.to_json(), "p99": self.p99.to_json(),
            "last": self.last.to_json(),
        }  # fmt: skip

    def line(self) -> str:
        """For people."""

        def told(own: Estimate) -> str:
            return f"{'~' * (own.kind is Provenance.MODELLED)}{human_seconds(own.value)}"

        share = self.expected.value / self.last.value
        return (
            f"{self.expected.kind}: a call takes {told(self.expected)} on average, "
            f"{told(self.p99)} at p99; the last stage alone {told(self.last)} ({share:.0%})"
        )


def stage_flops(models: Sequence[Path], shapes: ShapeSpecs, *, cumulative: bool) -> list[float]:
    """Operations that each stage adds, for the usual sizes of its inputs.

    models: of the stages; cumulative: a model computes the stages before it, too.
    """
    found = []
    for path in models:
        graph = import_model(path, shapes_of(path, shapes))
        flops = graph_flops(graph)
        sizes = Sampler(graph).usual_sizes
        found.append(float(flops if isinstance(flops, int) else evaluate(flops, sizes)))
    return _added(found, cumulative)


def predicted_cost(
    models: Sequence[Path], answered: Sequence[float], samples: int, request: CompileRequest,
    *, cumulative: bool,
) -> CascadeCost | None:  # fmt: skip
    """By the cost model, without code; None where the target's backend predicts nothing.

    answered: share of samples that each stage answers, of so many.
    """
    backend, _ = request.resolve()
    if backend.estimate is None:
        return None
    runs = [
        predicted_run(path, replace(request, shapes=shapes_of(path, request.shapes))).seconds
        for path in models
    ]
    reached = 1 - np.cumsum([0.0, *answered[:-1]])
    shares = [_share(float(share), samples) for share in reached[1:]]

    def mean(*parts: float) -> float:
        added = _added(parts[: len(runs)], cumulative)
        return added[0] + sum(a * b for a, b in zip(added[1:], parts[len(runs) :], strict=True))

    expected = combined(
        mean, (*runs, *shares), "s", "stages x the share of samples that reaches each"
    )
    last = int(np.flatnonzero(reached > 1 - NINETY_NINE)[-1])
    p99 = runs[last] if cumulative else reduce(add, runs[: last + 1])
    method = f"all stages up to the one by which 99 % are answered: {p99.method}"
    return CascadeCost(expected, replace(p99, method=method), runs[-1])


def measured_cost(
    cascade: Module, last: Module, samples: Iterable[Mapping[str, Array]]
) -> CascadeCost:
    """On samples that did not choose the thresholds, here, in turns with the last stage alone."""
    both: tuple[list[float], list[float]] = ([], [])
    end = time.monotonic() + MOST_SECONDS
    for sample, number in zip(samples, range(MOST_TIMED), strict=False):
        if number >= LEAST_TIMED and time.monotonic() > end:
            break
        for module, found in zip((cascade, last), both, strict=True):
            runs = module.bench(dict(sample), warmup=1, iterations=TIMED_RUNS)
            found.append(float(np.median(runs)))
    method = f"median of {TIMED_RUNS} runs of each of {len(both[0])} samples"
    today, here = date.today().isoformat(), processor_name()

    def told(value: float, spread: float | None, what: str) -> Estimate:
        ends = None if spread is None else (max(0.0, value - spread), value + spread)
        return Estimate(value, "s", Provenance.MEASURED, f"{what}, {method}", ends, here, today)

    def mean(times: list[float]) -> Estimate:
        spread = _NORMAL_95 * float(np.std(times)) / math.sqrt(len(times))
        return told(float(np.mean(times)), spread, "mean")

    p99 = told(float(np.percentile(both[0], 100 * NINETY_NINE)), None, "p99")
    return CascadeCost(mean(both[0]), p99, mean(both[1]))


def _added(values: Sequence[float], cumulative: bool) -> list[float]:
    """What each stage adds."""
    if not cumulative:
        return list(values)
    return [max(0.0, own - before) for own, before in zip(values, (0.0, *values), strict=False)]


def _share(value: float, samples: int) -> Estimate:
    """A share that was counted, with its normal interval."""
    spread = _NORMAL_95 * math.sqrt(max(value * (1 - value), 0.0) / samples)
    ends = (max(0.0, value - spread), min(1.0, value + spread))
    method = f"counted on {samples} samples that chose no threshold"
    return Estimate(value, "", Provenance.MEASURED, method, ends)


def shapes_of(path: Path, shapes: ShapeSpecs) -> ShapeSpecs:
    """Those of the shapes that are of inputs of a model: stages may take fewer."""
    if not shapes:
        return shapes
    names = {value.name for value in import_model(path, {}).inputs}
    return {name: dims for name, dims in shapes.items() if name in names}
