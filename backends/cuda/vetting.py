"""Tiles are vetted by the code that they make: registers that are spilled, shared memory.

Of a function whose tiles do not pass, the next of its candidates are compiled, and what passes, or
else what spills least, is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...compiler.target import GpuTarget
from .compiling import FunctionJob, Image, compile_all
from .emit.function import Function
from .targets import shared_bytes_of

DIVISION_STACK = 16  # bytes of stack that the slow path of a division takes: nothing is spilled
MOST_TRIES = 4  # candidates that are compiled


@dataclass(frozen=True)
class Vetted:
    """A function whose tiles were vetted, with its images."""

    function: Function
    images: tuple[Image, ...]

    @property
    def excess(self) -> int:
        """Bytes that are spilled, or that no block may have of shared memory; 0: it passes."""
        spilled = max((image.stack for image in self.images), default=0)
        over = [image.shared - shared_bytes_of(image.architecture) for image in self.images]
        return max(0, spilled - DIVISION_STACK) + max(0, *over)


def vetted(
    functions: Sequence[Function],
    others: Mapping[str, Iterator[Function]],
    target: GpuTarget,
) -> dict[str, Vetted]:
    """The functions by symbol, each with the first of its tiles that passes.

    others: of those that may have other tiles, the functions with these, in order.
    """
    best: dict[str, Vetted] = {}
    pending = list(functions)
    for _ in range(MOST_TRIES):
        for found in _compiled(pending, target):
            symbol = found.function.symbol
            if symbol not in best or found.excess < best[symbol].excess:
                best[symbol] = found
        failing = [symbol for symbol, found in best.items() if found.excess and symbol in others]
        pending = [f for f in (next(others[symbol], None) for symbol in failing) if f is not None]
        if not pending:
            break
    return best


def _compiled(functions: Sequence[Function], target: GpuTarget) -> Iterator[Vetted]:
    jobs = [FunctionJob(function, n) for n in target.architectures for function in functions]
    if target.ptx:
        jobs += [FunctionJob(function, target.ptx, ptx=True) for function in functions]
    images = compile_all(jobs)
    for number, function in enumerate(functions):
        yield Vetted(function, tuple(images[number :: len(functions)]))
