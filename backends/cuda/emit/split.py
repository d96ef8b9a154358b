"""Sums in parts: each is what one program adds up, into memory that a second function reads.

The second adds the parts in their order, and computes what is made of the sums: results do not
depend on which program was done first, and no program waits for another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ....compiler.ir.dims import Dim, ceildiv, dmax, dmin, floordiv, product, symbol
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Acc, Buffer, Load
from ....compiler.kernel.kernel import Stage, Store, linear_of
from ....compiler.kernel.schedule.tiles import Kind, Tiles
from .points import decode, program, span
from .text import Lines
from .values import DeviceTile, Pointers, Term

WORKSPACE, PART = "$parts", "$part"  # the buffer of all parts, the number of a program's
TOTAL = Tiles(Kind.POINTS, 1, 256)  # of the function that adds up parts


@dataclass(frozen=True)
class Split:
    """How the sums of a stage are divided. parts: of each; dtype: of a sum; bytes: of all parts."""

    stage: Stage
    parts: Dim
    dtype: DType
    bytes: int

    @property
    def points(self) -> Dim:
        """Results of each sum."""
        return product(axis.extent for axis in self.stage.axes)

    def place(self, part: Dim, number: int) -> Dim:
        """Where a part of sum `number` lies: those of a part behind those of the one before."""
        which = part * len(self.stage.reductions) + number
        return which * self.points + linear_of(self.stage.axes)

    @property
    def buffer(self) -> Buffer:
        """The memory of all parts."""
        return Buffer(WORKSPACE, self.dtype)

    def store(self, tile: DeviceTile) -> None:
        """Store the accumulators of a tile as the parts that they are; where there is one of each
        sum, which only a run may know, what is made of them."""
        sums = tuple(
            Store(self.buffer, self.place(symbol(PART), number), Acc(number, self.dtype))
            for number in range(len(self.stage.reductions))
        )
        if isinstance(self.parts, int):
            tile.store_all(sums)
            return
        with tile.lines.block(f"if {tile.offset(self.parts).text} == 1:"):
            tile.store_all(self.stage.stores)
        with tile.lines.block("else:"):
            tile.store_all(sums)


def split_of(stage: Stage, tiles: Tiles, blocks: Dim, dtype: DType) -> Split | None:
    """How the sums of a stage are divided, whose results are so many blocks of a program each;
    None: they are not. dtype: of a sum.

    As many parts as the tiles say; where a run knows how many blocks there are, at most as many as
    make no more programs than keep the target busy: so the parts have a known size.
    """
    if tiles.split == 1:
        return None
    points = product(axis.extent for axis in stage.axes)
    sums = len(stage.reductions) * dtype.bytes
    if isinstance(points, int):
        return Split(stage, tiles.split, dtype, tiles.split * points * sums)
    parts = dmin(tiles.split, dmax(1, floordiv(tiles.busy, dmax(1, blocks))))
    return Split(stage, parts, dtype, tiles.busy * tiles.rows * tiles.columns * sums)


def part_steps(tile: DeviceTile, split: Split, steps: Dim) -> tuple[str, str]:
    """(first, behind the last) of the steps of a program's part."""
    each = tile.offset(ceildiv(steps, split.parts))
    first = tile.named(f"{tile.env[PART].text} * {each.text}")
    last = tile.named(f"tl.minimum({first.text} + {each.text}, {tile.offset(steps).text})")
    return first.text, last.text


def emit_total(
    lines: Lines,
    split: Split,
    index: str,
    pointers: Pointers,
    names: Mapping[str, str],
) -> Dim:
    """Emit the function that adds up parts, and stores what is made of the sums; how many programs
    it takes: none where there is one part of each sum."""
    stage = split.stage
    env = {name: Term(text) for name, text in names.items()}
    tile = DeviceTile(lines, {"i": TOTAL.columns}, index, pointers, env)
    decode(tile, span(tile, "i", program(tile), split.points), stage.axes)
    parts = split.parts
    known = parts if isinstance(parts, int) else 1
    for number in range(len(stage.reductions)):
        loaded = [tile.value(Load(split.buffer, split.place(n, number))) for n in range(known)]
        name = f"acc{number}"
        lines.add(f"{name} = " + " + ".join(part.text for part in loaded))
        tile.accumulators.append(Term(name, frozenset({"i"})))
    if not isinstance(parts, int):
        with lines.block(f"for part in range(1, {tile.offset(parts).text}):"):
            tile.env[PART] = Term("part")
            for number, total in enumerate(tile.accumulators):
                part = tile.value(Load(split.buffer, split.place(symbol(PART), number)))
                lines.add(f"{total.text} += {part.text}")
    tile.store_all(stage.stores)
    programs = ceildiv(split.points, TOTAL.columns)
    return programs if isinstance(parts, int) else programs * (dmin(parts, 2) - 1)
