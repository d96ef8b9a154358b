"""Elements whose place a table tells, read where only some rows of a tile may be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Job, Setting, run_all
from llvmlite import ir
from rewriting import inputs_for
from suites.case import I64, CaseBuilder

from tensmith.backends.llvm.emit.shape import Address
from tensmith.backends.llvm.emit.step_lanes import StepLanes
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Value, constant
from tensmith.compiler.ir.dims import symbol
from tensmith.compiler.kernel.expr import Buffer, Load

SETTINGS = (
    *(Setting("native", level) for level in range(4)),
    Setting("x86-64-v3", 2),
    Setting("aarch64", 2, emulated=True),
)


def running(c: CaseBuilder, op: str, within: bool) -> Value:
    """Of rows that a table names, those up to a place count."""
    x, order = c.input(7, 12, 16), constant(np.array([3, 0, 6, 2, 5]))
    rows = c.op("gather", x, order, axis=0, within=within)
    return c.op(op, rows, axis=1, exclusive=within)


def bordered(c: CaseBuilder, how: str, within: bool) -> Value:
    """Sums of rows that a table names, whose borders are outside what is read."""
    x, order = c.input(7, 12, 16), constant(np.array([3, 0, 6, 2, 5]))
    rows = c.op("gather", x, order, axis=0, within=within)
    if how == "pad":
        wide = c.op("pad", rows, pads=(0, 2, 0, 0, 3, 0))
    else:
        wide = c.op("concat", c.input(5, 3, 16), rows, c.input(5, 2, 16), axis=1)
    return c.op("reduce_sum", wide, axes=(0,), keepdims=False)


def graphs() -> dict[str, Graph]:
    found = {}
    for within in (False, True):
        for name in ("cumsum", "cumprod", "pad", "concat"):
            c = CaseBuilder(f"{name}_within" if within else name)
            c.output((running if "cum" in name else bordered)(c, name, within))
            found[f"{name}_{within}"] = c.graph()
    return found


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_rows_of_a_tile_that_may_not_be_read(tmp_path: Path, setting: Setting) -> None:
    """What is looked up for one of them is not what the others read by."""
    if missing := setting.missing():
        pytest.skip(missing)
    jobs = {name: Job(graph, inputs_for(graph)) for name, graph in graphs().items()}
    want = {name: run_graph(job.graph, job.inputs)["y0"] for name, job in jobs.items()}
    for name, got in run_all(jobs, setting, tmp_path).items():
        assert not isinstance(got, Exception), got
        np.testing.assert_allclose(got["y0"], want[name], rtol=1e-4, atol=1e-5, err_msg=name)


def test_places_that_a_table_tells_are_no_neighbours() -> None:
    """Also where the steps beside the table's are of one element."""
    k = symbol("k")
    table = Load(Buffer("table", I64), k)
    load = Load(Buffer("x", DType.I32), k, ((table, 16),))
    base = ir.Constant(ir.IntType(8).as_pointer(), None)
    address = Address(base, 0, 0, (("k", 1),), looked=((table, 16),))
    assert StepLanes("k").value(None, load, address, 0, base) is None  # type: ignore[arg-type]
