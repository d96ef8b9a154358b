"""From a kernel as it was lowered to one that a GPU runs: tiles, and constants packed for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...compiler.errors import ScheduleError
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
from .emit.types import NoDeviceCode
from .hidden_keys import band_of
from .packing import pack_factors
from .tiles import LEAST_BLOCK, key_split, power_of_two, problem_of, tiles_of

MOST_WARPS, MOST_STAGES, MOST_ELEMENTS, MOST_PARTS = 16, 8, 1 << 17, 64


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
            usual = tuple(self._usual(part, request.known) for part in parts_of(kernel))
            if data := self.given.of(request.key):
                usual = _given(kernel, usual, data, self.target)
            packed = pack_factors(kernel, usual, request.constants)
            functions_of(packed.kernel, packed.tiles)
        except NoDeviceCode as error:
            self.reasons[request.key] = str(error)
            return self.host(request)
        stages = tuple(StageSchedule() for _ in kernel.stages)
        schedule = Schedule(stages, 0, tiles=packed.tiles)
        choice = choice_of_tiles(packed.tiles)
        return Chosen(packed.kernel, schedule, packed.packings, choice, request.key)

    def _usual(self, part: Kernel, known: Mapping[str, Any]) -> Tiles:
        tiles = ranked_tiles(part, self.target, self.arithmetic)[0]
        attention = attention_of(part)
        return replace(tiles, band=band_of(attention, tiles, known)) if attention else tiles


def choice_of_tiles(tiles: Sequence[Tiles]) -> Choice:
    """The choice that tiles are made of."""
    return Choice(tiles=tuple(TileChoice.of(own) for own in tiles))


def ranked_tiles(part: Kernel, target: GpuTarget, arithmetic: Arithmetic) -> tuple[Tiles, ...]:
    """Tiles of what one function computes, the best first.

    Raises NoDeviceCode for what no program can compute.
    """
    usual = replace(tiles_of(part, arithmetic), busy=target.sms)
    if usual.kind is Kind.PRODUCT:
        whole = len(part.stages) > 1  # every part would find the scales of its rows anew
        problem = replace(problem_of(part.stages[-1], usual), whole=whole)
        found = candidates(problem, target)
        if found:
            return found
    if (attention := attention_of(part)) is not None:
        usual = replace(usual, split=key_split(attention, usual, target))
    return usual, replace(usual, warps=2 * usual.warps)


def _given(
    kernel: Kernel, usual: tuple[Tiles, ...], data: Mapping[str, Any], target: GpuTarget
) -> tuple[Tiles, ...]:
    """The tiles that a choice asks for. Raises ScheduleError where it is illegal."""
    choice = choice_of_tiles(usual).with_json(data)
    changed = tuple(c.applied(own) for c, own in zip(choice.tiles, usual, strict=True))
    for part, own, before in zip(parts_of(kernel), changed, usual, strict=True):
        if wrong := _illegal(part, own, before, target):
            raise ScheduleError(
                f"a choice for '{'+'.join(kernel.operators)}' is illegal: {own}",
                why="; ".join(wrong),
                remedy="leave fields out: what is not given is chosen as usual",
            )
    return changed


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
    if tiles.split > 1 and tiles.kind not in (Kind.PRODUCT, Kind.ATTENTION):
        wrong.append("only sums of products and the keys of attention are divided into parts")
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


__all__ = ["GpuChooser", "choice_of_tiles", "ranked_tiles"]
