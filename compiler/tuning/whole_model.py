"""From verdicts about kernels to a binary: is it faster as a whole?

Kernels disturb each other, and a verdict may be wrong; so the binary with all choices is timed
against the one without any. Where it is not faster, the least sure half of the choices is left out,
and so on. What comes of it is a function of the outcomes that are written down. A candidate here
is a set of choices, whatever they decide: about kernels, or about whole segments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from ..ir.groups import group_of
from .statistics import interval
from .task import PROTOCOL, GraphAlternative, packed

MOST_REBUILDS = 4  # after the binary with all choices
FASTER = 0.99  # ratio that the upper end of the interval has to reach


@dataclass(frozen=True)
class Alternative:
    """Something that can be chosen otherwise than a compilation does by itself.

    key: of a task, or of a `GraphAlternative`. identity: everything that decides what becomes of
    it, as text. choices: by the key under which a compilation looks them up. replaces: groups
    the choices for which mean nothing beside it. in_graph: it is no task's.
    """

    key: str
    name: str
    identity: str
    choices: Mapping[str, Mapping[str, Any]]
    replaces: frozenset[str] = frozenset()
    in_graph: bool = False

    def to_json(self) -> dict[str, Any]:
        """All of it; sets are sorted."""
        return {**vars(self), "replaces": sorted(self.replaces)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Alternative:
        """What `to_json` wrote."""
        return cls(**{**data, "replaces": frozenset(data["replaces"])})


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
        """What is written down; the rest of it follows from times, ratios and problem."""
        low, high = self.interval
        return {
            "ratios": list(self.ratios),
            "ratio": median(self.ratios) if self.ratios else 1.0, "low": low, "high": high,
            "pairs": len(self.ratios), "untuned": self.untuned, "tuned": self.tuned,
            "accepted": self.accepted, "problem": self.problem,
        }  # fmt: skip


def judged_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result of an outcome with what its `ratios` say in place of what it claims of them."""
    paired = Paired(
        tuple(result["ratios"]), result["untuned"], result["tuned"], result["problem"]
    )  # fmt: skip
    return {**result, **paired.to_json()}


@dataclass(frozen=True)
class Decided:
    """What is known so far. chosen: what a binary takes. outcome: of the binary that decided, or
    None. following: the set to be timed next; None: there is none. over: the set that it is timed
    against; None: the untuned binary."""

    chosen: tuple[Alternative, ...] = ()
    outcome: Mapping[str, Any] | None = None
    following: tuple[Alternative, ...] | None = None
    over: tuple[Alternative, ...] | None = None


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
    alternatives: Sequence[Alternative],
    outcomes: Mapping[str, Mapping[str, Any]],
    graph: Sequence[Alternative] = (),
) -> Decided:
    """What to take, or to time next.

    outcomes: by `set_hash`, or `step_hash`. graph: what the whole graph could do otherwise; each is
    tried on top of what was taken before it, and what comes of that is timed against the untuned
    binary again.
    """
    decided = _of_tasks(alternatives, outcomes)
    if decided.following is not None:
        return decided
    current = decided.chosen
    for own in graph:
        following = joined(current, own)
        step = outcomes.get(step_hash(following, current))
        if step is None:
            return replace(decided, following=following, over=current)
        if step["accepted"]:
            current = following
    if current == decided.chosen:
        return decided
    whole = outcomes.get(set_hash(current))
    if whole is None:
        return replace(decided, following=current)
    return Decided(current, whole) if whole["accepted"] else decided


def _of_tasks(
    alternatives: Sequence[Alternative], outcomes: Mapping[str, Mapping[str, Any]]
) -> Decided:
    last = None
    for one in sets_of(alternatives):
        outcome = outcomes.get(set_hash(one))
        if outcome is None:
            return Decided(outcome=last, following=one)
        if outcome["accepted"]:
            return Decided(one, outcome)
        last = outcome
    return Decided(outcome=last)


def joined(chosen: Sequence[Alternative], own: Alternative) -> tuple[Alternative, ...]:
    """A set with one more, without those that mean nothing beside it."""
    kept = (one for one in chosen if not own.replaces & set(map(group_of, one.choices)))
    return (*kept, own)


def step_hash(chosen: Sequence[Alternative], over: Sequence[Alternative]) -> str:
    """A digest of a set that is timed against another one; of one that is none, `set_hash`."""
    return f"{set_hash(chosen)} over {set_hash(over)}" if over else set_hash(chosen)


def alternative_in_graph(own: GraphAlternative, machine: str) -> Alternative:
    """What the whole graph can do otherwise, on a class of machines."""
    identity = packed([own.key, machine, PROTOCOL, dict(own.choices)])
    return Alternative(own.key, own.name, identity, own.choices, own.replaces, in_graph=True)


def set_hash(alternatives: Sequence[Alternative]) -> str:
    """A digest of a set, in any order. SHA-256."""
    text = packed(sorted(own.identity for own in alternatives))
    return hashlib.sha256(text.encode()).hexdigest()


def choices_in(alternatives: Sequence[Alternative]) -> dict[str, Mapping[str, Any]]:
    """All choices of a set, by key; those for one key are joined."""
    found: dict[str, Mapping[str, Any]] = {}
    for own in alternatives:
        for key, choice in own.choices.items():
            found[key] = {**found.get(key, {}), **choice}
    return found
