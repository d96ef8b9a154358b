"""Constants whose elements do not lie one behind the other in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Setting, compile_graph
from suites.case import CaseBuilder

from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.graph import constant
from tensmith.runtime.loader import load

SETTING = Setting("x86-64-v3", 2)
pytestmark = pytest.mark.skipif(bool(SETTING.missing()), reason=SETTING.missing())
EVERY = np.arange(48, dtype=np.float32)
VIEWS = {
    "strided": EVERY[::6],
    "reversed": EVERY[7::-1],
    "transposed": EVERY.reshape(8, 6).T[2],
    "repeated": np.broadcast_to(EVERY[3], (8,)),
}


def _sum(view: np.ndarray[Any, Any]) -> Graph:
    c = CaseBuilder("sum")
    c.output(c.op("add", c.input(3, 8), constant(view)))
    return c.graph()


@pytest.mark.parametrize("view", list(VIEWS.values()), ids=list(VIEWS))
def test_views_are_written_as_what_they_show(view: np.ndarray[Any, Any], tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, 8), np.float32)
    link(compile_graph(_sum(view), SETTING, tmp_path), "so", tmp_path / "m.so")
    truth = _sum(view)
    feed = {truth.inputs[0].name: x}
    for name, want in run_graph(truth, feed).items():
        np.testing.assert_array_equal(load(tmp_path / "m.so")(feed)[name], want)
