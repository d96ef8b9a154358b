"""From a kernel as it was lowered to one that a GPU runs: tiles, and constants packed for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...compiler.errors import ScheduleError
from ...compiler.ir.dims import product
from ...compiler.kernel.kernel import Kernel
from ...compiler.kernel.schedule.choice import Choice, TileChoice
from ...compiler.kernel.schedule.choices import Choices
from ...compiler.kernel.schedule.chooser import Chooser, Chosen, Request
from ...compiler.kernel.schedule.schedule import Schedule, StageSchedule
from ...compiler.kernel.schedule.tiles import Kind, Tiles
from ...compiler.target import GpuTarget
from .attention_kernel import attention_of
from .candidates import candidates, shared_bytes
from .dots import AS_WRITTEN, Arithmetic
from .emit.function import functions_of, parts_of
from .emit.tensor_maps import matrices_of
from .emit.types import NoDeviceCode
from .hidden_keys import band_of, looks_at_masks
from .packing import pack_factors
from .targets import targets_of
from .tiles import (
    LEAST_BLOCK,
    can_divide_rows,
    key_split,
    power_of_two,
    problem_of,
    problem_of_part,
    row_split_of,
    tiles_of,
)

Architectures = dict[int, tuple[Tiles, ...]]  # of each, the tiles of all parts of a kernel
MOST_WARPS, MOST_STAGES, MOST_ELEMENTS, MOST_PARTS = 16, 8, 1 << 17, 64
MOST_PART_ELEMENTS = 2**31 - 1  # whose places are 32-bit offsets
MOST_PROGRAMS = 1 << 16  # that go over several blocks
TENSOR_MAPS = "tma"  # the instruction


@dataclass(frozen=True)
class GpuChooser:
    """Gives kernels that the device has code for tiles: those that are predicted to be the fastest,
    or what was chosen already; others are formed for the host.

    host: chooses for those that stay there. arithmetic: how products may be computed. given:
    choices by group. reasons: why kernels stay on the host, by the keys of their groups.
    """

    host: Chooser
    target: GpuTarget
    arithmetic: Arithmetic = AS_WRITTEN
    given: Choices = field(default_factory=Choices)
    reasons: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: Request) -> Chosen:
        """The kernel, to be emitted for the device or for the host.

        Raises ScheduleError for a given choice that is illegal.
        """
        kernel = request.kernel
        try:
            tiles = self._tiles(kernel, request)
            packed = pack_factors(kernel, next(iter(tiles.values())), request.constants)
            functions_of(packed.kernel, packed.tiles)
            _check_maps(packed.kernel, packed.tiles)
        except NoDeviceCode as error:
            self.reasons[request.key] = str(error)
            return self.host(request)
        tiles = {
            number: tuple(
                replace(one, packed=first.packed)
                for one, first in zip(own, packed.tiles, strict=True)
            )
            for number, own in tiles.items()
        }
        stages = tuple(StageSchedule() for _ in kernel.stages)
        schedule = with_tiles(Schedule(stages, 0), tiles)
        choice = choice_of_tiles(tiles)
        return Chosen(packed.kernel, schedule, packed.packings, choice, request.key)

    def _tiles(self, kernel: Kernel, request: Request) -> Architectures:
        parts = parts_of(kernel)
        usual = {
            number: tuple(self._usual(part, request.known, target) for part in parts)
            for number, target in targets_of(self.target).items()
        }
        data = self.given.of(request.key)
        return given_tiles(kernel, usual, data, self.target) if data else usual

    def _usual(self, part: Kernel, known: Mapping[str, Any], target: GpuTarget) -> Tiles:
        tiles = ranked_tiles(part, target, self.arithmetic)[0]
        attention = attention_of(part)
        if attention is None:
            return tiles
        band, looks = band_of(attention, tiles, known), looks_at_masks(attention, known)
        return replace(tiles, band=band, looks=looks)


def with_tiles(schedule: Schedule, tiles: Architectures) -> Schedule:
    """A schedule with the tiles of every architecture."""
    first, *_ = tiles.values()
    others = tuple((number, own) for number, own in tiles.items() if own != first)
    return replace(schedule, tiles=first, architectures=others)


def choice_of_tiles(tiles: Architectures) -> Choice:
    """The choice that tiles are made of."""
    first, *others = ((number, tuple(map(TileChoice.of, own))) for number, own in tiles.items())
    different = tuple((f"sm_{number}", own) for number, own in others if own != first[1])
    return Choice(tiles=first[1], architectures=different)


def ranked_tiles(part: Kernel, target: GpuTarget, arithmetic: Arithmetic) -> tuple[Tiles, ...]:
    """Tiles of what one function computes, the best first.

    Raises NoDeviceCode for what no program can compute.
    """
    usual = replace(tiles_of(part, target, arithmetic), busy=busy_programs(part, target))
    if usual.kind is Kind.PRODUCT:
        found = candidates(problem_of_part(part, usual), target)
        if found:
            return found
    if (attention := attention_of(part)) is not None:
        usual = replace(usual, split=key_split(attention, usual, target))
    if usual.kind is Kind.ROWS:
        usual = replace(usual, split=row_split_of(part, usual, target))
    if usual.split == 1:
        usual = replace(usual, busy=1)
    return usual, replace(usual, warps=2 * usual.warps)


def busy_programs(part: Kernel, target: GpuTarget) -> int:
    """The programs that keep a target busy, where that matters: of as many results as a run has."""
    known = all(isinstance(axis.extent, int) for axis in part.stages[-1].axes)
    return 1 if known else target.sms


def given_tiles(
    kernel: Kernel, usual: Architectures, data: Mapping[str, Any], target: GpuTarget
) -> Architectures:
    """The tiles that a choice asks for. Raises ScheduleError where it is illegal."""
    choice = choice_of_tiles(usual).with_json(data)
    named = dict(choice.architectures)
    if unknown := named.keys() - {f"sm_{number}" for number in usual}:
        raise ScheduleError(f"'{target.name}' has no code for {', '.join(sorted(unknown))}")
    found: Architectures = {}
    for number, own in targets_of(target).items():
        chosen = named.get(f"sm_{number}", choice.tiles)
        asked = zip(parts_of(kernel), chosen, usual[number], strict=True)
        found[number] = tuple(_applied(part, c, before, own) for part, c, before in asked)
    return found


def _applied(part: Kernel, choice: TileChoice, usual: Tiles, target: GpuTarget) -> Tiles:
    """The tiles that a choice asks for. Raises ScheduleError where it is illegal."""
    tiles = choice.applied(usual)
    tiles = replace(tiles, busy=busy_programs(part, target) if tiles.split > 1 else 1)
    if wrong := _illegal(part, tiles, usual, target):
        raise ScheduleError(
            f"a choice for '{'+'.join(part.operators)}' is illegal: {tiles}",
            why="; ".join(wrong),
            remedy="leave fields out: what is not given is chosen as usual",
        )
    return tiles


def _sums_of(part: Kernel) -> int:
    """How many sums a part has, with what attention keeps beside them; 1: only a run knows, and
    then there are no more parts than keep the target busy."""
    stage = part.stages[-1]
    points = product(axis.extent for axis in stage.axes)
    sums = max(len(stage.reductions), 3)  # of attention: a maximum and a total for each query
    return points * sums if isinstance(points, int) else 1


def _illegal(part: Kernel, tiles: Tiles, usual: Tiles, target: GpuTarget) -> list[str]:
    """Every reason why a function cannot have tiles."""
    sizes = {"rows": tiles.rows, "columns": tiles.columns, "depth": tiles.depth}
    wrong = [f"{name} {n} is no power of two" for name, n in sizes.items()
             if n < 1 or power_of_two(n) != n]  # fmt: skip
    if tiles.warps not in (1, 2, 4, 8, MOST_WARPS):
        wrong.append(f"{tiles.warps} warps are not 1, 2, 4, 8 or {MOST_WARPS}")
    if not 1 <= tiles.stages <= MOST_STAGES or tiles.group < 1:
        wrong.append(f"stages are 1 to {MOST_STAGES}, groups have at least one row")
    if not 1 <= tiles.split <= MOST_PARTS:
        wrong.append(f"a sum has 1 to {MOST_PARTS} parts")
    divisible = tiles.kind in (Kind.PRODUCT, Kind.ATTENTION) or (
        tiles.kind is Kind.ROWS and can_divide_rows(part)
    )
    if tiles.split > 1 and not divisible:
        wrong.append(
            "only sums of products, keys of attention, and reductions of known sizes are divided"
        )
    wrong += _wrong_programs(part, tiles, target)
    if tiles.split > 1 and tiles.split * _sums_of(part) > MOST_PART_ELEMENTS:
        wrong.append(f"{tiles.split} parts of all sums are more than {MOST_PART_ELEMENTS} elements")
    if tiles.rows * tiles.columns > MOST_ELEMENTS:
        wrong.append(f"a block has {tiles.rows * tiles.columns} elements, over {MOST_ELEMENTS}")
    if wrong or tiles.kind not in (Kind.PRODUCT, Kind.ATTENTION):
        return wrong
    if min(tiles.rows, tiles.columns, tiles.depth) < LEAST_BLOCK:
        wrong.append(f"products are of blocks of {LEAST_BLOCK} and more each way")
    if tiles.kind is Kind.ATTENTION:
        same = tiles.columns == usual.columns
        return wrong if same else [*wrong, "a block of attention has all elements of a value"]
    if tiles.depth > usual.depth:
        wrong.append(f"at most {usual.depth} steps of the sum are taken at once")
    needed = shared_bytes(problem_of(part.stages[-1], usual), tiles)
    if needed > target.shared_bytes:
        wrong.append(f"{needed} bytes of shared memory, of {target.shared_bytes}")
    return wrong


def _wrong_programs(part: Kernel, tiles: Tiles, target: GpuTarget) -> list[str]:
    """Why programs cannot go over blocks as tiles say."""
    wrong = []
    if not 0 <= tiles.programs <= MOST_PROGRAMS:
        wrong.append(f"0 to {MOST_PROGRAMS} programs go over all blocks")
    if tiles.programs and tiles.kind is not Kind.PRODUCT:
        wrong.append("only programs of products go over several blocks")
    if tiles.maps and TENSOR_MAPS not in target.instructions:
        wrong.append("this GPU has no tensor maps")
    if tiles.maps and (not tiles.programs or tiles.split > 1):
        wrong.append("programs with tensor maps go over all blocks, and over sums as wholes")
    return wrong


def _check_maps(kernel: Kernel, tiles: Sequence[Tiles]) -> None:
    """Raise ScheduleError for tiles with tensor maps of factors, as they are packed, that none
    describe."""
    for part, own in zip(parts_of(kernel), tiles, strict=True):
        if own.maps and matrices_of(part) is None:
            raise ScheduleError(
                f"a choice for '{'+'.join(part.operators)}' is illegal: {own}",
                why="no tensor maps describe both factors",
                remedy="leave out maps",
            )


def can_map(part: Kernel, target: GpuTarget) -> bool:
    """Whether the factors of a product may come by tensor maps."""
    return TENSOR_MAPS in target.instructions and matrices_of(part) is not None


__all__ = [
    "Architectures",
    "GpuChooser",
    "busy_programs",
    "can_map",
    "choice_of_tiles",
    "given_tiles",
    "ranked_tiles",
    "with_tiles",
]
