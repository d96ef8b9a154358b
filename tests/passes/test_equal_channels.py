"""Channels that are equal for every input are read once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rewriting import inputs_for, same_results
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.ir.ops.registry import Array
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.dead_channels import DeadChannels
from tensmith.passes.arithmetic.demand import Demand
from tensmith.passes.arithmetic.equal_channels import MOST_PLACES, EqualChannels, equal_places
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.pipeline import SIMPLIFY

POINT = {"strides": (1, 1), "dilations": (1, 1), "pads": (0,) * 4}
AROUND = {**POINT, "pads": (1,) * 4}
WINDOW = {**POINT, "kernel": (2, 2)}


def drawn(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def filters(*shape: int, same: tuple[int, ...] = ()) -> Value:
    """Filters, some of which are the same."""
    w = drawn(*shape)
    w[list(same)] = w[same[0]] if same else w[[]]
    return constant(w)


def shapes(graph: Graph, step: int = 1) -> list[tuple[object, ...]]:
    """Those of the weights that are left; checks results, and that the passes' count falls."""
    inputs = inputs_for(graph)
    want, work = run_graph(graph, inputs), graph_work(graph)
    run_passes(graph, (Fixpoint((DeadChannels(step=step), Demand(), *SIMPLIFY)),))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    assert graph_work(graph) <= work
    return [
        node.inputs[1].shape
        for node in graph.nodes
        if node.op in ("conv", "matmul", "conv_transpose")
    ]


def test_places_of_weights() -> None:
    w = drawn(9, 4, 3)
    w[5], w[8] = w[2], w[1]
    w[7, 1:], w[7, 0] = w[3, 1:], w[3, 0] + 1
    assert equal_places(w, 0).tolist() == [0, 1, 2, 3, 4, 2, 6, 7, 1]
    assert equal_places(np.array([3.0, 1, 3]), 0).tolist() == [0, 1, 0]
    assert equal_places(np.zeros((2, 3), np.float32), 1).tolist() == [0, 0, 0]
    assert equal_places(np.zeros(MOST_PLACES), 0).tolist() == [0] * MOST_PLACES
    many = equal_places(np.zeros(MOST_PLACES + 1), 0)
    assert many.tolist() == list(range(MOST_PLACES + 1))


def test_filters_that_are_equal() -> None:
    c = CaseBuilder("equal")
    x = c.op("conv", c.input(1, 4, 6, 6), filters(8, 4, 3, 3, same=(1, 4, 6)), **AROUND)
    c.output(c.op("conv", c.op("tanh", x), filters(5, 8, 3, 3), **AROUND))
    assert shapes(c.graph()) == [(6, 4, 3, 3), (5, 6, 3, 3)]


@pytest.mark.parametrize("differs", [False, True])
def test_biases_decide_too(differs: bool) -> None:
    c = CaseBuilder("bias")
    bias = constant(np.array([1, 2, 1 + differs, 3], np.float32))
    x = c.op("conv", c.input(1, 4, 6, 6), filters(4, 4, 1, 1, same=(0, 2)), bias, **POINT)
    c.output(c.op("conv", x, filters(40, 4, 1, 1), **POINT))
    assert shapes(c.graph()) == [(3 + differs, 4, 1, 1), (40, 3 + differs, 1, 1)]


def test_a_grey_picture_in_colours() -> None:
    """Few channels fill no vector: one of three is left out at once."""
    c = CaseBuilder("grey")
    x = c.op("broadcast_to", c.input(1, 1, 9, 9), shape=(1, 3, 9, 9))
    c.output(c.op("conv", x, filters(8, 3, 3, 3), **AROUND))
    assert shapes(c.graph(), step=16) == [(8, 1, 3, 3)]


