"""Schedules: how the loops of a kernel are tiled, vectorised, ordered and shared by threads.

A schedule changes speed, never results (beyond the order of floating-point sums).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class StageSchedule:
    """How one stage is emitted.

    vector: axis along which SIMD lanes run ("" for scalar code); it may be a reduction axis.
    lanes: elements per SIMD register. vectors: registers per tile along it.
    row: axis that is tiled by `rows` steps sharing loads ("" for none).
    order: the stage's own parallel axes, outermost loop first. unroll: of the innermost
    reduction loop. prefetch: how many bytes ahead the operand that all rows share is fetched
    (0: not at all), to the cache of `prefetch_level`; so many `turns` of row tiles share that, a
    power of two. split: reduction axis (the first one) that is
    done in blocks of `block` steps, by a loop of that name in `order`; partial sums wait in memory.
    band: how many rows, a multiple of the tile's, share a block, by a loop `band_of(row)` in
    `order` around that over the blocks (0: all of them). written: a reduction of at most so many
    accumulations is written out, without loops. panel: vectors per packed panel of the operand
    that a tile reads along its lanes, a divisor of `vectors` (0: one panel is as wide as the tile).
    ordered: nothing of an unrolled step begins before the one ahead of it, for want of registers.
    """

    vector: str = ""
    lanes: int = 1
    vectors: int = 1
    row: str = ""
    rows: int = 1
    order: tuple[str, ...] = ()
    unroll: int = 1
    prefetch: int = 0
    prefetch_level: int = 1
    turns: int = 1
    split: str = ""
    block: int = 0
    band: int = 0
    written: int = 0
    panel: int = 0
    ordered: bool = False

    def tile(self, name: str) -> int:
        """Steps of an axis that one tile covers."""
        sizes = {self.vector: self.vectors * self.lanes, self.row: self.rows}
        return sizes.get(name, 1) if name else 1

    def __str__(self) -> str:
        tile = f"{self.rows}x{self.vectors * self.lanes}"
        split = f" split {self.block}" if self.split else ""
        split += f" band {self.band}" if self.band else ""
        split += f" panels of {self.panel * self.lanes}" if self.panel else ""
        return f"{tile} {self.row or '-'}x{self.vector or '-'} unroll {self.unroll}{split}"


@dataclass(frozen=True)
class Schedule:
    """Schedules of all stages, and which loops are divided among threads.

    Those are `parallel` loops of the only stage, behind the `ahead` outermost ones, which every
    thread goes through; of stages that share axes, the loops over these.
    """

    stages: tuple[StageSchedule, ...]
    parallel: int
    ahead: int = 0


def band_of(row: str) -> str:
    """The name of the loop over bands of an axis' rows, and of a band's first row."""
    return f"{row}@band"
