"""A register tile: its size, the places of its values, and what they depend on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llvmlite import ir

from ....compiler.ir.dims import symbols_of
from ....compiler.kernel import expr as ex
from .builder import I1, Emitter
from .indices import Int

Slot = tuple[int, int]  # (row, vector) within the tile


@dataclass(frozen=True)
class Shape:
    """What the tile covers. mask: live lanes of its last vector, `left` of them; None: all are.

    panel: vectors per packed panel, where the tile covers several (0: it covers one).
    """

    row: str
    rows: int
    vector: str
    lanes: int
    vectors: int
    mask: ir.Value | None = None
    panel: int = 0
    left: Int | None = None

    def slots(self) -> list[Slot]:
        """Every (row, vector)."""
        return [(r, v) for r in range(self.rows) for v in range(self.vectors)]

    def panel_start(self, v: int) -> int:
        """The first lane of vector v's panel, counted from the first panel's."""
        return v // self.panel * self.panel * self.lanes if self.panel else 0

    def left_of(self, v: int) -> Int | None:
        """How many lanes of vector v are live; None: all."""
        return self.left if v == self.vectors - 1 else None

    def mask_of(self, v: int) -> ir.Value | None:
        """The mask of vector v."""
        return self.mask if v == self.vectors - 1 else None


@dataclass
class Guard:
    """Conditions under which memory may be touched now.

    place: the slot they are for; -1 for its row or vector where they hold for all.
    """

    scalar: ir.Value | None = None
    lanes: ir.Value | None = None
    key: tuple[int, ...] = ()
    place: Slot = (-1, -1)

    def covers(self, slot: Slot) -> bool:
        """Whether the conditions are those of this slot, too."""
        return all(own in (-1, other) for own, other in zip(self.place, slot, strict=True))


def symbols_in(bounds: Iterable[ex.Bound]) -> set[str]:
    """The axes and symbolic dims that bounds depend on."""
    return {name for b in bounds for dim in (b.index, b.low, b.high) for name in symbols_of(dim)}


@dataclass(frozen=True)
class Address:
    """An offset split as base + row*r + vector*v + panel*p + sum(step_k * k), all known before.

    p: `Shape.panel_start` of the vector. looked: what is added besides, by numbers that a table has
    for a step, and the factor of each.
    """

    base: ir.Value
    row: Int
    vector: Int
    steps: tuple[tuple[str, Int], ...]
    panel: Int = 0
    looked: tuple[tuple[ex.Expr, Int], ...] = ()


@dataclass(frozen=True)
class Access:
    """Where elements are: `pointer` to one, or to the first of `lanes` neighbours.

    apart: the lanes' elements are anywhere, and `pointer` is a vector of their addresses.
    """

    pointer: ir.Value
    lanes: int
    apart: bool = False


def lane_mask(e: Emitter, lanes: int, live: Int) -> ir.Value | None:
    """Lanes [0, live) of a vector; None when that is all of them."""
    if lanes == 1:
        return None
    if isinstance(live, int):
        if live >= lanes:
            return None
        return ir.Constant(ir.VectorType(I1, lanes), [int(i < live) for i in range(lanes)])
    return e.b.icmp_signed("<", e.lane_numbers(lanes), e.splat(live, lanes))
