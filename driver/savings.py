"""How much arithmetic a model needs as it is computed, and which passes have saved the rest."""

from __future__ import annotations

from ..compiler.decisions import Saving
from ..compiler.ir.dims import Dim
from ..compiler.ir.flops import graph_flops
from ..compiler.ir.graph import Graph
from ..compiler.pass_manager import run_passes
from ..passes.pipeline import optimization_passes


def optimised_flops(graph: Graph, opt_level: int) -> tuple[Dim, list[Saving]]:
    """Floating-point operations of one run after the target-neutral passes, and what was saved.

    The graph is rewritten in place.
    """
    savings: list[Saving] = []
    run_passes(graph, optimization_passes(opt_level, told=savings.append))
    return graph_flops(graph), savings
