"""Work in parts: what one program of each leaves in memory, a second function puts together.

Of sums it adds up the parts in their order, and computes what is made of them: results do not
depend on which program was done first, and no program waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ....compiler.ir.dims import Dim, ceildiv, dmax, dmin, floordiv, product, symbol
from ....compiler.ir.types import DType
from ....compiler.kernel.expr import Acc, Buffer, Load
from ....compiler.kernel.kernel import Stage, Store, linear_of
from ....compiler.kernel.schedule.tiles import Kind, Tiles
from .points import decode, program, span
from .text import Lines
from .types import TAKES
from .values import DeviceTile, Pointers, Term

WORKSPACE, PART = "$parts", "$part"  # the buffer of all parts, the number of a program's
TOTAL = Tiles(Kind.POINTS, 1, 256)  # of the function that adds up parts


@dataclass(frozen=True)
class Division:
    """How what programs go over is divided. parts: how many there are; dtype: of what each leaves
    in memory, bytes: of all of it."""

    stage: Stage
    parts: Dim
    dtype: DType
    bytes: int

    @property
    def buffer(self) -> Buffer:
        """The memory of all parts."""
        return Buffer(WORKSPACE, self.dtype)

    def store_either(self, tile: DeviceTile, store: Callable[[], None]) -> None:
        """What a program leaves by `store`; where it is the only part, which only a run may know,
        what the stage stores."""
        if isinstance(self.parts, int):
            store()
            return
        with tile.lines.block(f"if {tile.offset(self.parts).text} == 1:"):
            tile.store_all(self.stage.stores)
        with tile.lines.block("else:"):
            store()

    def programs(self, points: Dim) -> Dim:
        """How many programs add up the parts of so many points: none where there is one part."""
        count = ceildiv(points, TOTAL.columns)
        return count if isinstance(self.parts, int) else count * (dmin(self.parts, 2) - 1)

    def steps(self, tile: DeviceTile, steps: Dim) -> tuple[str, str]:
        """(first, behind the last) of the steps of a program's part."""
        each = tile.offset(ceildiv(steps, self.parts))
        first = tile.named(f"{tile.env[PART].text} * {each.text}")
        last = tile.named(f"tl.minimum({first.text} + {each.text}, {tile.offset(steps).text})")
        return first.text, last.text


@dataclass(frozen=True)
class Split(Division):
    """How the sums of a stage are divided; dtype: of a sum."""

    @property
    def points(self) -> Dim:
        """Results of each sum."""
        return product(axis.extent for axis in self.stage.axes)

    def place(self, part: Dim, number: int) -> Dim:
        """Where a part of sum `number` lies: those of a part behind those of the one before."""
        which = part * len(self.stage.reductions) + number
        return which * self.points + linear_of(self.stage.axes)

    def store(self, tile: DeviceTile) -> None:
        """Store the accumulators of a tile as the parts that they are."""
        sums = tuple(
            Store(self.buffer, self.place(symbol(PART), number), Acc(number, self.dtype))
            for number in range(len(self.stage.reductions))
        )
        self.store_either(tile, lambda: tile.store_all(sums))


def most_parts(tiles: Tiles, blocks: Dim) -> Dim:
    """As many parts as the tiles say, but of blocks that only a run counts no more than make as
    many programs as keep the target busy: what they leave has a known size then."""
    return dmin(tiles.split, dmax(1, floordiv(tiles.busy, dmax(1, blocks))))


def split_of(stage: Stage, tiles: Tiles, blocks: Dim, dtype: DType) -> Split | None:
    """How the sums of a stage are divided, whose results are so many blocks of a program each;
    None: they are not. dtype: of a sum."""
    if tiles.split == 1:
        return None
    points = product(axis.extent for axis in stage.axes)
    sums = len(stage.reductions) * dtype.bytes
    if isinstance(points, int):
        return Split(stage, tiles.split, dtype, tiles.split * points * sums)
    area = tiles.busy * tiles.rows * tiles.columns
    return Split(stage, most_parts(tiles, blocks), dtype, area * sums)


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
        name, takes = f"acc{number}", TAKES[stage.reductions[number].kind]
        lines.add(f"{name} = {loaded[0].text}")
        for part in loaded[1:]:
            lines.add(f"{name} = " + takes.format(a=name, x=part.text))
        tile.accumulators.append(Term(name, frozenset({"i"})))
    if not isinstance(parts, int):
        with lines.block(f"for part in range(1, {tile.offset(parts).text}):"):
            tile.env[PART] = Term("part")
            for number, total in enumerate(tile.accumulators):
                part = tile.value(Load(split.buffer, split.place(symbol(PART), number)))
                takes = TAKES[stage.reductions[number].kind]
                lines.add(f"{total.text} = " + takes.format(a=total.text, x=part.text))
    tile.store_all(stage.stores)
    return split.programs(split.points)
