"""Weights of fewer steps: what they are afterwards, and that nothing else of a product changes."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import CASES, Sketch, integers_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.weight_steps import decide_weights, steps_key, weight_decisions
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Graph
from tensmith.compiler.ir.verify import verify

PRODUCTS = ["conv_relu", "conv_without_bias", "depthwise", "depthwise_of_two", "transposed"]


def _decided(graph: Graph, steps: int) -> Graph:
    found = copied(graph)
    decide_weights(found, {own.name: steps for own in weight_decisions(graph)})
    verify(found)
    return found


def _peaks(graph: Graph) -> list[np.ndarray]:
    """The greatest magnitudes of the weights of output channels."""
    products = (node for node in graph.nodes if node.op in ("conv", "conv_transpose", "matmul"))
    return [np.abs(node.inputs[1].data).reshape(-1, node.inputs[1].shape[-1]).max(axis=0)
            for node in products]  # fmt: skip


@pytest.mark.parametrize("name", PRODUCTS)
def test_fewer_steps_are_nearly_the_same_product(name):
    graph, _, samples, _ = integers_of(name, 3)
    (decision,) = weight_decisions(graph)
    assert decision.values == tuple(sorted(decision.values, reverse=True))
    wanted = run_graph(graph, samples[0])["y0"]
    errors = []
    for steps in (90, 31, 7):
        assert steps in decision.values
        coarse = _decided(graph, steps)
        assert all((peak == steps).all() for peak in _peaks(coarse))
        found = run_graph(coarse, samples[0])["y0"]
        errors.append(float(np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2))))
    assert 0 < errors[0] < errors[1] < errors[2]
    assert errors[1] < 2 / 31
    assert errors[2] < 2 / 7


def test_the_graph_itself_stays_and_is_found_again():
    graph, *_ = integers_of("conv_relu", 3)
    before = steps_key(graph)
    _decided(graph, 7)
    assert all((peak == 127).all() for peak in _peaks(graph))
    assert steps_key(copied(graph)) == before


@pytest.mark.parametrize("choice", [{"steps of nothing": 7}, {"": 7}])
def test_decisions_that_there_are_not(choice):
    graph, *_ = integers_of("conv_relu", 3)
    with pytest.raises(ScheduleError, match="cannot be decided"):
        decide_weights(graph, choice)


@pytest.mark.parametrize("steps", [8, 127, 0, "7"])
def test_steps_that_there_are_not(steps):
    graph, *_ = integers_of("conv_relu", 3)
    (decision,) = weight_decisions(graph)
    with pytest.raises(ScheduleError, match="cannot be decided"):
        decide_weights(graph, {decision.name: steps})


def many_weights(s: Sketch):
    """A layer of many weights for each multiplication."""
    return s.relu(s.op("matmul", s.input(1, 256), s.weights(256, 128, size=0.06)))


@needs_vela
@pytest.mark.parametrize("target", ["ethos-u55-128", "ethos-u65-256", "ethos-u85-256"])
def test_fewer_steps_take_fewer_bytes_and_cycles(target, monkeypatch):
    monkeypatch.setitem(CASES, "many_weights", many_weights)
    graph, *_ = integers_of("many_weights", 3)
    streams = [place(_decided(graph, steps), TARGETS[target]).streams[0] for steps in (90, 31, 7)]
    sizes = [len(stream.weights) for stream in streams]
    assert sizes[0] > sizes[1] > sizes[2]
    assert sizes[2] < 0.65 * sizes[0]
    cycles = [stream.estimate.cycles for stream in streams]
    assert cycles[0] > cycles[2]
