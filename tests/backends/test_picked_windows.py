"""Poolings and convolutions of each channel whose windows are far apart: the same bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from integer_graphs import SAMPLES, WINDOW, Sketch, integers_made, ranges_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu.integer_form import integer_passes
from tensmith.backends.ethosu.picked_windows import PickWindows
from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import run_passes

# (operator, height and width of the data, kernel, strides, more attributes)
CASES: dict[str, tuple[Any, ...]] = {
    "maxima side by side": ("max_pool", (16, 24), (4, 4), (4, 4), {}),
    "maxima that overlap": ("max_pool", (23, 17), (7, 6), (6, 5), {"pads": (3, 2, 3, 2)}),
    "maxima with gaps": ("max_pool", (21, 26), (2, 3), (5, 4), {"pads": (1, 0, 0, 1)}),
    "maxima of what is left over": ("max_pool", (18, 21), (4, 5), (4, 5), {"ceil_mode": True}),
    "maxima of rows": ("max_pool", (16, 9), (4, 2), (4, 2), {}),
    "means": ("avg_pool", (16, 20), (4, 5), (4, 5), {}),
    "channels": ("conv", (19, 22), (5, 5), (4, 4), {"pads": (2, 2, 2, 2)}),
    "channels of a row": ("conv", (3, 40), (3, 9), (4, 8), {"pads": (0, 4, 0, 4)}),
}


def _sketch(case: str):
    op, sizes, kernel, strides, attrs = CASES[case]

    def make(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, *sizes), 16, (1, 1)))
        if op == "conv":
            return (s.relu(s.conv(x, 16, kernel, strides=strides, groups=16, **attrs)),)
        return (s.op(op, x, **{**WINDOW, "kernel": kernel, "strides": strides, **attrs}),)

    return make


@pytest.mark.parametrize("case", CASES)
def test_windows_that_are_picked_have_the_same_bits(case: str) -> None:
    sketch = Sketch(6)
    graph = sketch.graph(*_sketch(case)(sketch))
    samples = [sketch.draw(n) for n in range(SAMPLES)]
    passes = integer_passes(ranges_of(graph, samples))
    run_passes(graph, [each for each in passes if not isinstance(each, PickWindows)])
    wanted = [run_graph(graph, sample)["y0"] for sample in samples]
    assert PickWindows().run(graph)
    verify(graph)
    assert not PickWindows().run(graph)
    for sample, array in zip(samples, wanted, strict=True):
        np.testing.assert_array_equal(run_graph(graph, sample)["y0"], array)


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize("case", CASES)
def test_the_processor_takes_them(case: str, target: str) -> None:
    graph, *_ = integers_made(_sketch(case), 3)
    placement = place(graph, TARGETS[target])
    assert not placement.outside
    assert len(placement.segments) == 1
    assert not placement.streams[0].unchecked


def test_windows_too_far_apart_stay() -> None:
    """Ten times as many windows along each axis, or none of bytes."""

    def far(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 60, 60), 8, (1, 1)))
        return (s.op("max_pool", x, **{**WINDOW, "kernel": (4, 4), "strides": (20, 20)}),)

    graph, *_ = integers_made(far, 3)
    (pool,) = (node for node in graph.nodes if node.op == "max_pool")
    assert pool.attrs["strides"] == (20, 20)
