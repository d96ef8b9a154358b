"""Which products stay in floats for the noise that they make: few, and of little work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..compiler.ir.dims import Dim, evaluate, symbols_of

SHARE = 0.1  # of all multiplications, at most, that stay in floats for the noise


def worst(noise: Mapping[str, float], work: Mapping[str, float]) -> frozenset[str]:
    """The products that make most of the noise for a small share of the work; none where those do
    not make half of it."""
    left, total = sum(noise.values()), sum(noise.values())
    budget = SHARE * sum(work.values())
    found: set[str] = set()
    for key in sorted(noise, key=lambda k: noise[k] / max(work[k], 1.0), reverse=True):
        if left <= total / 4:
            break
        if work[key] <= budget and noise[key] > total / (8 * len(noise)):
            found.add(key)
            left -= noise[key]
            budget -= work[key]
    return frozenset(found) if found and left <= total / 2 else frozenset()


def noisy(keys: set[str], noise: Mapping[str, float], work: Mapping[str, float]) -> frozenset[str]:
    """The products, where they make a good part of the noise for a small share of the work.

    Nothing behind the last ones lessens what they add.
    """
    small = sum(work[key] for key in keys) <= SHARE * sum(work.values())
    loud = sum(noise[key] for key in keys) >= SHARE * sum(noise.values())
    return frozenset(keys) if small and loud else frozenset()


def count_of(shape: Sequence[Dim], sizes: Mapping[str, int]) -> float:
    """Elements; 1 for each dim that only a run knows."""
    known = (evaluate(dim, sizes) if symbols_of(dim) <= set(sizes) else 1 for dim in shape)
    return float(np.prod(list(known)))
