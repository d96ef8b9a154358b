"""Convolutions whose windows are far apart: the same bits, on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from integer_graphs import SAMPLES, Sketch, integers_made, ranges_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.folded_width import conv_chains, folds
from tensmith.backends.ethosu.integer_form import FLOAT_FORM, integer_passes
from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.wide_strides import FoldStrides, grouped
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.graph import Graph, Node, Value, constant
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.compiler.ir.types import DType, TensorType
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
    "single elements": ((1, 4, 33, 26), 8, (1, 1), (8, 5), (0, 0, 0, 0)),
    "single elements, from margins on": ((1, 4, 33, 26), 8, (1, 1), (8, 5), (3, 2, 4, 0)),
    "few of a group": ((1, 4, 30, 29), 8, (2, 3), (9, 7), (3, 0, 0, 5)),
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


@pytest.mark.parametrize("stride", [1, 4])
def test_what_stays_in_floats_stays_whole(stride: int) -> None:
    """A convolution that nothing quantises has its bias as an input."""
    sketch = Sketch(6)
    x = sketch.input(1, 3, 8, 8)
    graph = sketch.graph(sketch.conv(x, 8, strides=(stride,) * 2))
    wanted = run_graph(graph, sketch.draw(0))["y0"]
    run_passes(graph, [*FLOAT_FORM, *integer_passes({})])
    assert [len(node.inputs) for node in graph.nodes if node.op == "conv"] == [3]
    np.testing.assert_allclose(run_graph(graph, sketch.draw(0))["y0"], wanted, atol=1e-5)


@needs_vela
@pytest.mark.parametrize("stride", [1, 4])
def test_part_of_a_model_in_floats(stride: int) -> None:
    """Of two convolutions one is quantised, and is all that the processor runs."""
    sketch = Sketch(6)
    first = sketch.relu(sketch.conv(sketch.input(1, 4, 16, 16), 8, pads=(1,) * 4))
    between = sketch.op("sin", first)
    graph = sketch.graph(sketch.conv(between, 8, strides=(stride,) * 2))
    run_passes(graph, FLOAT_FORM)
    samples = [sketch.draw(n) for n in range(SAMPLES)]
    known = ranges_of(graph, samples)
    left = [between, *graph.outputs]
    run_passes(graph, integer_passes({v: r for v, r in known.items() if v not in left}))
    placement = place(graph, TARGETS["ethos-u55-128"])
    assert len(placement.segments) == 1
    reasons = {node.reason for node in placement.nodes}
    assert "it computes in f32, and the processor in integers alone" in reasons


def wide(kernel: int, *, before: int = 0, channels: int = 2, pad_value: int = 0) -> Graph:
    """A convolution of bytes in windows of so many rows and columns, eight apart."""
    rng = np.random.default_rng(4)
    nodes: list[Node] = []
    builder = Builder(nodes)
    x = Value(TensorType(DType.I8, (1, 20, 20, channels)), "x")
    less = builder.emit("add", [builder.emit("cast", [x], {"dtype": DType.I32}), _i32(-3)])
    filters = rng.integers(-9, 9, (kernel, kernel, channels, 4)).astype(np.int32)
    attrs = {"strides": (8, 8), "pads": (before,) * 4, "dilations": (1, 1), "groups": 1}
    more = {"layout": "NHWC", "pad_value": pad_value}
    result = builder.emit("conv", [less, constant(filters)], {**attrs, **more})
    result.name = "y"
    return Graph([x], [result], nodes)


def _i32(number: int) -> Value:
    return constant(np.int32(number))


def test_rows_and_columns_that_no_window_reaches_are_left_out() -> None:
    graph = wide(1, channels=256)
    assert FoldStrides().run(graph)
    (conv,) = (node for node in graph.nodes if node.op == "conv")
    assert conv.inputs[1].shape == (1, 1, 256, 4)


def test_windows_whose_weights_would_be_zeros_stay_apart() -> None:
    """Windows of two rows and columns, the first of which are the last of a group."""
    assert not FoldStrides().run(wide(2, before=1))
    assert FoldStrides().run(wide(3, before=0))


def test_what_the_processor_takes_in_no_form_stays() -> None:
    """Margins of another number, and more channels than an axis has elements."""
    assert not FoldStrides().run(wide(7, before=1, pad_value=5))
    assert FoldStrides().run(wide(7, before=1))
    assert not FoldStrides().run(wide(8, channels=2048))


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
        attrs = {"strides": (4, 4), "dilations": (2, 2), "groups": 16}
        return (s.conv(s.input(1, 16, 16, 16), 16, (5, 5), **attrs),)

    graph, *_ = integers_made(depthwise, 3)
    placement = place(graph, TARGETS["ethos-u55-128"])
    assert not placement.segments
    assert "strides are at most 3, not 4" in {node.reason for node in placement.nodes}


@needs_vela
def test_rows_and_columns_are_one_only_where_weights_grow_little() -> None:
    """Windows of two rows and columns, three apart, of which the first begin in the margin: each
    weight is in a group of its own, and 4 become 36."""

    def image(s: Sketch):
        return (s.relu(s.conv(s.input(1, 3, 16, 16), 8, (2, 2), strides=(3, 3), pads=(1,) * 4)),)

    graph, _, samples, _ = integers_made(image, 2)
    target = TARGETS["ethos-u55-128"]
    (chain,) = conv_chains(graph, target)
    assert grouped(chain.conv, 1) is None
    assert not any(fold.with_rows for fold in folds(chain))
    placement = arranged(graph, target, {})
    assert not placement.outside
    found, wanted = (run_graph(g, samples[0])["y0"] for g in (placement.graph, graph))
    np.testing.assert_array_equal(found, wanted)
    (columns,) = (d.name for d in decisions_of(graph, target) if d.name.startswith("columns"))
    with pytest.raises(ScheduleError, match="columns of"):
        arranged(graph, target, {columns: "rows and columns"})
