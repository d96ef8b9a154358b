"""Sums along a middle axis: lanes and vectors side by side, rows only where windows meet."""

from __future__ import annotations

import pytest
from kernels import fused_nodes
from suites.case import CaseBuilder

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Graph
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.compiler.kernel.schedule.schedule import RegisterTile
from tensmith.compiler.target import CpuTarget


def tile(graph: Graph) -> RegisterTile:
    """The tile of the one kernel of a graph, for AVX-512."""
    target = resolve_target("x86-64-v4")[1]
    assert isinstance(target, CpuTarget)
    (node,) = fused_nodes(graph)
    (stage,) = default_schedule(lower_region(node.regions[0]).kernel, target).stages
    return stage.tile


def reduced(op: str, width: int) -> Graph:
    c = CaseBuilder("sums")
    c.output(c.op(op, c.input(8, 128, width), axes=(1,), keepdims=True))
    return c.graph()


@pytest.mark.parametrize("op", ["reduce_mean", "reduce_sum", "reduce_max"])
def test_rows_that_share_nothing_are_not_read_together(op: str) -> None:
    """They lie in other pages, as many apart as sets of a cache are."""
    found = tile(reduced(op, 384))
    assert (found.row, found.rows, found.lanes, found.vectors) == ("", 1, 16, 8)


def test_few_columns_leave_sums_to_rows() -> None:
    assert tile(reduced("reduce_sum", 32)).rows > 1


def test_windows_that_meet_are_read_together() -> None:
    c = CaseBuilder("pools")
    attrs = {"kernel": (3, 3), "strides": (1, 1), "pads": (0, 0, 0, 0), "dilations": (1, 1)}
    c.output(c.op("avg_pool", c.input(1, 20, 20, 256), layout="NHWC", **attrs))
    assert tile(c.graph()).rows > 1
