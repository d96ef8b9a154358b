"""Maxima of large windows: of rows, then of columns."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import inputs_for
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Dim, Graph
from tensmith.passes.simplify.separable_pools import SeparablePools


def pooled(
    kernel: tuple[int, int], layout: str = "NCHW", height: Dim = 17, **more: object
) -> Graph:
    attrs = {"strides": (1, 1), "pads": (2, 3, 1, 2), "dilations": (1, 1), **more}
    c = CaseBuilder("pools")
    x = c.input(2, 3, height, 40) if layout == "NCHW" else c.input(2, height, 40, 3)
    c.output(c.op("max_pool", x, kernel=kernel, layout=layout, **attrs))
    return c.graph()


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(
    "more",
    [{}, {"strides": (2, 3)}, {"dilations": (2, 1)}, {"strides": (3, 2), "ceil_mode": True}],
)
def test_rows_then_columns(layout: str, more: dict[str, object]) -> None:
    graph = pooled((5, 6), layout, **more)
    feeds = inputs_for(graph)
    wanted = run_graph(graph, feeds)["y0"]
    assert SeparablePools().run(graph)
    assert [node.attrs["kernel"] for node in graph.nodes] == [(1, 6), (5, 1)]
    np.testing.assert_array_equal(run_graph(graph, feeds)["y0"], wanted)


def test_heights_that_a_run_knows() -> None:
    assert SeparablePools().run(pooled((13, 13), height=N, pads=(6, 6, 6, 6)))


@pytest.mark.parametrize("kernel", [(3, 3), (1, 30), (4, 6)])
def test_small_windows_stay(kernel: tuple[int, int]) -> None:
    assert not SeparablePools().run(pooled(kernel, pads=(0, 0, 0, 0)))
