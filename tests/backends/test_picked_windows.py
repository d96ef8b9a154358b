"""Poolings and convolutions of each channel whose windows are far apart: the same bits, on the
processor where that is worth it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from integer_graphs import WINDOW, Sketch, integers_made
from tosa_runs import needs_vela

from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.picked_windows import (
    APART,
    MOST_MORE,
    NEAR,
    bring_near,
    host_cycles,
    moved_bytes,
    wide_windows,
)
from tensmith.backends.ethosu.placement import Placement, place
from tensmith.backends.ethosu.targets import TARGETS, parse_target
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Graph, Node
from tensmith.compiler.ir.verify import verify

U55 = TARGETS["ethos-u55-128"]

# (operator, height and width of the data, kernel, strides, more attributes)
CASES: dict[str, tuple[Any, ...]] = {
    "maxima side by side": ("max_pool", (16, 24), (4, 4), (4, 4), {}),
    "maxima of seven": ("max_pool", (28, 35), (7, 7), (7, 7), {}),
    "maxima that overlap": ("max_pool", (23, 17), (7, 6), (6, 4), {"pads": (3, 2, 3, 2)}),
    "maxima with gaps": ("max_pool", (21, 26), (2, 3), (5, 4), {"pads": (1, 0, 0, 1)}),
    "maxima from margins on": ("max_pool", (22, 19), (4, 5), (5, 6), {"pads": (2, 3, 1, 2)}),
    "maxima of what is left over": ("max_pool", (18, 21), (4, 5), (4, 5), {"ceil_mode": True}),
    "maxima of rows": ("max_pool", (16, 9), (4, 2), (4, 2), {}),
    "maxima of columns alone": ("max_pool", (8, 41), (1, 9), (1, 11), {"pads": (0, 4, 0, 4)}),
    "maxima of few windows of rows": ("max_pool", (31, 64), (2, 4), (30, 4), {}),
    "maxima of one window that overlaps": ("max_pool", (31, 64), (2, 5), (30, 4), {}),
    "means": ("avg_pool", (16, 24), (4, 6), (4, 6), {}),
    "channels": ("conv", (19, 22), (5, 5), (4, 4), {"pads": (2, 2, 2, 2)}),
    "channels of a row": ("conv", (3, 40), (3, 9), (4, 8), {"pads": (0, 4, 0, 4)}),
    "channels of one window of rows": ("conv", (31, 64), (3, 9), (30, 4), {}),
    "channels of one window of columns": ("conv", (64, 9), (9, 3), (4, 11), {"pads": (4, 1, 4, 1)}),
}
# what the processor takes in no form that is brought near
REFUSED: dict[str, tuple[Any, ...]] = {
    "channels too far apart": ("conv", (60, 60), (4, 4), (20, 20), {}),
    "means of seven": ("avg_pool", (28, 28), (7, 7), (7, 7), {}),
    "maxima of seven that overlap": ("max_pool", (29, 29), (8, 8), (7, 7), {}),
    "maxima of high windows": ("max_pool", (400, 8), (260, 2), (5, 2), {}),
    "channels of high windows": ("conv", (130, 40), (65, 3), (4, 4), {}),
}


def _sketch(case: str, channels: int = 16):
    op, sizes, kernel, strides, attrs = {**CASES, **REFUSED}[case]

    def make(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, *sizes), channels, (1, 1)))
        if op == "conv":
            own = {"strides": strides, "groups": channels, **attrs}
            return (s.relu(s.conv(x, channels, kernel, **own)),)
        return (s.op(op, x, **{**WINDOW, "kernel": kernel, "strides": strides, **attrs}),)

    return make


def _near(graph: Graph) -> Graph:
    """A copy of a graph with its one wide node brought near."""
    near = copied(graph)
    (node,) = wide_windows(near)
    assert bring_near(near, node)
    verify(near)
    assert not wide_windows(near)
    return near


def _windows(graph: Graph) -> list[Node]:
    return [n for n in graph.nodes if n.op == "max_pool" or n.attrs.get("groups", 1) > 1]


@pytest.mark.parametrize("case", CASES)
def test_windows_brought_near_have_the_same_bits(case: str) -> None:
    graph, _, samples, _ = integers_made(_sketch(case), 6)
    near = _near(graph)
    for sample in samples:
        wanted = run_graph(graph, sample)["y0"]
        np.testing.assert_array_equal(run_graph(near, sample)["y0"], wanted)


@pytest.mark.parametrize("case", CASES)
def test_no_windows_are_computed_beyond_the_limit(case: str) -> None:
    """Nor along an axis of one window. Maxima along one axis and then along the other read at most
    all elements of windows once more."""
    graph, *_ = integers_made(_sketch(case), 6)
    (node,) = wide_windows(graph)
    taken = sum(host_cycles(each) for each in _windows(_near(graph)))
    assert taken <= MOST_MORE * host_cycles(node) + host_cycles(node)


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize("case", CASES)
def test_the_processor_takes_them(case: str, target: str) -> None:
    graph, *_ = integers_made(_sketch(case), 3)
    placement = place(_near(graph), TARGETS[target])
    assert not placement.outside
    assert len(placement.segments) == 1
    assert not placement.streams[0].unchecked


@needs_vela
@pytest.mark.parametrize("case", REFUSED)
def test_what_the_processor_takes_in_no_form_stays_on_the_host(case: str) -> None:
    """With as many windows as before."""
    graph, *_ = integers_made(_sketch(case, 8), 3)
    before = [node.output.shape for node in graph.nodes]
    (node,) = wide_windows(graph)
    assert not bring_near(graph, node)
    assert [node.output.shape for node in graph.nodes] == before
    placement = arranged(graph, U55, {})
    (name,) = (d.name for d in decisions_of(graph, U55) if d.name.startswith("windows"))
    assert placement.outside
    with pytest.raises(ScheduleError, match="cannot be decided as 'near'"):
        arranged(graph, U55, {name: NEAR})


def _both(graph: Graph, target=U55) -> tuple[Placement, Placement, Node]:
    """(a graph placed with windows apart, as usual, the node of these windows)"""
    (node,) = wide_windows(graph)
    apart = arranged(graph, target, {f"windows of {node.name}": APART})
    return apart, arranged(graph, target, {}), node


@needs_vela
@pytest.mark.parametrize(
    "case", ["maxima of seven", "maxima side by side", "channels", "means", "maxima of rows"]
)
def test_what_is_brought_near_is_worth_its_cycles_and_memory(case: str) -> None:
    graph, *_ = integers_made(_sketch(case), 3)
    apart, usual, node = _both(graph)
    assert apart.outside
    assert not usual.outside
    assert apart.cycles < usual.cycles <= apart.cycles + host_cycles(node)
    assert usual.streams[0].scratch_bytes <= apart.streams[0].scratch_bytes + moved_bytes(node)


@needs_vela
def test_windows_that_the_host_takes_fewer_cycles_for_stay_apart() -> None:
    """Two of the five rows are read, and the image is laid out anew."""
    graph, *_ = integers_made(_sketch("maxima with gaps"), 3)
    apart, usual, node = _both(graph)
    assert place(_near(graph), U55).cycles > apart.cycles + host_cycles(node)
    assert usual.outside == apart.outside == 1
    name = f"windows of {node.name}"
    assert name in {decision.name for decision in decisions_of(graph, U55)}
    assert not arranged(graph, U55, {name: NEAR}).outside


@needs_vela
def test_maxima_of_large_images_take_no_more_memory() -> None:
    def make(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 112, 112), 24, (1, 1)))
        return (s.op("max_pool", x, **{**WINDOW, "kernel": (7, 7), "strides": (7, 7)}),)

    graph, *_ = integers_made(make, 2)
    apart, usual, _ = _both(graph)
    assert not usual.outside
    assert usual.streams[0].scratch_bytes <= apart.streams[0].scratch_bytes
    assert usual.cycles < 2.5 * apart.cycles


@needs_vela
def test_windows_stay_apart_where_the_memory_holds_no_others() -> None:
    def make(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 112, 112), 24, (1, 1)))
        return (s.op("max_pool", x, **{**WINDOW, "kernel": (5, 5), "strides": (4, 4)}),)

    graph, *_ = integers_made(make, 3)
    apart, usual, _ = _both(graph)
    assert not usual.outside
    taken, more = apart.streams[0].scratch_bytes, usual.streams[0].scratch_bytes
    assert taken < more
    little = parse_target(f"ethos-u55-128+arena-cache-size={taken + (more - taken) // 4}")
    apart, usual, _ = _both(graph, little)
    assert not usual.excess(little)
    assert usual.outside == apart.outside > 0


@needs_vela
def test_windows_of_one_model_are_decided_by_themselves() -> None:
    def make(s: Sketch):
        x = s.relu(s.conv(s.input(1, 4, 65, 64), 16, (1, 1)))
        x = s.op("max_pool", x, **{**WINDOW, "kernel": (5, 4), "strides": (4, 4)})
        x = s.relu(s.conv(x, 16, (1, 1)))
        return (s.op("max_pool", x, **{**WINDOW, "kernel": (4, 4), "strides": (4, 4)}),)

    graph, *_ = integers_made(make, 3)
    names = [d.name for d in decisions_of(graph, U55) if d.values == (APART, NEAR)]
    assert len(set(names)) == 2
    cycles = {}
    for ways in [(APART, APART), (APART, NEAR), (NEAR, APART), (NEAR, NEAR)]:
        placement = arranged(graph, U55, dict(zip(names, ways, strict=True)))
        assert placement.outside == ways.count(APART)
        cycles[ways] = placement.cycles
    assert len(set(cycles.values())) == len(cycles)
    assert arranged(graph, U55, {}).cycles == cycles[NEAR, NEAR]
