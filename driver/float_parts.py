"""Which products stay in floats for the noise that they make: few, and of little work."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import cache
from pathlib import Path

import numpy as np

from ..compiler.artifact import TensorSpec
from ..compiler.ir.dims import Dim, evaluate, symbols_of
from ..frontends.onnx.quantising.quantisable import Quantisable
from ..frontends.onnx.quantising.recipe import Recipe
from ..frontends.onnx.quantising.switching import switch_of
from ..passes.precision.observers import NOISE, SQUARE, compare, observed
from .graph_run import Array, compiled_graph
from .ranges_observed import share_of_noise
from .tensor_files import check_inputs

# Of all multiplications, at most, that stay in floats for the noise: VNNI multiplies bytes four
# times as fast (466 and 116 GOP/s on Zen 4), so that they take three eighths more time at most
SHARE = 0.125
# of the model, that tell what the noise in the outputs is without each product: as many as five
# rules take that are tried on 32 samples, so that this takes no more than those (a judgement)
RUNS = 160
# samples at least, for that, if there are so many: the error of their mean is a third of how much
# samples differ, so that products which make much of the noise are told from others (a judgement)
LOOKED_AT = 8
# products that are looked at anew for each that stays in floats: what saves far less by itself does
# seldom save most beside others, and each costs `LOOKED_AT` runs or more (a judgement)
AHEAD = 4
WORTH = 0.02  # of the noise in the outputs (0.1 dB), at least, that such a product makes

Pair = tuple[Mapping[str, Array], Mapping[str, Array]]


class FloatParts:
    """Looks for them in a model by a recipe. held: (inputs, outputs in floats) of samples; depths:
    the last dimension of tensors."""

    def __init__(
        self,
        source: Quantisable,
        recipe: Recipe,
        held: Sequence[Pair],
        specs: Sequence[TensorSpec],
        depths: Mapping[str, Dim],
    ) -> None:
        self.source, self.recipe, self.held, self.specs = source, recipe, held, specs
        self.products = [p for p in source.products if p.key in recipe.integer]
        self.terms = {p.key: p.terms or _count([depths[p.data]], {}) for p in self.products}

    def chosen(self, folder: Path, threads: int, note: Callable[[str], None]) -> frozenset[str]:
        """Keys of the products without which the outputs have least noise, within `SHARE`: those
        that make most of it for their work; or, where none of them matters without the others (all
        disturb what a logarithm is taken of), as many as are needed of the `RUNS` of least work."""
        note("compiling pairs of products")
        noise, work = self._local(folder, threads)
        budget = SHARE * sum(work.values())
        fit = {key: own for key, own in noise.items() if work[key] <= budget and own > 0}
        keys = self._candidates(fit)
        if not keys:
            return frozenset()
        small = _within(sorted(fit, key=work.__getitem__)[:RUNS], work, budget)
        note("compiling the model with switches")
        apart = dict.fromkeys([*keys, *sorted(small)])
        rest = [p.key for p in self.products if p.key not in apart]
        groups = [[key] for key in apart] + ([rest] if rest else [])
        graph = self.source.switched(self.recipe, groups, self.source.scores())
        run = compiled_graph(graph, folder, "parts", threads)

        def noise_of(floats: Set[str], most: int) -> float:
            """The noise in the outputs of so many samples, a share of them, with some products in
            floats."""
            note(f"trying {len(floats)} products in floats")
            on = {switch_of(n): np.array(floats.isdisjoint(own)) for n, own in enumerate(groups)}
            looked_at = self.held[:: -(-len(self.held) // most)]
            return share_of_noise((w, run({**inputs, **on})) for inputs, w in looked_at)

        @cache
        def power(floats: frozenset[str]) -> float:
            return noise_of(floats, max(LOOKED_AT, RUNS // len(keys)))

        def alone(key: str) -> float:
            return noise_of(set(work) - {key}, max(1, RUNS // len(small)))

        found = least_noise(power, keys, work, budget)
        if not power(small) <= min(power(found), power(frozenset()) / 2):  # NaN is no gain
            return found
        return fewest(power, sorted(sorted(small), key=alone, reverse=True))

    def _candidates(self, noise: Mapping[str, float]) -> list[str]:
        """Products whose own noise is largest; half of them are last ones, if so many are: nothing
        behind those lessens what they add."""
        most = RUNS // min(LOOKED_AT, len(self.held))
        order = sorted(noise, key=noise.__getitem__, reverse=True)
        last = {p.key for p in self.products if p.last}
        ends = [key for key in order if key in last][: most // 2]
        return [*ends, *(key for key in order if key not in ends)][:most]

    def _local(self, folder: Path, threads: int) -> tuple[dict[str, float], dict[str, float]]:
        """Of every product: the noise that its own operands make in its result, relative to that,
        and how many multiplications it takes."""
        graph = self.source.beside(self.recipe)
        results = {value.name: value.shape for value in graph.outputs[::2]}
        compare(graph)
        run = compiled_graph(graph, folder, "pairs", threads)
        noise, work = dict.fromkeys(results, 0.0), dict.fromkeys(results, 0.0)
        for inputs, _ in self.held:
            outputs, sizes = run(inputs), check_inputs(self.specs, inputs)
            for key, shape in results.items():
                square, lost = (float(outputs[observed(key, what)]) for what in (SQUARE, NOISE))
                noise[key] += lost / square if square > 0 else 0.0
                work[key] += _count(shape, sizes) * self.terms[key]
        return noise, work


def least_noise(
    power: Callable[[frozenset[str]], float],
    keys: Iterable[str],
    work: Mapping[str, float],
    budget: float,
) -> frozenset[str]:
    """Keys within a budget of work without which the noise (`power`) is least: those that save most
    of it for their work, each by itself, or those that save most one after the other, `WORTH` of
    all of it at least, for which the `AHEAD` that saved most before are looked at anew.
    """
    none = frozenset[str]()
    total = power(none)
    if total <= 0:
        return none
    saved = {key: total - power(frozenset({key})) for key in keys}
    saved = {key: own for key, own in saved.items() if own >= WORTH * total}
    best = sorted(saved, key=lambda key: saved[key] / max(work[key], 1.0), reverse=True)
    small = _within(best, work, budget)
    found, now = none, total
    while saved:
        fit = [key for key in saved if work[key] <= budget]
        fit = sorted(fit, key=saved.__getitem__, reverse=True)[:AHEAD]
        if found:
            saved |= {key: now - power(found | {key}) for key in fit}
        first = max(fit, key=saved.__getitem__, default="")
        if not first or saved[first] < WORTH * total:
            break
        found, now, budget = found | {first}, now - saved.pop(first), budget - work[first]
    return small if power(small) < now else found


def fewest(power: Callable[[frozenset[str]], float], order: Sequence[str]) -> frozenset[str]:
    """The first of some products, a power of two or all, without which there is little more noise
    (`WORTH` of what there is with all) than without any of them."""
    enough = power(frozenset(order)) + WORTH * power(frozenset())
    counts = (1 << n for n in range(len(order).bit_length()))
    return next((own for n in counts if power(own := frozenset(order[:n])) <= enough),
                frozenset(order))  # fmt: skip


def _within(order: Iterable[str], work: Mapping[str, float], budget: float) -> frozenset[str]:
    """The products that a budget of work has room for, one after the other."""
    found = set[str]()
    for key in order:
        if work[key] <= budget:
            found.add(key)
            budget -= work[key]
    return frozenset(found)


def _count(shape: Sequence[Dim], sizes: Mapping[str, int]) -> float:
    """Elements; 1 for each dim that only a run knows."""
    known = (evaluate(dim, sizes) if symbols_of(dim) <= set(sizes) else 1 for dim in shape)
    return float(np.prod(list(known)))
