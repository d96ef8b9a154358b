"""Convolutions behind nearest upsampling become transposed ones at the low resolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder, N, S

from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import parse_target
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Graph, constant, symbol
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.upsampled_convs import UpsampledConvs, enlarged
from tensmith.passes.layout.choose_layouts import ChooseLayouts
from tensmith.passes.layout.transposed_conv import TransposedConv
from tensmith.passes.pipeline import SIMPLIFY

TARGET = parse_target("x86-64-v4")


def upsampled(
    shape: tuple[int, ...], outputs: int, kernel: tuple[int, ...],
    scales: tuple[int, ...], pads: tuple[int, ...], shift: int = 0, bias: bool = True,
) -> Graph:  # fmt: skip
    """conv(gathers that repeat every element `scale` times)."""
    c = CaseBuilder("upsampled")
    x = c.input(*shape)
    for axis, scale in enumerate(scales, start=2):
        index = np.minimum((np.arange(shape[axis] * scale) + shift) // scale, shape[axis] - 1)
        if scale > 1:
            x = c.op("gather", x, constant(index), axis=axis)
    w = c.weight(outputs, shape[1], *kernel)
    ones = (1,) * len(kernel)
    operands = [x, w, c.weight(outputs)] if bias else [x, w]
    c.output(c.op("conv", *operands, strides=ones, dilations=ones, pads=pads))
    return c.graph()


def joined(enlarged_channels: int, others: int, size: int, outputs: int) -> Graph:
    """The way up of a network that joins what is enlarged to what it had at that size."""
    c = CaseBuilder("joined")
    small, large = c.input(1, enlarged_channels, size, size), c.input(1, others, 2 * size, 2 * size)
    index = constant(np.arange(size).repeat(2))
    high = c.op("gather", c.op("gather", small, index, axis=2), index, axis=3)
    both = c.op("concat", large, high, axis=1)
    w, ones = c.weight(outputs, enlarged_channels + others, 3, 3), (1, 1)
    c.output(c.op("conv", both, w, c.weight(outputs), strides=ones, dilations=ones, pads=(1,) * 4))
    return c.graph()


def optimised(graph: Graph, told: list[Saving] | None = None, gain: float = 0.05) -> float:
    """How much of the arithmetic is left; checks the results."""
    inputs = inputs_for(graph)
    want, before = run_graph(graph, inputs), graph_flops(graph)
    hear = None if told is None else told.append
    passes = (
        UpsampledConvs(TARGET, hear, gain),
        Fixpoint(SIMPLIFY),
        ChooseLayouts(),
        TransposedConv(),
    )
    run_passes(graph, (*passes, Fixpoint(SIMPLIFY)))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=2e-4)
    after = graph_flops(graph)
    assert isinstance(before, int)
    assert isinstance(after, int)
    return after / before


def test_twice_the_size() -> None:
    told: list[Saving] = []
    graph = upsampled((1, 64, 48, 48), 64, (3, 3), (2, 2), (1, 1, 1, 1))
    assert optimised(graph, told) < 0.5  # 4 / 9, and a border of phases that are cropped
    assert [saving.by for saving in told] == ["upsampled_convs"]
    assert told[0].after == pytest.approx(told[0].before * 4 / 9)


def test_along_one_axis() -> None:
    """Vocoders."""
    graph = upsampled((1, 64, 300), 64, (7,), (4,), (3, 3))
    assert optimised(graph) < 0.5


def test_reads_what_was_enlarged_as_before() -> None:
    """Where the enlarged picture is needed elsewhere it stays."""
    graph = upsampled((1, 64, 48, 48), 64, (3, 3), (2, 2), (1, 1, 1, 1))
    graph.outputs.append(graph.nodes[1].output)
    graph.outputs[-1].name = "large"
    assert optimised(graph) < 0.5
    assert count(graph)["gather"] == 2


@pytest.mark.parametrize(
    "graph",
    [
        upsampled((1, 16, 40, 40), 32, (3, 3), (2, 2), (1, 1, 1, 1)),
        upsampled((1, 32, 40, 40), 32, (1, 1), (2, 2), (0, 0, 0, 0)),
        upsampled((1, 32, 40, 40), 32, (3, 3), (2, 2), (1, 1, 1, 1), shift=1),
        upsampled((1, 32, 40, 40), 32, (3, 3), (2, 2), (3, 3, 3, 3)),
        joined(64, 32, 64, 64),
    ],
    ids=["few channels", "one tap", "another rounding", "more padding than taps", "large sums"],
)
def test_others_stay(graph: Graph) -> None:
    assert not UpsampledConvs(TARGET).run(graph)


def test_without_costs_nothing_changes() -> None:
    graph = upsampled((1, 32, 40, 40), 32, (3, 3), (2, 2), (1, 1, 1, 1))
    assert not UpsampledConvs().run(graph)


def test_enlarged_part_of_a_concat() -> None:
    told: list[Saving] = []
    graph = joined(64, 33, 20, 32)
    assert optimised(graph, told, gain=-1) < 0.8
    assert count(graph)["concat"] == 0
    assert told[0].after == pytest.approx(told[0].before * (64 * 4 / 9 + 33) / 97)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1 << 20))
def test_random_windows(seed: int) -> None:
    """Windows, scales and paddings of either parity, taken whatever they cost."""
    rng = np.random.default_rng(seed)
    kernel = tuple(int(k) for k in rng.integers(1, 6, 2))
    scales = tuple(int(s) for s in rng.integers(1, 4, 2))
    pads = tuple(int(rng.integers(0, k)) for k in (*kernel, *kernel))
    channels = int(rng.integers(32, 35))
    graph = upsampled((1, channels, 6, 5), 32, kernel, scales, pads, bias=bool(rng.integers(2)))
    assert enlarged(graph.nodes[-1].inputs[0])[1] == scales
    told: list[Saving] = []
    optimised(graph, told, gain=-100)
    assert len(told) == (scales != (1, 1))


@pytest.mark.parametrize("symbolic", ["rows", "pictures"])
def test_sizes_that_a_run_decides(symbolic: str) -> None:
    """Pixels repeated along axes of their own, and by indices in any number of pictures."""
    c = CaseBuilder("symbolic")
    n, h = (1, symbol("h")) if symbolic == "rows" else (symbol("n"), 24)
    x = c.input(n, 64, h, 20)
    if symbolic == "rows":
        apart = c.op("reshape", x, shape=(n, 64, h, 1, 20, 1))
        wide = c.op("broadcast_to", apart, shape=(n, 64, h, 2, 20, 2))
        high = c.op("reshape", wide, shape=(n, 64, 2 * h, 40))
    else:
        high = c.op("gather", x, constant(np.arange(24).repeat(2)), axis=2)
        high = c.op("gather", high, constant(np.arange(20).repeat(2)), axis=3)
    assert enlarged(high) == (x, (2, 2))
    w, ones = c.weight(64, 64, 3, 3), (1, 1)
    c.output(c.op("conv", high, w, c.weight(64), strides=ones, dilations=ones, pads=(1,) * 4))
    graph = c.graph()
    inputs = inputs_for(graph, h=7, n=2)
    want = run_graph(graph, inputs)
    passes = (UpsampledConvs(TARGET, least_gain=-100), Fixpoint(SIMPLIFY))
    run_passes(graph, (*passes, ChooseLayouts(), TransposedConv(), Fixpoint(SIMPLIFY)))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=2e-4)
    assert [node.inputs[1].shape for node in graph.nodes if node.op == "conv"] == [(2, 2, 64, 256)]


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_and_pictures_that_repeat_stay(axis: int) -> None:
    """Only what is repeated along spatial axes is enlarged."""
    c = CaseBuilder("repeated")
    n, h, w = symbol("n"), symbol("h"), symbol("w")
    times = [2 if place in (axis, 2, 3) else 1 for place in range(4)]
    dims = list(zip((n, 32, h, w), times, strict=True))
    x = c.input(n, 32, h, w)
    apart = c.op("reshape", x, shape=tuple(d for dim, t in dims for d in (dim, 1)[:t]))
    wide = c.op("broadcast_to", apart, shape=tuple(d for dim, t in dims for d in (dim, 2)[:t]))
    high = c.op("reshape", wide, shape=tuple(dim * t for dim, t in dims))
    assert enlarged(high) == (high, (1, 1))
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4}
    c.output(c.op("conv", high, c.weight(64, 32 * times[1], 3, 3), **window))
    assert not UpsampledConvs(TARGET, least_gain=-100).run(c.graph())


def test_rows_that_a_run_decides_are_computed_directly() -> None:
    """No tiles of Winograd's are made for them: phases save 5 of 9 multiplications."""
    c = CaseBuilder("direct")
    h = symbol("h")
    apart = c.op("reshape", c.input(1, 64, h, h), shape=(1, 64, h, 1, h, 1))
    wide = c.op("broadcast_to", apart, shape=(1, 64, h, 2, h, 2))
    high = c.op("reshape", wide, shape=(1, 64, 2 * h, 2 * h))
    window = {"strides": (1, 1), "dilations": (1, 1), "pads": (1,) * 4}
    c.output(c.op("conv", high, c.weight(64, 64, 3, 3), **window))
    assert UpsampledConvs(TARGET).run(c.graph())


def test_parts_of_which_a_run_decides_the_channels_stay() -> None:
    c, ones = CaseBuilder("open"), (1, 1)
    both = c.op("concat", c.input(1, N, 6, 6), c.input(1, S, 6, 6), axis=1)
    w = c.weight(4, 8, 3, 3)
    c.output(c.op("conv", both, w, strides=ones, dilations=ones, pads=(1,) * 4))
    graph = c.graph()
    assert not UpsampledConvs(TARGET).run(graph)
