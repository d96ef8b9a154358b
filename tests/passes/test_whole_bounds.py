"""Bounds of floats that are rounded next become bounds of whole numbers, with the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiled import Job, Setting, compile_graph, run_all
from rewriting import count
from suites.case import F32, I8, I32, U8, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.byte_products import ByteProducts
from tensmith.passes.precision.whole_bounds import WholeBounds
from tensmith.passes.simplify.dce import DeadCodeElimination

SUMS = [0, 1, -1, 3, 255, 256, -256, 5000, -5000, 1 << 30, -(1 << 30), (1 << 31) - 1, -(1 << 31)]
PASSES = (WholeBounds(), DeadCodeElimination())


def rounded(low: float, high: float, factor: float, dtype: Any = I32) -> Graph:
    """round(sums * factor) within bounds, of sums that are integers, or floats."""
    c = CaseBuilder("rounded")
    x = c.input(N, dtype=dtype, name="x")
    scaled = c.op("mul", c.op("cast", x, dtype=F32), c.scalar(factor))
    inside = c.op("at_most", c.op("at_least", scaled, c.scalar(low)), c.scalar(high))
    c.output(c.op("rint", inside))
    return c.graph()


@pytest.mark.parametrize("factor", [0.5, 0.0117, -3.0, 1e12])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-128, 127), (-17, 238)])
def test_whole_bounds(low: int, high: int, factor: float) -> None:
    graph, given = rounded(low, high, factor), {"x": np.asarray(SUMS, np.int32)}
    wanted = run_graph(graph, given)
    run_passes(graph, PASSES)
    ops = count(graph)
    assert ops["at_least"] == ops["at_most"] == 0
    assert ops["max"] == ops["min"] == 1
    np.testing.assert_array_equal(run_graph(graph, given)["y0"], wanted["y0"])


@pytest.mark.parametrize(
    ("low", "high", "factor", "dtype"),
    [(0.5, 255, 0.1, I32), (0, float("inf"), 0.1, I32), (0, 255, 1e30, I32), (0, 255, 0.1, F32)],
)
def test_bounds_that_stay(low: float, high: float, factor: float, dtype: Any) -> None:
    """Those that are not whole, those of factors that make infinities, and those of floats, which
    may be NaN."""
    graph = rounded(low, high, factor, dtype)
    assert not WholeBounds().run(graph)


@pytest.mark.parametrize("target", ["aarch64", "cortex-m4", "cortex-m55"])
def test_arm_converts_with_saturation(target: str, tmp_path: Any) -> None:
    graph = rounded(0, 255, 1e12)
    if target != "aarch64":
        texts = frozenset({"asm"})
        model = compile_graph(graph, Setting(target, 2), tmp_path, texts=texts)
        word = {"cortex-m4": "usat", "cortex-m55": "vmin.s32"}[target]
        assert word in model.code.texts["asm"]
        return
    setting = Setting(target, 2, emulated=True)
    if missing := setting.missing():
        pytest.skip(missing)
    given = {"x": np.asarray(SUMS, np.int32)}
    wanted = run_graph(rounded(0, 255, 1e12), given)
    (got,) = run_all({"m": Job(graph, given)}, setting, tmp_path).values()
    assert not isinstance(got, Exception), got
    np.testing.assert_array_equal(got["y0"], wanted["y0"])


@pytest.mark.parametrize("floats", [False, True])
def test_one_channel_is_added_up_by_what_the_target_has(floats: bool) -> None:
    c = CaseBuilder("depthwise")
    x = c.input(1, 8, 6, 5, dtype=U8, low=0, high=256, name="x")
    wide = c.op("cast", x, dtype=I32)
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4, "groups": 8}
    data = c.weight(8, 1, 3, 3, dtype=I32, low=-127, high=128)
    c.output(c.op("conv", wide, data, **window))
    graph = c.graph()
    given = {"x": np.random.default_rng(1).integers(0, 256, (1, 8, 6, 5)).astype(np.uint8)}
    wanted = run_graph(graph, given)
    run_passes(graph, (ByteProducts(floats=floats), DeadCodeElimination()))
    (conv,) = [node for node in graph.nodes if node.op == "conv"]
    assert conv.attrs["accumulate"] is (F32 if floats else I32)
    assert conv.inputs[1].dtype is (F32 if floats else I8)
    np.testing.assert_array_equal(run_graph(graph, given)["y0"], wanted["y0"])
