"""What measured times of other kernels let expect of a candidate: a linear model of its features.

The weights are in `prior.json`; `python -m benchmarks.tuning_prior` fits them anew to the times in
`benchmarks/tuning_samples.json`, to which it adds those of records files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from .features import FEATURES

FILE = Path(__file__).with_name("prior.json")


def expected(features: Sequence[float], base: Sequence[float]) -> float:
    """The logarithm of a candidate's time as a share of the base's."""
    return sum(w * (own - its) for w, own, its in zip(_weights(), features, base, strict=True))


@cache
def _weights() -> tuple[float, ...]:
    """By feature; one that the fit did not know counts nothing."""
    known = json.loads(FILE.read_text(encoding="utf-8"))["weights"]
    return tuple(float(known.get(name, 0.0)) for name in FEATURES)
