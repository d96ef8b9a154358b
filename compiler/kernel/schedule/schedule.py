"""Schedules: how the loops of a kernel are tiled, vectorised, ordered and shared by threads.

A schedule changes speed, never results (beyond the order of floating-point sums). Every decision
that code generation obeys is in it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...ir.dims import Dim
from .tiles import Tiles


@dataclass(frozen=True)
class RegisterTile:
    """What is computed at once: `rows` steps of one axis by `vectors` registers along another.

    vector: axis along which SIMD lanes run ("" for scalar code); it may be a reduction axis.
    lanes: elements per register. row: axis whose steps share loads ("" for none). rests: the sizes
    of smaller tiles, falling to 1, for rows that are left where only a run knows how many.
    """

    vector: str = ""
    lanes: int = 1
    vectors: int = 1
    row: str = ""
    rows: int = 1
    rests: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Elements along the vector axis."""
        return self.lanes * self.vectors

    def span(self, axis: str) -> int:
        """Steps of an axis that the tile covers."""
        sizes = {self.vector: self.width, self.row: self.rows}
        return sizes.get(axis, 1) if axis else 1


@dataclass(frozen=True)
class Blocks:
    """A sum in blocks of so many steps of its first axis; partial sums wait in memory.

    axis: that one ("": not in blocks), whose loop over the blocks is in `order` under its name.
    band: how many rows, a multiple of the tile's, share a block, by a loop `band_of(row)` in
    `order` around that over the blocks (0: all of them).
    """

    axis: str = ""
    steps: int = 0
    band: int = 0


@dataclass(frozen=True)
class Prefetch:
    """What is fetched before it is read.

    ahead: how many bytes ahead the operand that all rows share is fetched (0: not at all), to the
    cache of `level`. turns: so many row tiles share that, a power of two. epilogue: what follows
    the sums and is read at every element, a residual for instance, is fetched during them.
    """

    ahead: int = 0
    level: int = 1
    turns: int = 1
    epilogue: bool = False


@dataclass(frozen=True)
class Unrolling:
    """How the loops over the steps of a sum are written out.

    unroll: of the innermost one. written: a sum of at most so many accumulations, and at most
    `written_steps` steps, has no loops. accumulators: where a tile has fewer, a sum is done in
    parts side by side (at most `parts` of at least `part_steps` steps), and none waits for itself.
    ordered: nothing of a step begins before the one ahead of it, for want of registers. abreast: so
    many transcendental functions are computed side by side.
    """

    unroll: int = 1
    written: int = 0
    written_steps: int = 32
    accumulators: int = 8
    parts: int = 4
    part_steps: int = 16
    ordered: bool = False
    abreast: int = 4

    def writes_out(self, extents: Iterable[Dim], sums: int) -> bool:
        """Whether loops of such extents, for so many sums at once, are written out as a whole."""
        steps = 1
        for extent in extents:
            if not isinstance(extent, int):
                return False
            steps *= extent
        return steps <= self.written_steps and steps * sums <= self.written


@dataclass(frozen=True)
class StageSchedule:
    """How one stage is emitted.

    order: the stage's own parallel axes, outermost loop first. panel: vectors per packed panel of
    the operand that a tile reads along its lanes, a divisor of the tile's (0: one panel is as wide
    as the tile). instruction: what computes its products of groups (`instruction.py`; "": a
    multiply-add).
    """

    tile: RegisterTile = RegisterTile()
    order: tuple[str, ...] = ()
    blocks: Blocks = Blocks()
    prefetch: Prefetch = Prefetch()
    unrolling: Unrolling = Unrolling()
    panel: int = 0
    instruction: str = ""

    def __str__(self) -> str:
        tile, blocks = self.tile, self.blocks
        split = f" split {blocks.steps}" if blocks.axis else ""
        split += f" band {blocks.band}" if blocks.band else ""
        split += f" panels of {self.panel * tile.lanes}" if self.panel else ""
        split += f" by {self.instruction}" if self.instruction else ""
        axes = f"{tile.row or '-'}x{tile.vector or '-'}"
        return f"{tile.rows}x{tile.width} {axes} unroll {self.unrolling.unroll}{split}"


@dataclass(frozen=True)
class Schedule:
    """Schedules of all stages, and which loops are divided among threads.

    Those are `parallel` loops of the only stage, behind the `ahead` outermost ones, which every
    thread goes through; of stages that share axes, the loops over these. fork: a call is divided
    from so many operations on. tiles: of a kernel that a device computes by programs, for each of
    its functions. architectures: of the device that have other tiles than these, with them.
    """

    stages: tuple[StageSchedule, ...]
    parallel: int
    ahead: int = 0
    fork: int = 0
    tiles: tuple[Tiles, ...] = ()
    architectures: tuple[tuple[int, tuple[Tiles, ...]], ...] = ()
