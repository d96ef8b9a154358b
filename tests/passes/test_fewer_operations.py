"""What saves arithmetic, on random networks: the results stay, and no pass makes more of anything
that it counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from picture_graphs import build
from rewriting import inputs_for, same_results

from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import parse_target
from tensmith.compiler.ir import Graph
from tensmith.compiler.pass_manager import Fixpoint, Pass, run_passes
from tensmith.passes.arithmetic.dead_channels import DeadChannels
from tensmith.passes.arithmetic.demand import Demand
from tensmith.passes.arithmetic.image_by_image import ImageByImage
from tensmith.passes.arithmetic.linear_maps import LinearMaps
from tensmith.passes.arithmetic.same_for_all import SameForAll
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.arithmetic.zero_taps import ZeroTaps
from tensmith.passes.pipeline import SIMPLIFY, fewer_operations, optimization_passes

TARGET = parse_target("x86-64-v4")
# what carries through what a pass has begun belongs to its count
TOGETHER: tuple[tuple[Pass, ...], ...] = (
    (SameForAll(),),
    (Demand(),),
    (DeadChannels(step=1), Demand()),
    (DeadChannels(step=4), Demand()),
    (ZeroTaps(), Demand()),
    (LinearMaps(),),
)


def _holds(graph: Graph) -> None:
    assume(graph.outputs)
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    scale = max(1.0, *(float(np.abs(array).max(initial=0)) for array in want.values()))

    def agrees() -> None:
        same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-5 * scale)

    run_passes(graph, (Fixpoint(SIMPLIFY),))
    for passes in TOGETHER:
        work = graph_work(graph)
        run_passes(graph, (Fixpoint((*passes, *SIMPLIFY)),))
        assert graph_work(graph) <= work, passes
        agrees()
    run_passes(graph, (fewer_operations(),))
    agrees()
    run_passes(graph, (ImageByImage(TARGET, cache_bytes=1024), Fixpoint(SIMPLIFY)))
    agrees()
    run_passes(graph, optimization_passes(2, target=TARGET))
    agrees()


@settings(max_examples=80)
@given(st.lists(st.integers(0, 1 << 20), min_size=2, max_size=9), st.integers(0, 3), st.booleans())
def test_random_pictures(numbers: list[int], symbols: int, forks: bool) -> None:
    _holds(build(numbers, symbols=symbols, forks=forks))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(600))
def test_more_random_pictures(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = rng.integers(0, 1 << 20, int(rng.integers(3, 12))).tolist()
    graph = build(numbers, symbols=seed % 4, forks=bool(seed % 3))
    if graph.outputs:
        _holds(graph)
