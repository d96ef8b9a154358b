"""Tiles are vetted by the code that they make: registers that are spilled, shared memory.

Of functions whose tiles do not pass, those of the next candidates are compiled, and what passes, or
else what spills least, is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...compiler.errors import InternalError
from ...compiler.kernel.schedule.tiles import Tiles
from ...compiler.target import GpuTarget
from .compiling import FunctionJob, Image, try_all
from .emit.function import Function
from .targets import targets_of

DIVISION_STACK = 16  # bytes of stack that the slow path of a division takes: nothing is spilled
MOST_TRIES = 4  # candidates that are compiled
SMALLER_TRIES = 2  # and then those of which a thread has fewer results than of what spilled least
NO_CODE = 1 << 30  # bytes of excess: of tiles that nothing can be compiled with
Part = tuple[Function, ...]  # of a kernel: functions that some tiles make


@dataclass(frozen=True)
class Vetted:
    """Functions of one part of a kernel whose tiles were vetted for a target, with the images of
    each. failure: why there are none."""

    part: Part
    images: tuple[tuple[Image, ...], ...]
    target: GpuTarget
    failure: InternalError | None = None

    @property
    def symbol(self) -> str:
        """What the part is known by, whatever its tiles."""
        return self.part[0].symbol

    @property
    def spilled(self) -> int:
        """Bytes of a thread's registers that lie in memory."""
        stack = max((image.stack for own in self.images for image in own), default=0)
        return max(0, stack - DIVISION_STACK)

    @property
    def excess(self) -> int:
        """Bytes that are spilled, or that no block may have of shared memory; 0: it passes."""
        if self.failure is not None:
            return NO_CODE
        images = [image for own in self.images for image in own]
        targets = targets_of(self.target)
        over = [image.shared - targets[image.architecture].shared_bytes for image in images]
        return self.spilled + max(0, *over)

    @property
    def reason(self) -> str:
        """Why it does not pass; "": it does."""
        if self.failure is not None:
            return str(self.failure)
        if self.spilled:
            return f"{self.spilled} bytes of every thread's registers are spilled"
        return f"{self.excess} bytes too many of shared memory" if self.excess else ""


@dataclass(frozen=True)
class OtherTiles:
    """Tiles that a part may have instead, in the order in which they are tried; make: the part with
    some of them."""

    tiles: Iterator[Tiles]
    make: Callable[[Tiles], Part]

    def following(self, found: Vetted, smaller: bool) -> Part | None:
        """The next part. smaller: of those with fewer results for a thread than what was found:
        neighbours in the order often need as many registers."""
        most = _results(found.part[0].tiles)
        fitting = (tiles for tiles in self.tiles if not smaller or _results(tiles) < most)
        tiles = next(fitting, None)
        return None if tiles is None else self.make(tiles)


def vetted(
    parts: Sequence[Part], others: Mapping[str, OtherTiles], target: GpuTarget
) -> dict[str, Vetted]:
    """The parts of kernels by symbol, each with the first of its tiles that passes.

    others: of those that may have other tiles. Raises InternalError for a part that cannot be
    compiled with any.
    """
    best: dict[str, Vetted] = {}
    pending = list(parts)
    last = MOST_TRIES + SMALLER_TRIES
    for tried in range(1, last + 1):
        for found in compile_parts(pending, target):
            symbol = found.symbol
            if symbol not in best or found.excess < best[symbol].excess:
                best[symbol] = found
        if tried == last:
            break
        failing = [symbol for symbol, found in best.items() if found.excess and symbol in others]
        following = (others[s].following(best[s], tried >= MOST_TRIES) for s in failing)
        pending = [part for part in following if part is not None]
        if not pending:
            break
    for found in best.values():
        if found.failure is not None:
            raise found.failure
    return best


def _results(tiles: Tiles) -> float:
    """Of a block, for each of its warps."""
    return tiles.rows * tiles.columns / tiles.warps


def compile_parts(parts: Sequence[Part], target: GpuTarget) -> list[Vetted]:
    """Parts with the code of their functions, in their order."""
    jobs = [[_jobs(function, target) for function in part] for part in parts]
    made = iter(try_all([job for part in jobs for own in part for job in own]))
    found = []
    for part, of_functions in zip(parts, jobs, strict=True):
        tried = [[next(made) for _ in own] for own in of_functions]
        failures = [one for own in tried for one in own if isinstance(one, InternalError)]
        images = tuple(tuple(one for one in own if isinstance(one, Image)) for own in tried)
        found.append(Vetted(part, images, target, failures[0] if failures else None))
    return found


def _jobs(function: Function, target: GpuTarget) -> list[FunctionJob]:
    numbers = function.architectures or target.architectures
    jobs = [FunctionJob(function, number) for number in numbers]
    if target.ptx in numbers:
        jobs.append(FunctionJob(function, target.ptx, ptx=True))
    return jobs
