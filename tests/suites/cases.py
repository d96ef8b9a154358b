"""The table of all operator cases."""

from __future__ import annotations

from . import (
    contractions,
    control,
    halves,
    movement,
    packed,
    patterns,
    pointwise,
    quantisation,
    reductions,
    selection,
)
from .case import Case, compare

__all__ = ["ALL_CASES", "Case", "compare"]

ALL_CASES: list[Case] = [
    *pointwise.CASES,
    *reductions.CASES,
    *contractions.CASES,
    *movement.CASES,
    *control.CASES,
    *patterns.CASES,
    *selection.CASES,
    *quantisation.CASES,
    *halves.CASES,
    *packed.CASES,
]
