"""How often a plan runs each kernel, as far as that is known before it runs."""

from __future__ import annotations

import pytest
from plan_runs import PlannedGraph
from suites.case import BOOL, CaseBuilder, N

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.plan.sites import parallel_iterations, sites_of
from tensmith.compiler.kernel.schedule.partition import outer_loops

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


def product(rows: Dim) -> Graph:
    c = CaseBuilder("product")
    c.output(c.op("matmul", c.input(rows, 24), c.weight(24, 96)))
    return c.graph()


def rows() -> Graph:
    c = CaseBuilder("rows")
    c.output(c.op("softmax", c.input(7, 50), axis=1))
    return c.graph()


@pytest.mark.parametrize("size", [1, 7, 130])
def test_iterations_are_those_of_the_loops_that_threads_share(size: int) -> None:
    [planned] = PlannedGraph(product(N), TARGET).plan.kernels
    loops = outer_loops(planned.kernel, planned.schedule)
    assert loops
    [stage] = planned.kernel.stages
    extents = {axis.name: axis.extent for axis in stage.axes}
    [symbol] = planned.kernel.symbols
    expected = 1
    for name, tile in loops:
        extent = extents[name]
        expected *= -(-(extent if isinstance(extent, int) else size) // tile)
    found = parallel_iterations(planned.kernel, planned.schedule, {symbol: size})
    assert found == expected
    assert found > 1 or size == 1


def test_stages_share_the_loops_around_them() -> None:
    [planned] = PlannedGraph(rows(), TARGET).plan.kernels
    assert len(planned.kernel.stages) > 1
    assert parallel_iterations(planned.kernel, planned.schedule, {}) == 7