MIDDLES: dict[str, Callable[[CaseBuilder, Value], Value]] = {
    "pool": lambda c, x: c.op("avg_pool", x, **{**WINDOW, "pads": (1, 0, 1, 0)}),
    "pad": lambda c, x: c.op("pad", x, c.scalar(3), pads=(0, 0, 1, 1) * 2),
    "scale": lambda c, x: c.op("mul", x, constant(drawn(4)[[0, 1, 1, 2], None, None])),
    "softmax": lambda c, x: c.op("softmax", x, axis=1),
    "depthwise": lambda c, x: c.op(
        "conv", x, constant(drawn(4, 1, 3, 3)[[0, 1, 1, 2]]), groups=4, **AROUND
    ),
    "mean": lambda c, x: c.op("reduce_max", x, axes=(2, 3), keepdims=True),
    "twice": lambda c, x: c.op("gather", x, constant(np.array([2, 1, 0, 1])), axis=1),
    "slice": lambda c, x: c.op(
        "slice", x, starts=(0, 0, 1, 0), stops=(1, 4, 5, 6), steps=(1,) * 4
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", MIDDLES)
def test_through_other_layers(kind: str) -> None:
    c = CaseBuilder("middle")
    x = c.op("conv", c.input(1, 3, 6, 6), filters(4, 3, 3, 3, same=(1, 2)), **AROUND)
    c.output(c.op("conv", MIDDLES[kind](c, x), filters(40, 4, 1, 1), **POINT))
    left = 2 if kind == "twice" else 3
    assert shapes(c.graph())[-1] == (40, left, 1, 1)


@pytest.mark.parametrize("kind", ["scale", "depthwise"])
def test_what_tells_channels_apart(kind: str) -> None:
    c = CaseBuilder("apart")
    x = c.op("conv", c.input(1, 3, 6, 6), filters(4, 3, 3, 3, same=(0, 2)), **AROUND)
    c.output(c.op("conv", MIDDLES[kind](c, x), filters(40, 4, 1, 1), **POINT))
    assert shapes(c.graph())[-1] == (40, 4, 1, 1)


def test_a_value_that_is_joined_twice() -> None:
    c = CaseBuilder("joined")
    x = c.op("tanh", c.input(1, 4, 6, 6))
    both = c.op("concat", x, c.op("neg", x), x, axis=1)
    c.output(c.op("conv", both, filters(5, 12, 3, 3), **AROUND))
    assert shapes(c.graph()) == [(5, 8, 3, 3)]


def test_parts_whose_sizes_a_run_decides_are_not_compared() -> None:
    """The same two parts twice, which have a known size together only."""
    c = CaseBuilder("open parts")
    x = c.input(1, 8)
    first = c.op("slice", x, starts=(0, 0), stops=(1, N), steps=(1, 1))
    rest = c.op("slice", x, starts=(0, N), stops=(1, 8), steps=(1, 1))
    both = c.op("concat", first, rest, first, rest, axis=1)
    assert both.shape == (1, 16)
    c.output(c.op("tanh", both))
    assert EqualChannels.of(c.graph()).along(both, 1) is None


def test_axes_that_become_one() -> None:
    """Tiles of a picture's channels."""
    c = CaseBuilder("tiles")
    x = c.op("reshape", c.op("tanh", c.input(1, 2, 6, 6)), shape=(1, 1, 2, 6, 6))
    x = c.op("reshape", c.op("broadcast_to", x, shape=(1, 3, 2, 6, 6)), shape=(1, 6, 6, 6))
    c.output(c.op("conv", x, filters(5, 6, 3, 3), **AROUND))
    assert shapes(c.graph()) == [(5, 2, 3, 3)]


def test_numbers_behind_borders_become_one_channel() -> None:
    """Channels of one number each, that end at the border: one stands for all of them."""
    c = CaseBuilder("numbers")
    w, bias = drawn(8, 4, 3, 3), drawn(8)
    w[[1, 2, 5]] = 0
    bias[[1, 2, 5]] = (0.5, -4, 2)
    x = c.op("conv", c.input(1, 4, 6, 6), constant(w), constant(bias), **AROUND)
    c.output(c.op("conv", x, filters(5, 8, 3, 3), filters(5), **AROUND))
    assert shapes(c.graph()) == [(6, 4, 3, 3), (5, 6, 3, 3)]


def test_transposed_convolutions() -> None:
    c = CaseBuilder("transposed")
    x = c.op("conv", c.input(1, 4, 6, 6), filters(8, 4, 1, 1, same=(0, 1, 7)), **POINT)
    window = {"strides": (2, 2), "dilations": (1, 1), "pads": (1,) * 4, "output_padding": (0, 0)}
    c.output(c.op("conv_transpose", c.op("tanh", x), filters(8, 3, 4, 4), **window))
    assert shapes(c.graph()) == [(6, 4, 1, 1), (6, 3, 4, 4)]


def test_sums_that_are_no_number_stay_apart() -> None:
    c = CaseBuilder("large")
    x = c.op("conv", c.input(1, 4, 6, 6), filters(4, 4, 1, 1, same=(0, 1)), **POINT)
    c.output(c.op("conv", x, constant(np.full((9, 4, 1, 1), 3e38, np.float32)), **POINT))
    assert not DeadChannels(step=1).run(c.graph())


def test_repeated_places_along_other_axes() -> None:
    """What is known of rows is no claim about channels."""
    c = CaseBuilder("rows")
    x = c.op("gather", c.input(1, 3, 4, 4), constant(np.array([0, 0, 1, 1])), axis=2)
    c.output(c.op("tanh", x))
    found = EqualChannels.of(c.graph()).along(x, 2)
    assert found is not None
    assert found.tolist() == [0, 0, 2, 2]
    assert EqualChannels.of(c.graph()).along(x, 1) is None
