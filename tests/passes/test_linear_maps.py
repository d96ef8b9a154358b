"""Channel maps move to where they cost least, and compute what they did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import body, count, inputs_for, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.demand import Demand
from tensmith.passes.arithmetic.linear_maps import LinearMaps
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes

WHOLE = Fixpoint((LinearMaps(), *SIMPLIFY))
ONE = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0)}


def doubled(c: CaseBuilder, x: Value, axis: int) -> Value:
    """x, enlarged twofold along an axis by linear interpolation."""
    size = x.shape[axis]
    where = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    low = np.floor(where).astype(np.int64)
    shape = [1] * x.type.rank
    shape[axis] = 2 * size
    weight = (where - low).astype(np.float32).reshape(shape)
    first = c.op("gather", x, constant(low), axis=axis)
    second = c.op("gather", x, constant(np.minimum(low + 1, size - 1)), axis=axis)
    kept = c.op("mul", first, constant(1 - weight))
    return c.op("add", kept, c.op("mul", second, constant(weight)))


def optimised(c: CaseBuilder, *passes: Fixpoint) -> tuple[Graph, float, float]:
    """The graph after the passes, and its FLOPs before and after; checks its results."""
    graph = c.graph()
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (Fixpoint(SIMPLIFY),))
    before, work = graph_flops(graph), graph_work(graph)
    run_passes(graph, passes or (WHOLE,))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    after = graph_flops(graph)
    assert isinstance(before, int)
    assert isinstance(after, int)
    assert graph_work(graph) <= work
    return graph, before, after


def test_a_vector_that_broadcasts_is_mapped() -> None:
    """(x A + v) B = x (A B) + v B, of which only a run knows v."""
    c = CaseBuilder("vector")
    wide = c.op("matmul", c.input(64, 4), c.weight(4, 32))
    added = c.op("add", wide, c.op("exp", c.input(32)))
    c.output(c.op("matmul", added, c.weight(32, 2)))
    graph, before, after = optimised(c)
    assert after < before / 4
    assert count(graph)["matmul"] == 2


def test_a_head_of_several_resolutions() -> None:
    """SegFormer's: projections, resizes, a concat, a convolution over all."""
    c = CaseBuilder("head")
    levels = []
    for channels, size in ((4, 8), (6, 4)):
        x = c.input(1, size * size, channels)
        tokens = c.op("add", c.op("matmul", x, c.weight(channels, 16)), c.weight(16))
        grid = c.op("transpose", tokens, perm=(0, 2, 1))
        grid = c.op("reshape", grid, shape=(1, 16, size, size))
        for axis in (2, 3) if size == 4 else ():
            grid = doubled(c, grid, axis)
        levels.append(grid)
    joined = c.op("concat", *levels, axis=1)
    c.output(c.op("tanh", c.op("conv", joined, c.weight(16, 32, 1, 1), c.weight(16), **ONE)))
    graph, before, after = optimised(c)
    assert before == 2 * (64 * 4 * 16 + 16 * 6 * 16 + 64 * 32 * 16)
    assert after == 2 * (64 * 4 * 16 + 16 * 6 * 16)
    assert "concat" not in count(graph)


def test_two_maps_become_one_where_that_is_cheaper() -> None:
    for middle, maps in ((9, 1), (2, 2)):
        c = CaseBuilder("chain")
        x = c.input(5, 8)
        inner = c.op("add", c.op("matmul", x, c.weight(8, middle)), c.weight(middle))
        c.output(c.op("matmul", inner, c.weight(middle, 8)))
        graph, before, after = optimised(c)
        assert count(graph)["matmul"] == maps
        assert after == min(before, 2 * 5 * 8 * 8)


def test_a_map_that_is_read_otherwise_stays() -> None:
    c = CaseBuilder("shared")
    x = c.input(5, 8)
    inner = c.op("matmul", x, c.weight(8, 6))
    c.output(c.op("matmul", inner, c.weight(6, 8)), inner)
    graph, before, after = optimised(c)
    assert after == before
    assert count(graph)["matmul"] == 2


