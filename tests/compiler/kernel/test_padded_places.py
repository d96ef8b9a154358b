"""Mirrored, repeated and wrapped borders around what is computed from its places."""

from __future__ import annotations

import numpy as np
import pytest
from plan_runs import PlannedGraph
from suites.case import F32, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir.dims import symbol

V3 = resolve_target("x86-64-v3")[1]


@pytest.mark.parametrize("rows", [2, "n"])
@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap"])
def test_borders_of_what_knows_its_places(mode: str, rows: int | str) -> None:
    """Zeros around an input, a part of them, and numbers of columns."""
    c = CaseBuilder("borders")
    height = symbol(rows) if isinstance(rows, str) else rows
    zeros = c.op("pad", c.input(height, 3, name="x"), pads=(0, 1, 1, 2), mode="constant")
    part = c.op("slice", zeros, starts=(0, 1), stops=(height + 1, 6), steps=(1, 1))
    for inner in (zeros, part, c.op("iota", shape=(3, 6), axis=1, dtype=F32)):
        c.output(c.op("pad", inner, pads=(1, 1, 2, 3), mode=mode))
    graph = c.graph()
    x = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    wanted = run_graph(graph, {"x": x})
    got = PlannedGraph(graph, V3).run({"x": x})
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)
