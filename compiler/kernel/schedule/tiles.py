"""Tiles: how the points of a kernel are shared by the programs of a device's launch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

Band = tuple[int, int, int, int]


class Kind(Enum):
    """How a function goes over its points.

    POINTS: one by one. ROWS: blocks of rows, along which are reductions and stages. PRODUCT: tiles
    of products of matrices. ATTENTION: blocks of queries, which go over blocks of keys.
    """

    POINTS = "points"
    ROWS = "rows"
    PRODUCT = "product"
    ATTENTION = "attention"


@dataclass(frozen=True)
class Tiles:
    """What one program computes: a block of rows by columns, in steps of `depth` of a sum.

    POINTS: columns alone. ROWS: columns are steps of the reductions, of stages' own axes too.
    group: of a product, so many rows of blocks are gone through together, column by column.
    ATTENTION: queries by elements of a value, in steps of so many keys.
    split: parts that each sum is divided into, one for a program; a second function adds them up.
    busy: programs that keep the target busy: where only a run knows how many blocks there are, sums
    have no more parts than make so many.
    band: of attention, (behind, ahead, first, last): query number r of a matrix may see keys from
    r - behind to r + ahead, from the first to the last, whatever the data is; None: all.
    looks: of attention, whether programs look at the mask for the keys that their queries see.
    programs: of a product, so many go over all blocks, one block after the other; 0: each block has
    a program. maps: whether the factors of these come by tensor maps.
    warps: of 32 threads each. stages: how many steps of the sum are loaded ahead. tf32: whether
    factors of f32 are multiplied with 11 bits each, by tensor cores. fp8: whether 8-bit floats are
    multiplied as they are, else as f16. packed: steps of the rows that
    the left and the right factor, if it is constant, is stored in (0: as it was).
    """

    kind: Kind
    rows: int
    columns: int
    depth: int = 1
    warps: int = 4
    stages: int = 1
    group: int = 1
    split: int = 1
    busy: int = 1
    programs: int = 0
    maps: bool = False
    tf32: bool = False
    fp8: bool = False
    packed: tuple[int, int] = (0, 0)
    band: Band | None = None
    looks: bool = False

    def __str__(self) -> str:
        block = f"{self.rows}x{self.columns}" + f"x{self.depth}" * (self.depth > 1)
        ahead = f", {self.stages} stages" if self.stages > 1 else ""
        ahead += f", groups of {self.group}" * (self.group > 1)
        ahead += f", sums in {self.split} parts" * (self.split > 1)
        ahead += f", {self.programs} programs" * (self.programs > 0) + ", maps" * self.maps
        return f"{self.kind.value} {block}, {self.warps} warps{ahead}" + ", tf32" * self.tf32
