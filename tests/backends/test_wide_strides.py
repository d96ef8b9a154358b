"""Convolutions whose windows are far apart: the same bits, on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from integer_graphs import SAMPLES, Sketch, integers_made, ranges_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu.integer_form import integer_passes
from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.wide_strides import FoldStrides
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import run_passes

# (shape of the data, output channels, kernel, strides, margins)
CASES: dict[str, tuple[Any, ...]] = {
    "patches": ((1, 3, 16, 24), 8, (4, 4), (4, 4), (0, 0, 0, 0)),
    "windows that overlap": ((1, 3, 21, 18), 8, (7, 7), (4, 4), (3, 3, 3, 3)),
    "what no window reaches": ((1, 4, 23, 28), 8, (5, 5), (5, 6), (0, 0, 0, 0)),
    "gaps between windows": ((1, 4, 25, 26), 8, (3, 2), (5, 7), (1, 0, 0, 1)),
    "wide margins": ((1, 2, 9, 14), 8, (9, 11), (4, 5), (6, 7, 5, 8)),
    "rows alone": ((1, 4, 17, 9), 8, (5, 3), (4, 2), (1, 1, 2, 0)),
    "columns of a spectrum": ((1, 1, 1, 200), 12, (1, 64), (1, 32), (0, 0, 0, 8)),
    "one window of rows that leaves some over": ((1, 4, 6, 17), 8, (1, 3), (4, 5), (0, 4, 0, 4)),
    "one window of columns": ((1, 4, 17, 8), 8, (3, 3), (5, 7), (0, 0, 0, 1)),
    "one window of a row": ((1, 2, 12, 8), 8, (4, 8), (4, 8), (0, 0, 0, 0)),
}


def _sketch(case: str):
    shape, channels, kernel, strides, pads = CASES[case]

    def make(s: Sketch):
        return (s.relu(s.conv(s.input(*shape), channels, kernel, strides=strides, pads=pads)),)

    return make


@pytest.mark.parametrize("case", CASES)
def test_fewer_steps_give_the_same_bits(case: str) -> None:
    sketch = Sketch(6)
    graph = sketch.graph(*_sketch(case)(sketch))
    samples = [sketch.draw(n) for n in range(SAMPLES)]
    passes = integer_passes(ranges_of(graph, samples))
    run_passes(graph, [each for each in passes if not isinstance(each, FoldStrides)])
    wanted = [run_graph(graph, sample)["y0"] for sample in samples]
    assert FoldStrides().run(graph)
    verify(graph)
    assert not FoldStrides().run(graph)
    for sample, array in zip(samples, wanted, strict=True):
        np.testing.assert_array_equal(run_graph(graph, sample)["y0"], array)


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize("case", ["patches", "windows that overlap", "columns of a spectrum"])
def test_the_processor_takes_them(case: str, target: str) -> None:
    graph, *_ = integers_made(_sketch(case), 3)
    placement = place(graph, TARGETS[target])
    assert not placement.outside
    (segment,) = placement.segments
    moved = {node.op for node in segment.regions[0].nodes}
    assert moved.isdisjoint({"transpose", "pad", "slice"})  # the host does that
    assert not placement.streams[0].unchecked


@needs_vela
def test_what_is_not_folded_names_its_strides() -> None:
    def depthwise(s: Sketch):
        return (s.conv(s.input(1, 16, 16, 16), 16, (5, 5), strides=(4, 4), groups=16),)

    graph, *_ = integers_made(depthwise, 3)
    placement = place(graph, TARGETS["ethos-u55-128"])
    assert not placement.segments
    assert "strides are at most 3, not 4" in {node.reason for node in placement.nodes}
