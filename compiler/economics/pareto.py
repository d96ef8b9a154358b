"""Which of several points are best in something, and whether that lasts when figures move."""

from __future__ import annotations

from collections.abc import Sequence


def frontier(points: Sequence[Sequence[float]]) -> list[int]:
    """Numbers of the points that no other dominates: is as low in all figures and lower in one.

    Of equal points the first stays.
    """
    found = []
    for n, point in enumerate(points):
        others = ((m, other) for m, other in enumerate(points) if m != n)
        if not any(_dominates(other, point, first=m < n) for m, other in others):
            found.append(n)
    return found


def _dominates(other: Sequence[float], point: Sequence[float], *, first: bool) -> bool:
    if any(a > b for a, b in zip(other, point, strict=True)):
        return False
    return first or any(a < b for a, b in zip(other, point, strict=True))


def ranks(values: Sequence[float]) -> list[int]:
    """The place of each value, from 0 for the least; equal ones in their order."""
    order = sorted(range(len(values)), key=lambda n: (values[n], n))
    found = [0] * len(values)
    for place, n in enumerate(order):
        found[n] = place
    return found
