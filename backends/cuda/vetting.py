"""Tiles are vetted by the code that they make: registers that are spilled, shared memory.

Of functions whose tiles do not pass, those of the next candidates are compiled, and what passes, or
else what spills least, is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...compiler.target import GpuTarget
from .compiling import FunctionJob, Image, compile_all
from .emit.function import Function
from .targets import targets_of

DIVISION_STACK = 16  # bytes of stack that the slow path of a division takes: nothing is spilled
MOST_TRIES = 4  # candidates that are compiled
Part = tuple[Function, ...]  # of a kernel: functions that some tiles make


@dataclass(frozen=True)
class Vetted:
    """Functions of one part of a kernel whose tiles were vetted for a target, with the images of
    each."""

    part: Part
    images: tuple[tuple[Image, ...], ...]
    target: GpuTarget

    @property
    def symbol(self) -> str:
        """What the part is known by, whatever its tiles."""
        return self.part[0].symbol

    @property
    def excess(self) -> int:
        """Bytes that are spilled, or that no block may have of shared memory; 0: it passes."""
        images = [image for own in self.images for image in own]
        spilled = max((image.stack for image in images), default=0)
        targets = targets_of(self.target)
        over = [image.shared - targets[image.architecture].shared_bytes for image in images]
        return max(0, spilled - DIVISION_STACK) + max(0, *over)


def vetted(
    parts: Sequence[Part], others: Mapping[str, Iterator[Part]], target: GpuTarget
) -> dict[str, Vetted]:
    """The parts of kernels by symbol, each with the first of its tiles that passes.

    others: of those that may have other tiles, the parts with these, in order.
    """
    best: dict[str, Vetted] = {}
    pending = list(parts)
    for _ in range(MOST_TRIES):
        for found in _compiled(pending, target):
            symbol = found.symbol
            if symbol not in best or found.excess < best[symbol].excess:
                best[symbol] = found
        failing = [symbol for symbol, found in best.items() if found.excess and symbol in others]
        pending = [p for p in (next(others[symbol], None) for symbol in failing) if p is not None]
        if not pending:
            break
    return best


def _compiled(parts: Sequence[Part], target: GpuTarget) -> Iterator[Vetted]:
    jobs: dict[str, list[FunctionJob]] = {}
    for function in (function for part in parts for function in part):
        numbers = function.architectures or target.architectures
        jobs[function.symbol] = [FunctionJob(function, number) for number in numbers]
        if target.ptx in numbers:
            jobs[function.symbol].append(FunctionJob(function, target.ptx, ptx=True))
    images = iter(compile_all([job for own in jobs.values() for job in own]))
    found = {symbol: tuple(next(images) for _ in own) for symbol, own in jobs.items()}
    for part in parts:
        yield Vetted(part, tuple(found[function.symbol] for function in part), target)
