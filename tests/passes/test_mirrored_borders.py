"""Borders that repeat or mirror what is inside: pieces beside a copy."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import inputs_for
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Dim, Graph
from tensmith.passes.simplify.mirrored_borders import MirroredBorders


def padded(mode: str, pads: tuple[int, ...], *shape: Dim) -> Graph:
    c = CaseBuilder("borders")
    fill = [c.scalar(0.0)] if mode == "constant" else []
    c.output(c.op("pad", c.input(*shape), *fill, mode=mode, pads=pads))
    return c.graph()


@pytest.mark.parametrize("mode", ["edge", "reflect"])
@pytest.mark.parametrize("pads", [(0, 0, 3, 1, 0, 0, 2, 4), (1, 0, 0, 0, 1, 2, 0, 39), (0,) * 8])
def test_pieces_are_what_the_border_is(mode: str, pads: tuple[int, ...]) -> None:
    graph = padded(mode, pads, 2, 3, 20, 40)
    feeds = inputs_for(graph)
    wanted = run_graph(graph, feeds)["y0"]
    assert MirroredBorders().run(graph)
    assert all(node.op != "pad" for node in graph.nodes)
    np.testing.assert_array_equal(run_graph(graph, feeds)["y0"], wanted)


@pytest.mark.parametrize(
    ("mode", "pads", "shape"),
    [
        ("constant", (0, 3, 0, 3), (64, 64)),
        ("wrap", (0, 3, 0, 3), (64, 64)),
        ("edge", (0, 3, 0, 3), (N, 64)),
        ("edge", (0, 3, 0, 3), (4, 4)),
    ],
)
def test_others_stay_one_map(mode: str, pads: tuple[int, ...], shape: tuple[Dim, ...]) -> None:
    graph = padded(mode, pads, *shape)
    assert not MirroredBorders().run(graph)
