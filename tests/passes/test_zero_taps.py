"""Windows lose the taps that zero weights make dead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import inputs_for, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Graph, constant, symbol
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.arithmetic.zero_taps import ZeroTaps


def _conv(
    zero: Any, kernel: tuple[int, int] = (3, 3), pads: tuple[int, ...] = (1,) * 4, **more: Any
) -> Graph:
    """A convolution whose taps are zero at some places."""
    c = CaseBuilder("taps")
    w = np.random.default_rng(1).normal(size=(6, 4, *kernel)).astype(np.float32)
    w[:, :, zero[0], zero[1]] = 0
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": pads, **more}
    rows = attrs.pop("rows", 9)
    c.output(c.op("conv", c.input(2, 4, rows, 9), constant(w), c.weight(6), **attrs))
    return c.graph()


def _cropped(graph: Graph) -> tuple[Any, Any]:
    """Window and padding of the convolution that is left; checks the results."""
    inputs = inputs_for(graph, h=9)
    want, work = run_graph(graph, inputs), graph_work(graph)
    run_passes(graph, (ZeroTaps(),))
    same_results(want, run_graph(graph, inputs))
    assert graph_work(graph) <= work
    (node,) = (node for node in graph.nodes if node.op == "conv")
    return node.inputs[1].shape[2:], node.attrs["pads"]


ALL = slice(None)


@pytest.mark.parametrize(
    ("zero", "more", "window", "pads"),
    [
        (([0], ALL), {}, (2, 3), (0, 1, 1, 1)),
        ((ALL, [0, 2]), {}, (3, 1), (1, 0, 1, 0)),
        (([0, 2], ALL), {"strides": (2, 2)}, (1, 3), (0, 1, 0, 1)),
        (([1], ALL), {}, (3, 3), (1, 1, 1, 1)),
        (([2], ALL), {"dilations": (2, 1), "pads": (2, 1, 2, 1)}, (2, 3), (2, 1, 0, 1)),
        (([0], ALL), {"pads": (0, 0, 0, 0)}, (2, 3), (0, 0, 0, 0)),
        (([0], ALL), {"rows": symbol("h")}, (2, 3), (0, 1, 1, 1)),
    ],
)
def test_windows(zero: Any, more: dict[str, Any], window: Any, pads: Any) -> None:
    assert _cropped(_conv(zero, **more)) == (window, pads)


def test_rows_that_only_a_run_knows_are_not_cropped() -> None:
    graph = _conv(([0], ALL), pads=(0,) * 4, rows=symbol("h"))
    assert _cropped(graph) == ((3, 3), (0,) * 4)


@pytest.mark.parametrize(("made", "inner"), [(0, 3), (4, 0)])
def test_filters_without_elements(made: int, inner: int) -> None:
    c = CaseBuilder("nothing")
    w = constant(np.zeros((made, inner, 3, 3), np.float32))
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4, "groups": 1}
    c.output(c.op("conv", c.input(1, inner, 8, 8), w, **attrs))
    assert not ZeroTaps().run(c.graph())


def test_it_is_told() -> None:
    told: list[Saving] = []
    ZeroTaps(told.append).run(_conv(([0, 2], ALL)))
    assert [(item.by, item.after / item.before) for item in told] == [("zero_taps", 1 / 3)]


@settings(max_examples=60)
@given(st.integers(0, 1 << 20))
def test_random_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    kernel = (int(rng.integers(1, 6)), int(rng.integers(1, 6)))
    c = CaseBuilder("taps")
    first = bool(rng.integers(2))
    groups = int(rng.choice([1, 2]))
    w = rng.normal(size=(4, 6 // groups, *kernel)).astype(np.float32)
    mask = rng.random(kernel) < 0.4
    w *= mask
    shape, layout = (1, 6, 7, 7), "NCHW"
    if not first:
        w, shape, layout = w.transpose(2, 3, 1, 0).copy(), (1, 7, 7, 6), "NHWC"
    window = {
        "strides": tuple(rng.integers(1, 3, 2).tolist()),
        "dilations": tuple(rng.integers(1, 3, 2).tolist()),
        "pads": tuple(rng.integers(1, 5, 4).tolist()),
    }
    x = c.input(*shape)
    c.output(c.op("conv", x, constant(w), layout=layout, groups=groups, **window))
    graph = c.graph()
    inputs = inputs_for(graph)
    want, work = run_graph(graph, inputs), graph_work(graph)
    run_passes(graph, (ZeroTaps(),))
    same_results(want, run_graph(graph, inputs))
    assert graph_work(graph) <= work
