"""Channels that zero weights make dead are left out of the network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, Graph, Value, constant
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.ir.ops.registry import Array
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.dead_channels import DeadChannels
from tensmith.passes.arithmetic.demand import Demand
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.pipeline import SIMPLIFY


class Net(CaseBuilder):
    """Layers with pruned weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__("net")
        self.rng = np.random.default_rng(seed)

    def drawn(self, *shape: int, zero: Sequence[int] = (), axis: int = 0) -> Array:
        """Weights, those at some places along an axis zero."""
        w = self.rng.normal(size=shape).astype(np.float32)
        np.moveaxis(w, axis, 0)[list(zero)] = 0
        return w

    def conv(
        self, x: Value, w: Array, bias: Array | None = None, pad: int = 1, **more: Any
    ) -> Value:
        attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": (pad,) * 4, **more}
        operands = [x, constant(w)] + ([] if bias is None else [constant(bias)])
        return self.op("conv", *operands, **attrs)

    def relu(self, x: Value) -> Value:
        return self.op("max", x, self.scalar(0))

    def silu(self, x: Value) -> Value:
        return self.op("mul", x, self.op("sigmoid", x))


def optimised(graph: Graph, told: list[Saving] | None = None) -> float:
    """How much arithmetic is left; checks the results, and that the passes' own count falls."""
    inputs = inputs_for(graph)
    want, before = run_graph(graph, inputs), graph_flops(graph)
    work = graph_work(graph)
    hear = None if told is None else told.append
    run_passes(graph, (Fixpoint((DeadChannels(hear, step=1), Demand(hear), *SIMPLIFY)),))
    same_results(want, run_graph(graph, inputs))
    after = graph_flops(graph)
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert graph_work(graph) <= work
    return after / max(1, before)


def product_shapes(graph: Graph) -> list[tuple[Dim, ...]]:
    return [node.inputs[1].shape for node in graph.nodes if node.op in ("conv", "matmul")]


def test_channels_that_nothing_reads() -> None:
    net = Net()
    x = net.relu(net.conv(net.input(1, 4, 9, 9), net.drawn(8, 4, 3, 3)))
    net.output(net.conv(x, net.drawn(5, 8, 3, 3, zero=(1, 2, 6), axis=1)))
    graph, told = net.graph(), list[Saving]()
    assert optimised(graph, told) < 0.7
    assert product_shapes(graph) == [(5, 4, 3, 3), (5, 5, 3, 3)]
    assert count(graph)["gather"] == 0
    assert {item.by for item in told} == {"dead_channels", "demand"}


@pytest.mark.parametrize("activation", [Net.relu, Net.silu], ids=["relu", "silu"])
def test_channels_that_are_zero(activation: Any) -> None:
    """Zero weights and no bias make zeros, and functions of them that are 0 there."""
    net = Net()
    first = net.conv(net.input(1, 4, 9, 9), net.drawn(8, 4, 3, 3, zero=(0, 7)))
    net.output(net.conv(activation(net, first), net.drawn(5, 8, 3, 3)))
    graph = net.graph()
    assert optimised(graph) < 0.8
    assert product_shapes(graph) == [(6, 4, 3, 3), (5, 6, 3, 3)]


@pytest.mark.parametrize(("pad", "left"), [(0, 6), (1, 7)])
def test_channels_of_one_number(pad: int, left: int) -> None:
    """A bias alone is a part of the next bias, or one channel where a border is added around it."""
    net = Net()
    first = net.conv(net.input(1, 4, 9, 9), net.drawn(8, 4, 3, 3, zero=(3, 4)), net.drawn(8))
    net.output(net.conv(net.silu(first), net.drawn(5, 8, 3, 3), net.drawn(5), pad=pad))
    graph = net.graph()
    optimised(graph)
    assert product_shapes(graph)[-1] == (5, left, 3, 3)


def test_through_depthwise_pooling_and_concat() -> None:
    net = Net()
    x = net.input(1, 4, 8, 8)
    one = net.relu(net.conv(x, net.drawn(6, 4, 3, 3)))
    one = net.conv(one, net.drawn(6, 1, 3, 3), groups=6)
    two = net.conv(x, net.drawn(6, 4, 1, 1), pad=0)
    window = {"kernel": (2, 2), "strides": (2, 2), "dilations": (1, 1), "pads": (0,) * 4}
    both = net.op("max_pool", net.op("concat", one, two, axis=1), **window)
    net.output(net.conv(both, net.drawn(20, 12, 1, 1, zero=(0, 1, 5, 8), axis=1), pad=0))
    graph = net.graph()
    assert optimised(graph) < 0.8
    assert product_shapes(graph) == [(3, 4, 3, 3), (3, 1, 3, 3), (5, 4, 1, 1), (20, 8, 1, 1)]


def test_neurons_of_a_feed_forward_block() -> None:
    net = Net()
    x = net.input(1, 7, 6)
    w, b = net.drawn(6, 16, zero=range(4, 12), axis=1), net.drawn(16, zero=range(4, 10))
    hidden = net.silu(net.op("add", net.op("matmul", x, constant(w)), constant(b)))
    out = net.op("matmul", hidden, constant(net.drawn(16, 6)))
    net.output(net.op("add", out, x))
    graph = net.graph()
    assert optimised(graph) < 0.6
    assert product_shapes(graph) == [(6, 8), (8, 6)]


