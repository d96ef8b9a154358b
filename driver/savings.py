"""How much arithmetic a model needs as it is computed, and which passes have saved the rest."""

from __future__ import annotations

from ..compiler.backend import resolve_target
from ..compiler.decisions import Saving
from ..compiler.ir.dims import Dim
from ..compiler.ir.flops import graph_flops
from ..compiler.ir.graph import Graph
from ..compiler.pass_manager import run_passes
from ..compiler.target import CpuTarget
from ..passes.pipeline import optimization_passes
from .request import CompileRequest


def optimised_flops(graph: Graph, request: CompileRequest) -> tuple[Dim, list[Saving]]:
    """Floating-point operations of one run after the target-neutral passes, and what was saved.

    The graph is rewritten in place. The costs of a target decide where those of a CPU do.
    """
    savings: list[Saving] = []
    _, target = resolve_target(request.target)
    costs = target if isinstance(target, CpuTarget) else None
    run_passes(graph, optimization_passes(request.opt_level, target=costs, told=savings.append))
    return graph_flops(graph), savings
