"""The functions of a kernel for all architectures of a target: those with equal tiles together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...compiler.kernel.kernel import Kernel
from ...compiler.kernel.schedule.schedule import Schedule
from ...compiler.kernel.schedule.tiles import Tiles
from ...compiler.target import GpuTarget
from .choosing import Architectures
from .emit.function import functions_of
from .vetting import Part


def tiles_for(schedule: Schedule, target: GpuTarget) -> Architectures:
    """The tiles of every architecture of a target."""
    others = dict(schedule.architectures)
    return {number: others.get(number, schedule.tiles) for number in target.architectures}


@dataclass(frozen=True)
class PartMaker:
    """Makes the functions of one kernel. aligned, index: as of `functions_of`."""

    kernel: Kernel
    target: GpuTarget
    aligned: frozenset[int]
    index: str

    def parts(self, schedule: Schedule) -> tuple[Part, ...]:
        """Every part, once for all architectures that have the same tiles of it."""
        tiles = tiles_for(schedule, self.target)
        made = []
        for place in range(len(schedule.tiles)):
            groups: dict[Tiles, list[int]] = {}
            for number, own in tiles.items():
                groups.setdefault(own[place], []).append(number)
            made += [self.part(tiles[own[0]], place, own) for own in groups.values()]
        return tuple(made)

    def part(self, tiles: Sequence[Tiles], place: int, architectures: Sequence[int]) -> Part:
        """One part, for some architectures. tiles: of all parts."""
        kernel = self.kernel
        if self.target.architectures[0] not in architectures:
            kernel = replace(kernel, name=f"{kernel.name}_sm_{architectures[0]}")
        own = functions_of(kernel, tiles, self.aligned, self.index)[place]
        name, numbers = f"{self.kernel.name}_{place}", tuple(architectures)
        return tuple(replace(f, part=name, place=place, architectures=numbers) for f in own)