def test_rows_are_mapped_before_they_are_repeated() -> None:
    text = body(
        "%x: f32[1, 4, 6], %w: f32[6, 3]",
        [
            "%b: f32[5, 4, 6] = broadcast_to(%x) {shape = (5, 4, 6)}",
            "%y: f32[5, 4, 3] = matmul(%b, %w)",
        ],
    )
    graph = parse_graph(text)
    weights = inputs_for(graph)["w"]
    graph.replace_uses({graph.inputs.pop(): constant(weights)})
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    told: list[Saving] = []
    run_passes(graph, (LinearMaps(told.append), *SIMPLIFY))
    same_results(want, run_graph(graph, inputs))
    assert [node.op for node in graph.nodes] == ["matmul", "broadcast_to"]
    assert [item.by for item in told] == ["linear_maps"]
    assert told[0].after < told[0].before


def test_what_a_discrete_result_hangs_on_stays() -> None:
    c = CaseBuilder("rounded")
    x = c.op("broadcast_to", c.input(1, 6), shape=(50, 6))
    c.output(c.op("floor", c.op("matmul", x, c.weight(6, 4))))
    graph = c.graph()
    assert not LinearMaps().run(graph)


def _step(c: CaseBuilder, x: Value, rng: np.random.Generator) -> Value:
    """One linear operator, or now and then one that is not."""
    kind = int(rng.integers(13))
    rank, channels = x.type.rank, x.shape[1]
    out = int(rng.choice([2, 5, 12]))
    if kind < 4:
        inputs = [x, c.weight(out, channels, 1, 1), *([c.weight(out)] if rng.integers(2) else [])]
        return c.op("conv", *inputs, **ONE)
    if kind == 4 and x.type.elements < 3000:
        return doubled(c, x, int(rng.integers(2, 4)))
    if kind == 5 and x.type.elements < 3000:
        places = np.repeat(np.arange(x.shape[3]), 2)
        return c.op("gather", x, constant(places), axis=3)
    if kind == 6:
        shape = [1, 1, x.shape[2], 1]
        shape[1] = channels if rng.integers(2) else 1
        shape[2] = 1 if shape[1] > 1 else shape[2]
        return c.op(
            str(rng.choice(["add", "mul", "sub", "div"])), x, c.weight(*shape, low=1, high=2)
        )
    if kind == 7 and x.shape[2] > 2:
        stops = (*x.shape[:2], x.shape[2] - 1, x.shape[3])
        return c.op("slice", x, starts=(0, 0, 1, 0), stops=stops, steps=(1,) * rank)
    if kind == 8:
        return c.op("concat", x, c.op("neg", x), axis=1)
    if kind == 9:
        last = c.op("transpose", x, perm=(0, 2, 3, 1))
        last = c.op("matmul", last, c.weight(channels, out))
        return c.op("transpose", last, perm=(0, 3, 1, 2))
    if kind == 10:
        window = {"strides": (1, 1), "dilations": (1, 1), "pads": (1, 0, 0, 1), "kernel": (2, 2)}
        return c.op("avg_pool", x, **window, count_include_pad=bool(rng.integers(2)))
    if kind == 11:
        return c.op("pad", x, pads=(0, 0, 1, 0, 0, 0, 0, 1))
    norm = c.op("layer_norm", x, c.weight(x.shape[3]), axis=3)
    return norm if rng.integers(2) else c.op("tanh", x)


@settings(max_examples=150)
@given(st.lists(st.integers(0, 1 << 16), min_size=2, max_size=10), st.booleans())
def test_random_graphs(numbers: list[int], forks: bool) -> None:
    c = CaseBuilder("random")
    made = [c.input(1, 3, 4, 4)]
    for number in numbers:
        rng = np.random.default_rng(number)
        made.append(_step(c, made[-1 - int(forks and len(made) > 1 and rng.integers(2))], rng))
    c.output(*dict.fromkeys((made[-1], made[-2])) if made[-2].producer else made[-1:])
    _, before, after = optimised(c, Fixpoint((Demand(), LinearMaps(), *SIMPLIFY)))
    assert after <= before


@pytest.mark.parametrize("seed", range(6))
def test_the_whole_pipeline(seed: int) -> None:
    """With what chooses layouts and folds scales around it."""
    c = CaseBuilder("pipeline")
    x = c.input(2, 3, 4, 4)
    for number in range(6):
        x = _step(c, x, np.random.default_rng(100 * seed + number))
    c.output(x)
    graph = c.graph()
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, optimization_passes(2))
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
