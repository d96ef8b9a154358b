"""Convolutions behind space-to-depth read the picture itself."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import parse_target
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Graph, Value, symbol
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.unshuffled_convs import UnshuffledConvs
from tensmith.passes.pipeline import SIMPLIFY

TARGET = parse_target("x86-64-v4")


def phases(c: CaseBuilder, x: Value, block: int, order: list[int]) -> Value:
    """Slices of every so many pixels, as detectors write it."""
    n, m, h, w = x.shape
    parts = []
    for place in order:
        starts = (0, 0, place // block, place % block)
        parts.append(
            c.op("slice", x, starts=starts, stops=(n, m, h, w), steps=(1, 1, block, block))
        )
    return c.op("concat", *parts, axis=1)


def rearranged(c: CaseBuilder, x: Value, block: int, order: tuple[int, ...]) -> Value:
    """Pixels along axes of their own, merged with the channels in some order."""
    n, m, h, w = x.shape
    apart = c.op("reshape", x, shape=(n, m, h // block, block, w // block, block))
    moved = c.op("transpose", apart, perm=(0, *order, 2, 4))
    return c.op("reshape", moved, shape=(n, m * block * block, h // block, w // block))


def convolved(c: CaseBuilder, x: Value, size: int = 3, **more: Any) -> Graph:
    channels = x.shape[1]
    assert isinstance(channels, int)
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": (size // 2,) * 4, **more}
    c.output(c.op("conv", x, c.weight(8, channels, size, size), c.weight(8), **attrs))
    return c.graph()


def _merges(graph: Graph) -> None:
    inputs = inputs_for(graph)
    want, before = run_graph(graph, inputs), graph_flops(graph)
    told: list[Saving] = []
    assert UnshuffledConvs(TARGET, told.append).run(graph)
    run_passes(graph, (Fixpoint(SIMPLIFY),))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    assert graph_flops(graph) == before
    assert list(count(graph)) == ["conv"]
    assert [saving.by for saving in told] == ["unshuffled_convs"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [3, 1, 0, 2]])
def test_slices_side_by_side(order: list[int]) -> None:
    c = CaseBuilder("focus")
    _merges(convolved(c, phases(c, c.input(2, 1, 6, 8), 2, order)))


@pytest.mark.parametrize("order", list(permutations((1, 3, 5))))
@pytest.mark.parametrize("block", [2, 3])
def test_axes_that_move(order: tuple[int, ...], block: int) -> None:
    c = CaseBuilder("axes")
    x = rearranged(c, c.input(2, 2, 2 * block, 3 * block), block, order)
    _merges(convolved(c, x, size=1, strides=(1, 2)))


def test_windows_that_step_and_a_border_on_one_side() -> None:
    c = CaseBuilder("steps")
    x = rearranged(c, c.input(1, 1, 8, 12), 2, (3, 5, 1))
    _merges(convolved(c, x, strides=(2, 1), pads=(1, 0, 0, 2)))


def test_any_number_of_pictures() -> None:
    for write, order in ((rearranged, (3, 5, 1)), (phases, [0, 1, 2, 3])):
        c = CaseBuilder("symbolic")
        x = write(c, c.input(symbol("n"), 2, 6, 8), 2, order)
        _merges(convolved(c, x, strides=(2, 2)))


def test_what_stays() -> None:
    """A picture that is read elsewhere, slices that miss pixels, windows that have holes, and
    where Winograd's algorithm is faster."""
    c = CaseBuilder("shared")
    x = phases(c, c.input(1, 1, 6, 8), 2, [0, 1, 2, 3])
    c.output(c.op("neg", x))
    assert not UnshuffledConvs(TARGET).run(convolved(c, x))
    c = CaseBuilder("twice")
    x = phases(c, c.input(1, 1, 6, 8), 2, [0, 1, 2, 2])
    assert not UnshuffledConvs(TARGET).run(convolved(c, x))
    c = CaseBuilder("holes")
    x = phases(c, c.input(1, 1, 12, 8), 2, [0, 1, 2, 3])
    assert not UnshuffledConvs(TARGET).run(convolved(c, x, dilations=(2, 2)))
    c = CaseBuilder("tiles")
    x = phases(c, c.input(1, 16, 96, 96), 2, [0, 1, 2, 3])
    c.output(
        c.op("conv", x, c.weight(64, 64, 3, 3), strides=(1, 1), dilations=(1, 1), pads=(1,) * 4)
    )
    assert not UnshuffledConvs(TARGET).run(c.graph())
    c = CaseBuilder("no target")
    x = phases(c, c.input(1, 1, 6, 8), 2, [0, 1, 2, 3])
    assert not UnshuffledConvs().run(convolved(c, x))
