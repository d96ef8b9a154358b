"""Which values of a model stay in floats, on a target of integers with a processor beside it that
has floats, too: those of which 8 bits lose too much."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..compiler.backend import backend_of
from ..compiler.errors import InternalError
from ..compiler.ir import Graph, Node, Value
from ..compiler.ir.flops import graph_flops
from ..passes.precision.fixed_point.known_scales import Scale
from ..passes.precision.fixed_point.quantise_floats import (
    IN_FLOATS,
    Scales,
    quantised_and_back,
)
from .ranges_observed import decibels

Array = np.ndarray[Any, Any]
Range = tuple[float, float]
LEAST_DECIBELS = 20.0  # of every output above its noise
MOST_SAMPLES = 4
MOST_OPERATIONS = 4e10  # additions and multiplications of all evaluations


def kept_in_floats(
    graph: Graph, ranges: Mapping[Value, Range], samples: Iterable[Mapping[str, Array]]
) -> tuple[frozenset[Value], str]:
    """(values of `ranges` that stay in floats, what a user should know; "": nothing).

    Where a model whose values are all quantised keeps `LEAST_DECIBELS` between outputs and noise,
    none does. Else each value is quantised alone, and those that make most noise stay, with those
    between such ones, until the others keep it. Noise is that of at most
    `MOST_SAMPLES` samples, evaluated in numpy; models too large for that are quantised whole.
    """
    flops = graph_flops(graph)
    evaluations = 2 * len(ranges) + 2
    if not isinstance(flops, int):
        raise InternalError("sizes of a graph of integers are known")
    most = MOST_OPERATIONS / (max(1, flops) * evaluations)
    chosen = spread(samples, max(1, min(MOST_SAMPLES, int(most))))
    noise = RoundingNoise(graph, ranges, chosen)
    whole = noise.of(frozenset(ranges))
    if whole >= LEAST_DECIBELS:
        return frozenset(), ""
    found = f"with 8 bits its outputs are {whole:.0f} dB above their noise"
    if most < 1:
        return frozenset(), f"{found}; it is too large to look for what should stay in floats"
    alone = {value: noise.of(frozenset([value])) for value in ranges}
    kept: frozenset[Value] = frozenset()
    left = whole
    for value in sorted(ranges, key=lambda value: alone[value]):
        if left >= LEAST_DECIBELS:
            break
        loud = {other for other in ranges if alone[other] <= alone[value]}
        kept = _with_those_between(graph, frozenset(ranges), loud)
        left = noise.of(frozenset(ranges) - kept)
    return kept, (
        f"{found}: {len(kept)} of {len(ranges)} values stay in floats, beside the processor, and "
        f"outputs are {left:.0f} dB above it"
    )


def spread(samples: Iterable[Mapping[str, Array]], count: int) -> list[Mapping[str, Array]]:
    """Some of all samples, evenly; no others are in memory at once."""
    total = sum(1 for _ in samples)
    wanted = {number * total // count for number in range(count)}
    return [sample for number, sample in enumerate(samples) if number in wanted]


@dataclass
class RoundingNoise:
    """What rounding values to 8 bits does to a graph's outputs on samples."""

    graph: Graph
    ranges: Mapping[Value, Range]
    samples: Sequence[Mapping[str, Array]]

    def __post_init__(self) -> None:
        evaluate = backend_of("reference").evaluate
        assert evaluate is not None
        self.evaluate = evaluate
        self.scales = Scales(self.graph)
        self.inputs = {value.name: value for value in self.graph.inputs}
        self.wanted = [self.evaluate(self.graph, sample) for sample in self.samples]

    def of(self, quantised: frozenset[Value]) -> float:
        """Decibels between signal and noise, of the output that has the least, with values
        quantised."""
        pairs = []
        left = {value: IN_FLOATS for value in self.ranges if value not in quantised}
        scales = self.scales.of({**self.ranges, **left})
        for sample, wanted in zip(self.samples, self.wanted, strict=True):
            given = {
                name: _noisy(self.inputs[name], array, scales) for name, array in sample.items()
            }
            pairs.append((wanted, self.evaluate(self.graph, given, _observing(scales))))
        return min(decibels(pairs).values(), default=math.inf)


def _observing(
    scales: Mapping[Value, Scale],
) -> Callable[[Node, Sequence[Array]], Sequence[Array] | None]:
    def observe(node: Node, results: Sequence[Array]) -> Sequence[Array] | None:
        if scales.keys().isdisjoint(node.outputs):
            return None
        pairs = zip(node.outputs, results, strict=True)
        return [_noisy(value, array, scales) for value, array in pairs]

    return observe


def _noisy(value: Value, array: Array, scales: Mapping[Value, Scale]) -> Array:
    return quantised_and_back(array, *scales[value]) if value in scales else array


def _with_those_between(graph: Graph, all_: frozenset[Value], loud: set[Value]) -> frozenset[Value]:
    """Values that stay, with those that are made of such ones, and that nothing but such ones and
    outputs are made of: between floats, bytes would gain nothing."""
    uses = graph.uses()
    kept = set(loud)

    @cache
    def sources(value: Value) -> set[Value]:
        made = value.producer
        if made is None:
            return set()
        found: set[Value] = set()
        for operand in made.inputs:
            if operand in all_:
                found.add(operand)
            elif not operand.is_constant:
                found |= sources(operand)
        return found

    @cache
    def results(value: Value) -> set[Value | None]:
        found: set[Value | None] = set()
        for user, _ in uses.get(value, []):
            if not isinstance(user, Node):
                found.add(None)
                continue
            for made in user.outputs:
                found |= {made} if made in all_ else results(made)
        return found

    for value in all_ - loud:
        before, behind = sources(value), results(value)
        if before and before <= loud and behind <= {*loud, None}:
            kept.add(value)
    return frozenset(kept)
