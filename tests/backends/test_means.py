"""Means of windows by pooling and by convolutions: the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import WINDOW, Sketch, integers_made, integers_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.means import CONVOLUTION, POOLING, convolve, pooled_means
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.tosa.region import tosa_of
from tensmith.backends.ethosu.tosa.schema import Op
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Value

U55 = TARGETS["ethos-u55-128"]


def of_columns(s: Sketch) -> tuple[Value, ...]:
    x = s.relu(s.conv(s.input(1, 4, 6, 24), 32, (1, 1)))
    attrs = {**WINDOW, "kernel": (1, 24)}
    return (s.op("tanh", s.op("avg_pool", x, **attrs)),)


def _pools(placement) -> list[int]:
    """How many poolings each segment has."""
    graphs = [tosa_of(segment.regions[0]) for segment in placement.segments]
    return [sum(o.op is Op.AVG_POOL2D for o in graph.operators) for graph in graphs]


@needs_vela
@pytest.mark.parametrize("name", ["averaged", "averaged_whole", "averaged_by_a_finer_scale"])
def test_a_convolution_gives_the_same_bits(name: str) -> None:
    graph, _, samples, _ = integers_of(name, 3)
    summed = copied(graph)
    (chain,) = pooled_means(summed, U55)
    convolve(chain)
    assert not pooled_means(summed, U55)
    for sample in samples:
        wanted = run_graph(graph, sample)["y0"]
        np.testing.assert_array_equal(run_graph(summed, sample)["y0"], wanted)


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_means_are_made_as_takes_fewer_cycles(target: str) -> None:
    graph, *_ = integers_made(of_columns, 4)
    (decision,) = (d for d in decisions_of(graph, TARGETS[target]) if d.name.startswith("mean"))
    assert decision.exact
    ways = {how: arranged(graph, TARGETS[target], {decision.name: how}) for how in decision.values}
    assert _pools(ways[POOLING]) == [1]
    assert _pools(ways[CONVOLUTION]) == [0]
    usual = arranged(graph, TARGETS[target], {})
    assert usual.cycles == min(placement.cycles for placement in ways.values())
    with pytest.raises(ScheduleError, match="mean of"):
        arranged(graph, TARGETS[target], {decision.name: "guessing"})
