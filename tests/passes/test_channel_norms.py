"""Group and instance normalisations of pictures leave the channels where layouts want them."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Dim, Graph, constant
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.layout.channel_norms import ChannelNorms
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes

SAME = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 1, 1, 1)}


def normalising(groups: int, batch: Dim = 2, size: int = 4, scale: float = 1.0) -> Graph:
    """A group normalisation of 8 channels between two convolutions."""
    c = CaseBuilder("normalising")
    x = c.op("conv", c.input(batch, 8, size, size), c.weight(8, 8, 3, 3), **SAME)
    if groups == 8:
        ones = constant(np.full((size, size), scale, np.float32))
        x = c.op("layer_norm", x, ones, axis=2)
    else:
        length = 8 // groups * size * size
        ones = constant(np.full(length, scale, np.float32))
        rows = c.op("reshape", x, shape=(batch, groups, length))
        rows = c.op("layer_norm", rows, ones, axis=2)
        x = c.op("reshape", rows, shape=(batch, 8, size, size))
    x = c.op("mul", x, c.weight(8, 1, 1))
    c.output(c.op("conv", x, c.weight(8, 8, 3, 3), **SAME))
    return c.graph()


@pytest.mark.parametrize("batch", [2, N])
@pytest.mark.parametrize("groups", [1, 2, 8])
def test_means_by_channel(groups: int, batch: Dim) -> None:
    graph = normalising(groups, batch)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (Fixpoint((ChannelNorms(), *SIMPLIFY)),))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    assert count(graph)["layer_norm"] == 0
    pictures = [node for node in graph.nodes if node.op == "reduce_mean"]
    assert {node.attrs["axes"] for node in pictures} <= {(2,), (2, 3)}


def test_no_transposes_between_convolutions() -> None:
    graph = normalising(2, batch=1, size=16)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, optimization_passes(2))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    large = [n for n in graph.nodes if n.op == "transpose" and n.output.type.elements == 8 * 256]
    assert len(large) == 2  # of the input and of the output


def test_others_stay() -> None:
    """With a scale for every pixel, or without convolutions."""
    assert not ChannelNorms().run(normalising(2, scale=2.0))
    c = CaseBuilder("rows")
    x = c.input(2, 3, 4, 4)
    c.output(c.op("layer_norm", x, constant(np.ones((4, 4), np.float32)), axis=2))
    assert not ChannelNorms().run(c.graph())
