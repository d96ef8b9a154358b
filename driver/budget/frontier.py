"""Which groups of products to leave in floats, so that a budget is met in the least time.

Groups read different tensors, and a tensor is quantised where its readers are integer: so both the
time of a choice and, as far as noise of groups is independent, its error are sums over groups. The
minimum of time + weight * error is found group by group, and as the weight rises, groups go to
floats in the order of error by time saved: the frontier is a list, which is searched by bisection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .drops import Drop

GUESSES = 2  # of where the edge lies, before the frontier is halved
REPAIRS = 5  # evaluations, at most, of choices beside the frontier
WORTH = 0.01  # of all time saved: what a repair is tried for


@dataclass(frozen=True)
class Group:
    """A group of products. error: share of noise in the outputs where it alone is integer.
    saved: seconds (or another measure of time) of a run that integers save."""

    index: int
    error: float
    saved: float


@dataclass(frozen=True)
class Found:
    """The groups that are integer, and the drop of that; drop: None where there are none."""

    integer: frozenset[int]
    drop: Drop | None
    met: bool


Evaluate = Callable[[frozenset[int]], Drop]


def frontier(candidates: Sequence[Group]) -> list[Group]:
    """Those for which integers save time, the first to go to floats first."""
    paying = [c for c in candidates if c.saved > 0]
    return sorted(paying, key=lambda c: (-c.error / c.saved, c.index))


def search(order: Sequence[Group], evaluate: Evaluate, limit: float) -> Found:
    """The choice that meets the limit in the least time, of the frontier and close to it.

    Where none with an integer group does: that of the least drop. Takes one evaluation where all
    may be integer, else up to 1 + `GUESSES` + log2(groups), and `REPAIRS` more.
    """
    seen: dict[frozenset[int], Drop] = {}

    def drop_of(integer: frozenset[int]) -> Drop:
        if integer not in seen:
            seen[integer] = evaluate(integer)
        return seen[integer]

    def rest(count: int) -> frozenset[int]:
        return frozenset(c.index for c in order[count:])

    if not order:
        return Found(frozenset(), None, True)
    bad, good = 0, len(order)  # so many in floats are too few, are enough
    if drop_of(rest(0)).meets(limit):
        return Found(rest(0), seen[rest(0)], True)
    guesses = GUESSES
    while good - bad > 1:
        middle = (bad + good) // 2
        if guesses:
            middle = _guess(order, bad, good, limit / max(seen[rest(bad)].drop, 1e-12))
        guesses = max(guesses - 1, 0)
        if drop_of(rest(middle)).meets(limit):
            good, guesses = middle, 0
        else:
            bad = middle
    kept = rest(good)
    for integer in _repairs(order, good):
        if drop_of(kept | integer).meets(limit):
            kept |= integer
    if kept:
        return Found(kept, seen[kept], True)
    best = min(seen, key=lambda integer: (seen[integer].drop, -len(integer)))
    return Found(best, seen[best], False)


def _guess(order: Sequence[Group], bad: int, good: int, share: float) -> int:
    """How many groups to leave in floats next: so many that the drop should fall to a share.

    Answers change as the size of the noise does, that is with the root of what is summed up here.
    """
    left = sum(min(c.error, 1e30) for c in order[bad:])
    wanted = left * share**2
    count = bad
    while count < good - 1 and left > wanted:
        left -= min(order[count].error, 1e30)
        count += 1
    return min(max(count, bad + 1), good - 1)


def _repairs(order: Sequence[Group], good: int) -> list[frozenset[int]]:
    """What to make integer besides: single groups that save much; those of least error where
    nothing of the frontier is good."""
    total = sum(c.saved for c in order)
    if good == len(order):
        others = sorted(order[:-1], key=lambda c: (c.error, c.index))
    else:
        worth = [c for c in order[: good - 1] if c.saved >= WORTH * total]
        others = sorted(worth, key=lambda c: (-c.saved, c.index))
    return [frozenset({c.index}) for c in others[:REPAIRS]]
