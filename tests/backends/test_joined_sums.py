"""Sums as convolutions: the images that they read are ones that a processor takes."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import Sketch, integers_made
from tosa_runs import needs_vela

from tensmith.backends.ethosu import arrangement, joined_sums
from tensmith.backends.ethosu.arrangement import arranged, decisions_of
from tensmith.backends.ethosu.joined_sums import (
    JOINED,
    MOST_CHANNELS,
    is_exact,
    join_sum,
    scaled_sums,
)
from tensmith.backends.ethosu.legality import MOST_SIZE, legality
from tensmith.backends.ethosu.placement import Expense, estimated
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Graph
from tensmith.compiler.ir.verify import verify

U55 = TARGETS["ethos-u55-128"]
MANY_PIXELS = (260, 256, 1, 4)  # those of the outer axes are more than an axis may have


def _sum(*shape: int) -> tuple[Graph, list[dict[str, np.ndarray]]]:
    """(a sum of two tensors by one scale, in integers, samples)"""

    def make(s: Sketch):
        sides = [s.op("tanh", s.input(*shape)) for _ in range(2)]
        return (s.op("add", *sides),)

    graph, _, samples, _ = integers_made(make, 2)
    (scaled,) = (node for node in graph.nodes if node.op == "requantize" and _adds(node))
    left, right = (value.producer for value in scaled.inputs[0].producer.inputs)
    right.inputs[1] = left.inputs[1]
    return graph, samples


def _adds(node) -> bool:
    return node.inputs[0].producer.op == "add" and len(node.inputs[0].producer.inputs) == 2


@needs_vela
@pytest.mark.parametrize("shape", [(1, 40000), (1, 2, 3, MOST_CHANNELS + 1)])
def test_long_rows_are_added(shape, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights of convolutions would be as many as the square of their elements."""
    graph, _ = _sum(*shape)
    monkeypatch.setattr(joined_sums.np, "eye", None)  # nothing makes weights
    assert not scaled_sums(graph)
    assert not any(d.name.startswith("sum of") for d in decisions_of(graph, U55))
    placement = arranged(graph, U55, {})
    assert not placement.outside
    assert "conv" not in {node.op for node in placement.nodes}


@pytest.mark.parametrize("shape", [(1, 8, 8, MOST_CHANNELS), (3, 5), MANY_PIXELS])
def test_images_have_axes_that_a_processor_takes(shape) -> None:
    graph, samples = _sum(*shape)
    (scaled,) = scaled_sums(graph)
    assert is_exact(scaled)
    joined = copied(graph)
    join_sum(joined, *scaled_sums(joined), JOINED)
    verify(joined)
    (conv,) = (node for node in joined.nodes if node.op == "conv")
    assert legality(conv, U55) is None
    assert max(conv.output.shape) <= MOST_SIZE
    found, wanted = (run_graph(g, samples[0])["y0"] for g in (joined, graph))
    np.testing.assert_array_equal(found, wanted)


def test_pixels_that_no_two_axes_hold_are_no_image() -> None:
    prime = 65537
    assert joined_sums._image((prime, 1, 4)) is None
    assert joined_sums._image((2, prime, 4)) is None
    assert joined_sums._image((prime - 1, 4, 4)) == (1, prime - 1, 4, 4)
    assert joined_sums._image((4, 0, 4)) is None


@needs_vela
def test_cycles_are_not_saved_by_work_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A convolution of an image that is too large for the processor takes no cycles of it."""
    graph, _ = _sum(*MANY_PIXELS)
    pixels = np.prod(MANY_PIXELS[:3])
    monkeypatch.setattr(joined_sums, "_image", lambda shape: (1, pixels, 1, shape[-1]))
    joined = copied(graph)
    join_sum(joined, *scaled_sums(joined), JOINED)
    inside, host = estimated(graph, U55), estimated(joined, U55)
    assert inside is not None
    assert host is not None
    assert host.outside > inside.outside == 0
    assert host.cycles < inside.cycles
    assert not arrangement._takes_less(joined, graph, U55)
    assert not arranged(graph, U55, {}).outside


def test_operators_on_the_host_cost_more_than_cycles() -> None:
    assert Expense(0, 900, 0).cost < Expense(1, 100, 0).cost < Expense(1, 200, 0).cost
