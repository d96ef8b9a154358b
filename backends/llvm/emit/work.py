"""How much a call has to do, which decides whether threads share it."""

from __future__ import annotations

from collections.abc import Sequence

from ....compiler.ir.dims import Dim, estimate, substitute
from ....compiler.kernel.plan.plan import PlannedKernel

STREAMED = 10  # operations that take as long as reading an operand that no other row shares
MOVED = 16  # operations that take as long as moving an element from one cache to another


def work(planned: PlannedKernel, sizes: Sequence[Dim]) -> int:
    """Operations of a kernel's call with sizes for its symbols; those of inputs count as 64.

    A reduction whose tiles have one row reads an operand for every operation: it waits for memory.
    """
    work = planned.kernel.flops() + planned.kernel.stages[0].points()
    if not any(stage.reductions for stage in planned.kernel.stages):
        work = work + MOVED * planned.kernel.stages[0].points()
    for stage, own in zip(planned.kernel.stages, planned.schedule.stages, strict=True):
        if stage.reductions and own.tile.vector and not own.tile.row:
            work = work + STREAMED * stage.points()
    values = dict(zip(planned.kernel.symbols, sizes, strict=True))
    return estimate(substitute(work, values), 64)


def is_divided(planned: PlannedKernel, operations: int) -> bool:
    """Whether threads share a call of so many operations."""
    shared = bool(planned.kernel.shared or planned.schedule.parallel)
    return shared and operations >= planned.schedule.fork
