"""Updates in order: lanes go along slices, whose elements nothing but their own update reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from kernels import fused_nodes
from suites.case import I64, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Dim, Graph
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import Stage
from tensmith.compiler.kernel.schedule.heuristic import default_schedule
from tensmith.compiler.kernel.schedule.schedule import StageSchedule
from tensmith.compiler.target import CpuTarget

SETTINGS = [Setting("native", 2), Setting("x86-64-v3", 2)]


def rows(width: Dim, reduction: str = "add", op: str = "scatter_nd") -> Graph:
    """Rows of a table that are updated, at places that repeat; or elements, each with its own."""
    c = CaseBuilder("updates")
    table, places = c.input(9, width, name="t"), c.input(40, 1, dtype=I64, high=9, low=0, name="i")
    updates = c.input(40, width, name="u")
    if op == "scatter_nd":
        c.output(c.op(op, table, places, updates, reduction=reduction))
        return c.graph()
    wide = c.op("broadcast_to", places, shape=(40, width))
    if op == "elements":
        wide = c.input(40, width, dtype=I64, low=0, high=9, name="wide")
    c.output(c.op("scatter_elements", table, wide, updates, axis=0, reduction=reduction))
    return c.graph()


def update(graph: Graph) -> tuple[Stage, StageSchedule]:
    """The stage of the updates, and its schedule for AVX-512."""
    target = resolve_target("x86-64-v4")[1]
    assert isinstance(target, CpuTarget)
    (node,) = fused_nodes(graph)
    kernel = lower_region(node.regions[0]).kernel
    return kernel.stages[-1], default_schedule(kernel, target).stages[-1]


@pytest.mark.parametrize("op", ["scatter_nd", "scatter_elements"])
@pytest.mark.parametrize("width", [33, 8, N])
def test_lanes_go_along_slices(width: Dim, op: str) -> None:
    stage, own = update(rows(width, op=op))
    assert own.tile.vector == stage.axes[-1].name
    assert list(own.order) == [axis.name for axis in stage.axes]


@pytest.mark.parametrize(("width", "op"), [(3, "scatter_nd"), (33, "elements")])
def test_elements_that_data_scatter_go_one_by_one(width: Dim, op: str) -> None:
    assert not update(rows(width, op=op))[1].tile.vector


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_later_updates_of_a_row_come_later(setting: Setting, tmp_path: Path) -> None:
    if setting.missing():
        pytest.skip(setting.missing())
    rng = np.random.default_rng(0)
    jobs, wanted = {}, {}
    for reduction in ("none", "add", "mul", "max"):
        for op in ("scatter_nd", "scatter_elements"):
            feeds = {
                "t": rng.standard_normal((9, 37)).astype(np.float32),
                "i": rng.integers(0, 9, (40, 1)),
                "u": rng.standard_normal((40, 37)).astype(np.float32),
            }
            name = f"{op}_{reduction}"
            wanted[name] = run_graph(rows(37, reduction, op), feeds)["y0"]
            jobs[name] = Job(rows(37, reduction, op), feeds)
    found = run_all(jobs, setting, tmp_path)
    for name, want in wanted.items():
        assert not isinstance(found[name], Exception), found[name]
        np.testing.assert_allclose(found[name]["y0"], want, rtol=1e-5, atol=1e-6, err_msg=name)
