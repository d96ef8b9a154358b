"""Sizes that refer to smaller ones many times: written out they would fill any memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Setting, compile_graph
from suites.case import CaseBuilder

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim, dmax, floordiv, mod, size_of, symbol
from tensmith.runtime.loader import load

SETTING = Setting("x86-64-v3", 2)
pytestmark = pytest.mark.skipif(bool(SETTING.missing()), reason=SETTING.missing())


def large_size(depth: int) -> Dim:
    size: Dim = symbol("h")
    for _ in range(depth):
        size = dmax(floordiv(size * 3 + 1, 5) + floordiv(size, 7), floordiv(size, 2)) + mod(size, 3)
    return size


def rows_and_columns() -> Graph:
    """A column from the input and a row of a large size, added and summed."""
    size = large_size(24)
    assert size_of(size) > 1 << 40
    c = CaseBuilder("rows_and_columns")
    column = c.input(symbol("h"), 1)
    row = c.op("reshape", c.op("iota", shape=(size,), axis=0, dtype=column.dtype), shape=(1, size))
    table = c.op("add", column, row)
    c.output(table)
    c.output(c.op("reduce_sum", table, axes=(1,), keepdims=False))
    return c.graph()


def test_they_are_computed_and_not_written_out(tmp_path: Path) -> None:
    truth = rows_and_columns()
    model = compile_graph(rows_and_columns(), SETTING, tmp_path)
    assert [spec.dims for spec in model.outputs] == [("h", "?"), ("h",)]
    link(model, "so", tmp_path / "m.so")
    module, rng = load(tmp_path / "m.so"), np.random.default_rng(0)
    for height in (1, 2, 900):
        feed = {truth.inputs[0].name: rng.standard_normal((height, 1), np.float32)}
        for name, want in run_graph(truth, feed).items():
            np.testing.assert_allclose(module(feed)[name], want, rtol=1e-5)
