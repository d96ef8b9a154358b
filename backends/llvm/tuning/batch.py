"""The files of a batch, as `runtime/measure.h` describes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ....compiler.kernel.contraction import extent_of
from ....compiler.kernel.cost.cost import parameter_bytes
from ....compiler.kernel.kernel import Kernel
from ....compiler.kernel.plan.plan import PlannedKernel
from ....compiler.kernel.plan.sites import parallel_iterations
from ....compiler.kernel.schedule.packing import Packing
from ....compiler.tuning.task import Candidate
from ...common.elf import with_aligned_code
from ..emit.work import is_divided
from ..emit.work import work as operations_of
from .groups import FormedGroup
from .operands import Data, addresses, largest_dim, output_line
from .tuned_work import Work

# of the largest element of a result: two ways to add up n numbers differ by some roundings of
# their square root, Winograd's transforms by more
ROUNDINGS = 64.0
EPSILON = 2.0**-24
CODE_ALIGNMENT = 4096
NARROW_EPSILON = {"f16": 2.0**-10, "bf16": 2.0**-7}  # a result of few bits differs by a step


@dataclass(frozen=True)
class Compiled:
    """A candidate's object. code: the digest of that. sizes: of the kernel's symbols."""

    group: FormedGroup
    planned: PlannedKernel
    packings: Mapping[str, Packing]
    sizes: Mapping[str, int]
    object: bytes
    code: str

    def at(self, position: int) -> bytes:
        """The object with its function called by a position in a batch, at the start of a page:
        how loops lie in cache lines changes times by some percent, and has to be the same for all.
        """
        named = self.object.replace(symbol(0).encode(), symbol(position).encode())
        return with_aligned_code(named, CODE_ALIGNMENT)


def symbol(position: int) -> str:
    """The function of a candidate; names of all positions are as long."""
    return f"tensmith_candidate_{position:04}"


class BatchFiles:
    """Collects the candidates of a batch."""

    def __init__(self, work: Work, threads: int) -> None:
        self._work, self._threads = work, threads
        self._data = Data()
        self._pieces: dict[str, int] = {}
        self._candidates: list[str] = []

    def add(self, candidate: Candidate, made: Compiled | None) -> None:
        """The next candidate; None: one that could not be built."""
        if made is None:
            self._candidates.append("absent")
            return
        planned, sizes = made.planned, made.sizes
        kernel = planned.kernel
        least = parameter_bytes(kernel, planned.schedule, sizes)
        numbers = [
            self._piece(line)
            for line in self._lines(made, dict(zip(_names(kernel), least, strict=True)))
        ]
        count = parallel_iterations(kernel, planned.schedule, sizes)
        operations = operations_of(planned, list(sizes.values()))
        divided = self._threads > 1 and is_divided(planned, operations)
        fields = (
            "candidate", symbol(len(self._candidates)), int(candidate.exact),
            f"{_tolerance(kernel):.6g}", kernel.scratch_bytes, count, int(divided), *numbers,
        )  # fmt: skip
        self._candidates.append(" ".join(map(str, fields)))

    def content(self) -> dict[str, bytes]:
        """The files by name."""
        evicted = int(self._work.task.regime["evicted_bytes"])
        lines = [f"batch 1 {self._threads} {evicted}", *self._pieces, *self._candidates, ""]
        return {"batch.txt": "\n".join(lines).encode(), "data.bin": self._data.bytes()}

    def _piece(self, line: str) -> int:
        return self._pieces.setdefault(line, len(self._pieces))

    def _lines(self, made: Compiled, least: Mapping[str, int]) -> list[str]:
        """A line for every parameter."""
        kernel, env = made.planned.kernel, self._work.env
        values, deciding = made.group.values, addresses(kernel)
        shapes = [value.shape for name, value in values.items() if name not in deciding]
        lines = []
        for number, name in enumerate(_names(kernel)):
            value = values[name]
            if number >= len(kernel.params) - kernel.outputs:
                lines.append(f"{output_line(value.type, env)} {name}")
            elif value.is_constant:
                lines.append(self._data.constant(value, made.packings.get(name)))
            else:
                most = largest_dim(shapes, env) if name in deciding else 100
                lines.append(self._data.input(name, value, env, least[name], most))
        return lines


def _names(kernel: Kernel) -> list[str]:
    return [buffer.name for buffer in kernel.params]


def _tolerance(kernel: Kernel) -> float:
    """How far results may be off where sums are added up in another order."""
    depth = max(
        (math.prod(extent_of(axis) for axis in stage.reduce_axes) for stage in kernel.stages),
        default=1,
    )
    return ROUNDINGS * EPSILON * math.sqrt(depth) + _step(kernel)


def _step(kernel: Kernel) -> float:
    """Of the coarsest float among the results and what is multiplied."""
    types = {str(buffer.dtype) for buffer in kernel.params}
    return max((NARROW_EPSILON.get(name, 0.0) for name in types), default=0.0)
