"""Models in bf16 or fp16: the graph that is compiled, and that what is compiled is held against."""

from __future__ import annotations

from collections.abc import Callable

from ..compiler.backend import resolve_target
from ..compiler.ir import DType, Graph
from ..compiler.pass_manager import run_passes
from ..compiler.target import Target
from ..passes.pipeline import half_passes
from ..passes.precision.half import Decision, ToHalf

HALVES = {"bf16": DType.BF16, "fp16": DType.F16}


def in_halves(
    graph: Graph,
    precision: str,
    target: Target,
    dump_after: Callable[[str, Graph], None] | None = None,
) -> tuple[Decision, ...]:
    """Rewrite an imported graph in place; what became of its contractions.

    Of another precision than `HALVES` it stays as it is.
    """
    if precision not in HALVES:
        return ()
    found: list[Decision] = []
    passes = half_passes(ToHalf(HALVES[precision], target, found.append))
    run_passes(graph, passes, dump_after=dump_after)
    return tuple(found)


def reference_graph(graph: Graph, precision: str, target: str) -> Graph:
    """What the reference evaluates for a model that is compiled so, of the imported graph."""
    in_halves(graph, precision, resolve_target(target)[1])
    return graph


__all__ = ["HALVES", "Decision", "in_halves", "reference_graph"]
