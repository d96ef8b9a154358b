"""Models in bf16 or fp16: the graph that is compiled, and that what is compiled is held against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..compiler.ir import DType, Graph
from ..compiler.pass_manager import run_passes
from ..compiler.target import Target
from ..passes.pipeline import half_passes
from ..passes.precision.half import Decision, ToHalf

HALVES = {"bf16": DType.BF16, "fp16": DType.F16}


@dataclass(frozen=True)
class InPrecision:
    """What a graph becomes that is compiled in a precision for a target.

    Of another precision than `HALVES` it stays as it is.
    """

    precision: str
    target: Target

    def rewrite(
        self, graph: Graph, dump_after: Callable[[str, Graph], None] | None = None
    ) -> tuple[Decision, ...]:
        """Rewrite an imported graph in place; what became of its contractions."""
        if self.precision not in HALVES:
            return ()
        found: list[Decision] = []
        passes = half_passes(ToHalf(HALVES[self.precision], self.target, found.append))
        run_passes(graph, passes, dump_after=dump_after)
        return tuple(found)


__all__ = ["HALVES", "Decision", "InPrecision"]
