"""From verdicts about kernels to a binary: is it faster as a whole?

Kernels disturb each other, and a verdict may be wrong; so the binary with all choices is timed
against the one without any. Where it is not faster, the least sure half of the choices is left out,
and so on. What comes of it is a function of the outcomes that are written down. A candidate here
is a set of choices, whatever they decide: about kernels, or about whole segments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from .statistics import interval
from .task import packed

MOST_REBUILDS = 4  # after the binary with all choices
FASTER = 0.99  # ratio that the upper end of the interval has to reach


@dataclass(frozen=True)
class Alternative:
    """Something that can be chosen otherwise than a compilation does by itself.

    key: of a task, or of a segment. identity: everything that decides what becomes of it, as text.
    choices: by the key under which a compilation looks them up.
    """

    key: str
    name: str
    identity: str
    choices: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Paired:
    """How a tuned binary does against the untuned one. ratios: of times, of so many pairs of
    processes. untuned, tuned: seconds of a run. problem: why it cannot be taken, whatever its
    time."""

    ratios: tuple[float, ...] = ()
    untuned: float = 0.0
    tuned: float = 0.0
    problem: str = ""

    @property
    def interval(self) -> tuple[float, float]:
        """That holds the ratio at 95 %."""
        return interval(self.ratios) if self.ratios else (1.0, 1.0)

    @property
    def accepted(self) -> bool:
        """Whether the tuned one is faster, beyond doubt and by enough."""
        return not self.problem and bool(self.ratios) and self.interval[1] <= FASTER

    def to_json(self) -> dict[str, Any]:
        """What is written down."""
        low, high = self.interval
        return {
            "ratio": median(self.ratios) if self.ratios else 1.0, "low": low, "high": high,
            "pairs": len(self.ratios), "untuned": self.untuned, "tuned": self.tuned,
            "accepted": self.accepted, "problem": self.problem,
        }  # fmt: skip


@dataclass(frozen=True)
class Decided:
    """What is known so far. chosen: what a binary takes. outcome: of the binary that decided, or
    None. following: the set to be timed next; None: there is none."""

    chosen: tuple[Alternative, ...] = ()
    outcome: Mapping[str, Any] | None = None
    following: tuple[Alternative, ...] | None = None


def sets_of(alternatives: Sequence[Alternative]) -> list[tuple[Alternative, ...]]:
    """What is timed, one after the other: all, then the surer half of the last.

    alternatives: the surest first.
    """
    found: list[tuple[Alternative, ...]] = []
    count = len(alternatives)
    while count and len(found) <= MOST_REBUILDS:
        found.append(tuple(alternatives[:count]))
        count = count // 2
    return found


def decide(
    alternatives: Sequence[Alternative], outcomes: Mapping[str, Mapping[str, Any]]
) -> Decided:
    """What to take, or to time next. outcomes: by `set_hash`."""
    last = None
    for one in sets_of(alternatives):
        outcome = outcomes.get(set_hash(one))
        if outcome is None:
            return Decided(outcome=last, following=one)
        if outcome["accepted"]:
            return Decided(one, outcome)
        last = outcome
    return Decided(outcome=last)


def set_hash(alternatives: Sequence[Alternative]) -> str:
    """A digest of a set, in any order. SHA-256."""
    text = packed(sorted(own.identity for own in alternatives))
    return hashlib.sha256(text.encode()).hexdigest()


def choices_in(alternatives: Sequence[Alternative]) -> dict[str, Mapping[str, Any]]:
    """All choices of a set, by key."""
    return {key: choice for own in alternatives for key, choice in own.choices.items()}
