"""How often a plan runs each kernel, as far as that is known before it runs."""

from __future__ import annotations

from plan_runs import PlannedGraph
from suites.case import BOOL, CaseBuilder

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph
from tensmith.compiler.kernel.plan.sites import sites_of

TARGET = resolve_target("x86-64-v3")[1]


def branching() -> Graph:
    """A condition that only a run knows."""
    c = CaseBuilder("branching")
    x = c.input(4, 6)
    regions = []
    for op in ("sin", "cos"):
        inner = c.region(op)
        inner.output(inner.op("matmul", inner.op(op, x), inner.weight(6, 6)))
        regions.append(inner.graph())
    chosen = c.node("if", [c.input(dtype=BOOL)], {}, regions).output
    c.output(c.op("matmul", chosen, c.weight(6, 5)))
    return c.graph()


def test_both_branches_are_uncertain() -> None:
    plan = PlannedGraph(branching(), TARGET).plan
    found = [(site.calls, site.certain) for site in sites_of(plan, {})]
    assert found.count((1, True)) == 1
    assert found.count((1, False)) >= 2