def test_heads_of_attention() -> None:
    """Rows of zeros in what follows attention: heads that nothing reads."""
    net = Net()
    x = net.input(1, 9, 8)

    def head_split() -> Value:
        made = net.op("matmul", x, constant(net.drawn(8, 8)))
        return net.op("transpose", net.op("reshape", made, shape=(1, 9, 4, 2)), perm=(0, 2, 1, 3))

    read = net.op("attention", head_split(), head_split(), head_split(), scale=0.7)
    back = net.op("reshape", net.op("transpose", read, perm=(0, 2, 1, 3)), shape=(1, 9, 8))
    net.output(net.op("matmul", back, constant(net.drawn(8, 8, zero=(2, 3, 6, 7)))))
    graph = net.graph()
    assert optimised(graph) < 0.6
    assert product_shapes(graph) == [(8, 4)] * 3 + [(4, 8)]


def margins(net: Net, x: Value, kind: str) -> Value:
    """What puts other numbers around channels, or moves them."""
    spatial, channels = (0, 0, 1, 1) * 2, (0, 1, 0, 0, 0, -1, 0, 0)
    window = {"strides": (2, 2), "dilations": (1, 1)}
    return {
        "zeros": lambda: net.op("pad", x, pads=spatial),
        "ones": lambda: net.op("pad", x, net.scalar(1), pads=spatial),
        "input": lambda: net.op("pad", x, net.input(), pads=spatial),
        "reflect": lambda: net.op("pad", x, pads=spatial, mode="reflect"),
        "shift": lambda: net.op("pad", x, pads=channels),
        "max": lambda: net.op("max_pool", x, kernel=(2, 2), pads=(2, 2, 0, 0), **window),
        "max inside": lambda: net.op("max_pool", x, kernel=(3, 3), pads=(1,) * 4, **window),
        "average": lambda: net.op("avg_pool", x, kernel=(2, 2), pads=(2, 2, 0, 0), **window),
    }[kind]()


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("kind", "stay"),
    [
        ("zeros", (0,)),
        ("ones", (1,)),
        ("input", ()),
        ("reflect", (0, 1)),
        ("shift", ()),
        ("max", ()),
        ("max inside", (0, 1)),
        ("average", (0,)),
    ],
)
def test_margins_of_other_numbers(kind: str, stay: tuple[int, ...], number: int) -> None:
    """Channels of one number stay so behind margins of that number alone, and equal behind all."""
    net = Net()
    bias = net.drawn(8)
    bias[[3, 5]] = number
    x = net.conv(net.input(1, 4, 9, 9), net.drawn(8, 4, 3, 3, zero=(3, 5)), bias)
    x = net.op("max", margins(net, x, kind), net.scalar(-3))
    net.output(net.conv(x, net.drawn(40, 8, 1, 1), net.drawn(40), pad=0))
    graph = net.graph()
    optimised(graph)
    equal = 8 if kind == "shift" else 7
    assert product_shapes(graph)[-1] == (40, 6 if number in stay else equal, 1, 1)


@pytest.mark.parametrize("op", ["mul", "add"])
def test_one_known_channel_for_all(op: str) -> None:
    """A gate of one channel that zero weights make one number."""
    net = Net()
    x = net.conv(net.input(1, 4, 9, 9), net.drawn(8, 4, 3, 3, zero=(1, 6)))
    gate = net.op("sigmoid", net.conv(x, net.drawn(1, 8, 1, 1, zero=(0,)), pad=0))
    net.output(net.conv(net.op(op, x, gate), net.drawn(40, 8, 1, 1), pad=0))
    graph = net.graph()
    optimised(graph)
    assert product_shapes(graph)[-1] == (40, 6, 1, 1)


def test_products_of_nothing() -> None:
    net = Net()
    none = net.op("matmul", net.input(3, 0), constant(net.drawn(0, 8)))
    net.output(net.op("matmul", none, constant(net.drawn(8, 5))))
    graph = net.graph()
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (DeadChannels(step=1),))
    same_results(want, run_graph(graph, inputs))


def test_whole_vectors_only() -> None:
    """Fewer channels take no less time where they fill as many vectors."""
    net = Net()
    x = net.relu(net.conv(net.input(1, 4, 9, 9), net.drawn(8, 4, 3, 3)))
    net.output(net.conv(x, net.drawn(5, 8, 3, 3, zero=(1, 2, 6), axis=1)))
    assert not DeadChannels(step=8).run(net.graph())


def test_copies_that_cost_more() -> None:
    """Where every channel is needed elsewhere, leaving few out does not pay."""
    net = Net()
    x = net.input(1, 64, 16, 16)
    net.output(net.conv(x, net.drawn(1, 64, 1, 1, zero=(3,), axis=1), pad=0), net.relu(x))
    assert not DeadChannels(step=1).run(net.graph())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20))
def test_random_pruned_networks(seed: int) -> None:
    """Results stay, and the count of operations and bytes does not rise."""
    net = Net(seed)
    rng = net.rng
    values = [net.input(1, 6, 7, 7)]
    for _ in range(int(rng.integers(2, 7))):
        x = values[int(rng.integers(len(values)))]
        channels = int(x.shape[1])  # type: ignore[arg-type]
        kind, pad = int(rng.integers(6)), int(rng.integers(2))
        gone = rng.integers(0, channels, int(rng.integers(0, channels)))
        if kind < 3:
            made = int(rng.integers(2, 12))
            w = net.drawn(made, channels, *(2 * pad + 1,) * 2, zero=gone, axis=1)
            w[rng.integers(0, made, made // 2)] = 0
            bias = net.drawn(made, zero=rng.integers(0, made, made // 2))
            values.append(net.conv(x, w, bias if rng.integers(2) else None, pad))
        elif kind == 3:
            values.append(net.silu(x) if rng.integers(2) else net.relu(x))
        elif kind == 4:
            values.append(net.op("concat", x, values[0], axis=1))
        else:
            w = net.drawn(channels, 1, 3, 3, zero=gone)
            values.append(net.conv(x, w, groups=channels))
    net.output(values[-1])
    optimised(net.graph())
