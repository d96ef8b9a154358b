"""Images of which height and width change places: the same bits, in fewer cycles."""

from __future__ import annotations

import numpy as np
import pytest
from integer_graphs import WINDOW, Sketch, integers_made
from tosa_runs import needs_vela

from tensmith.backends.ethosu.arrangement import AXES, KEPT, SWAPPED, arranged, decisions_of
from tensmith.backends.ethosu.folded_width import Fold, conv_chains, fold_width, folds
from tensmith.backends.ethosu.swapped_axes import swap_axes, swaps
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir.copying import copied
from tensmith.compiler.ir.graph import Graph, Value
from tensmith.compiler.ir.verify import verify
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.simplify.dce import DeadCodeElimination

U55 = TARGETS["ethos-u55-128"]


def keywords(s: Sketch) -> tuple[Value, ...]:
    """Convolutions over 13 rows and 5 columns, as networks for spectrograms have them."""
    x = s.relu(s.conv(s.input(1, 1, 25, 10), 16, (6, 4), strides=(2, 2), pads=(2, 1, 2, 1)))
    x = s.relu(s.conv(x, 16, groups=16, pads=(1, 1, 1, 1)))
    x = s.relu(s.conv(x, 24, (1, 1)))
    mean = s.op("reduce_mean", x, axes=(2, 3), keepdims=False)
    return (s.op("softmax", s.op("matmul", mean, s.weights(24, 5)), axis=1),)


def several(s: Sketch) -> tuple[Value, ...]:
    """What moves elements, or adds them, between windows of other heights than widths."""
    x = s.conv(s.input(1, 6, 15, 7), 8, (3, 2), pads=(0, 1, 1, 0), strides=(2, 1))
    x = s.op("add", x, s.op("tanh", x))
    x = s.op("concat", x, s.op("slice", x, starts=(0, 0, 1, 0), stops=(1, 8, 3, 7),
                               steps=(1, 1, 1, 1)), axis=2)  # fmt: skip
    x = s.op("pad", x, 0.0, pads=(0, 0, 2, 0, 0, 0, 0, 1), mode="constant")
    pool = {**WINDOW, "kernel": (3, 2), "strides": (2, 1), "pads": (1, 0, 0, 0)}
    pooled = s.op("max_pool", s.conv(x, 8, dilations=(2, 1)), **pool)
    return s.op("reshape", pooled, shape=(1, 120, 1, 1)), s.op("sigmoid", pooled)


def upwards(s: Sketch) -> tuple[Value, ...]:
    """A transposed convolution with other steps along rows than along columns."""
    attrs = {**WINDOW, "strides": (2, 1), "pads": (1, 0, 1, 1), "output_padding": (1, 0)}
    x = s.op("conv_transpose", s.input(1, 4, 5, 9), s.weights(4, 6, 3, 2, size=0.3), **attrs)
    return (s.conv(x, 8, (1, 1)),)


def _windows(graph: Graph) -> list[tuple[int, ...]]:
    ops = ("conv", "conv_transpose", "max_pool")
    return [node.output.type.static_shape for node in graph.nodes if node.op in ops]


@pytest.mark.parametrize("make", [keywords, several, upwards])
def test_swapped_axes_give_the_same_bits(make) -> None:
    graph, _, samples, _ = integers_made(make, 3)
    assert swaps(graph)
    swapped = copied(graph)
    swap_axes(swapped)
    verify(swapped)
    shapes = zip(_windows(graph), _windows(swapped), strict=True)
    assert all(b == (a[0], a[2], a[1], a[3]) for a, b in shapes)
    for sample in samples:
        wanted, found = run_graph(graph, sample), run_graph(swapped, sample)
        for name, array in wanted.items():
            np.testing.assert_array_equal(found[name], array)


@needs_vela
def test_axes_are_swapped_where_that_takes_fewer_cycles() -> None:
    graph, _, samples, _ = integers_made(keywords, 4)
    usual, kept = arranged(graph, U55, {}), arranged(graph, U55, {AXES: KEPT})
    assert usual.streams == arranged(graph, U55, {AXES: SWAPPED}).streams
    assert usual.cycles < 0.95 * kept.cycles
    assert usual.outside <= kept.outside
    outside = {node.op for node in usual.nodes if node.segment is None}
    assert outside <= {"quantize", "dequantize", "reshape", "transpose", "pad"}
    for sample in samples:
        wanted = run_graph(graph, sample)["y0"]
        np.testing.assert_array_equal(run_graph(usual.graph, sample)["y0"], wanted)


@needs_vela
def test_images_as_high_as_wide_stay_as_they_are() -> None:
    def square(s: Sketch) -> tuple[Value, ...]:
        return (s.conv(s.input(1, 4, 9, 9), 8, pads=(1, 1, 1, 1)),)

    graph, *_ = integers_made(square, 2)
    assert not swaps(graph)
    assert all(decision.name != AXES for decision in decisions_of(graph, U55))
    for how in (SWAPPED, "turned"):
        with pytest.raises(ScheduleError, match="axes of images"):
            arranged(graph, U55, {AXES: how})


@needs_vela
def test_columns_that_groups_lack_are_padding() -> None:
    def odd(s: Sketch) -> tuple[Value, ...]:
        return (s.conv(s.input(1, 1, 6, 13), 8, (3, 5), strides=(1, 2), pads=(1, 2, 1, 2)),)

    graph, _, samples, _ = integers_made(odd, 5)
    (chain,) = conv_chains(graph, U55)
    assert {Fold(2), Fold(2, behind_margin=True)} <= set(folds(chain))
    wanted = [run_graph(graph, sample)["y0"] for sample in samples]
    for fold in folds(chain):
        folded = copied(graph)
        (own,) = conv_chains(folded, U55)
        fold_width(folded, own, fold)
        run_passes(folded, (DeadCodeElimination(),))
        verify(folded)
        lacking = bool((13 + 2 * fold.behind_margin) % fold.columns)
        assert any(n.op == "pad" for n in folded.nodes) == (lacking or fold.behind_margin)
        for sample, exact in zip(samples, wanted, strict=True):
            np.testing.assert_array_equal(run_graph(folded, sample)["y0"], exact)


@needs_vela
def test_windows_that_are_more_than_groups_read_what_lies_before_them() -> None:
    def wide(s: Sketch) -> tuple[Value, ...]:
        return (s.conv(s.input(1, 2, 3, 2), 8, (1, 2), strides=(1, 2), pads=(0, 1, 0, 1)),)

    graph, _, samples, _ = integers_made(wide, 5)
    (chain,) = conv_chains(graph, U55)
    assert folds(chain) == [Fold(2), Fold(2, behind_margin=True)]
    fold_width(graph, chain, Fold(2))
    plain, *_ = integers_made(wide, 5)
    for sample in samples:
        wanted = run_graph(plain, sample)["y0"]
        np.testing.assert_array_equal(run_graph(graph, sample)["y0"], wanted)


@needs_vela
def test_what_the_processor_makes_is_not_padded_for_groups() -> None:
    def inner(s: Sketch) -> tuple[Value, ...]:
        x = s.conv(s.input(1, 8, 6, 13), 2, (1, 1))
        return (s.conv(x, 8, (3, 5), strides=(1, 2), pads=(1, 2, 1, 2)),)

    graph, *_ = integers_made(inner, 5)
    (chain,) = conv_chains(graph, U55)
    assert not folds(chain)
