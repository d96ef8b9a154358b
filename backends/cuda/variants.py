"""The functions of a kernel for all architectures of a target: those with equal tiles together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...compiler.errors import ScheduleError
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

    def part(
        self,
        tiles: Sequence[Tiles],
        place: int,
        architectures: Sequence[int],
        alternative: int = 0,
    ) -> Part:
        """One part, for some architectures. tiles: of all parts. alternative: its number among
        those that a GPU has for it."""
        kernel = self.kernel
        if self.target.architectures[0] not in architectures:
            kernel = replace(kernel, name=f"{kernel.name}_sm_{architectures[0]}")
        if alternative:
            kernel = replace(kernel, name=f"{kernel.name}_or_{alternative}")
        own = functions_of(kernel, tiles, self.aligned, self.index)[place]
        if tiles[place].maps and not all(own[0].aligned):
            raise ScheduleError(
                f"'{self.kernel.name}' cannot have tensor maps",
                why="a factor begins at no multiple of 16 bytes",
                remedy="leave out maps",
            )
        name, numbers = f"{self.kernel.name}_{place}", tuple(architectures)
        return tuple(
            replace(f, part=name, place=place, alternative=alternative, architectures=numbers)
            for f in own
        )
