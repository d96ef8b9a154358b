"""What is repeated along an axis is computed once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import inputs_for, same_results
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, Graph, Value
from tensmith.compiler.ir.dims import estimate
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.same_for_all import SameForAll
from tensmith.passes.arithmetic.work import graph_work
from tensmith.passes.pipeline import SIMPLIFY

QUERIES, WIDTH = 6, 8


def optimised(graph: Graph, told: list[Saving] | None = None) -> float:
    """How much arithmetic is left; checks the results."""
    inputs = inputs_for(graph)
    want, before, work = run_graph(graph, inputs), graph_flops(graph), graph_work(graph)
    hear = None if told is None else told.append
    run_passes(graph, (Fixpoint((SameForAll(hear), *SIMPLIFY)),))
    same_results(want, run_graph(graph, inputs))
    assert graph_work(graph) <= work
    return estimate(graph_flops(graph), 5) / max(1, estimate(before, 5))


def dense(c: CaseBuilder, x: Value) -> Value:
    return c.op("matmul", x, c.weight(int(x.shape[-1]), WIDTH))  # type: ignore[arg-type]


def attend(c: CaseBuilder, q: Value, kv: Value) -> Value:
    mixed = c.op("attention", dense(c, q), dense(c, kv), dense(c, kv), scale=0.3)
    both = c.op("add", mixed, q)
    return c.op("layer_norm", both, c.weight(WIDTH), c.weight(WIDTH), axis=2, epsilon=1e-5)


def repeated(c: CaseBuilder, batch: Dim) -> Value:
    """Queries that an input of its own gives, so that nothing of them is a constant."""
    return c.op("broadcast_to", c.input(QUERIES, WIDTH), shape=(batch, QUERIES, WIDTH))


@pytest.mark.parametrize("batch", [4, N])
def test_learned_queries(batch: Dim) -> None:
    """The first self-attention of a decoder is the same for every picture."""
    c = CaseBuilder("queries")
    memory = c.input(batch, 7, WIDTH)
    queries = repeated(c, batch)
    own = attend(c, queries, queries)
    c.output(attend(c, own, memory))
    told: list[Saving] = []
    graph = c.graph()
    assert optimised(graph, told) < 0.7
    assert {item.op for item in told} >= {"matmul", "attention", "layer_norm"}
    shapes = [node.inputs[0].shape for node in graph.nodes if node.op == "attention"]
    assert [shape[0] for shape in shapes] in ([1, 1], [1, batch])


def test_another_axis() -> None:
    """Batches as the second axis, behind a transpose."""
    c = CaseBuilder("second")
    x = c.op("broadcast_to", c.input(QUERIES, 1, WIDTH), shape=(QUERIES, 4, WIDTH))
    moved = c.op("transpose", x, perm=(1, 0, 2))
    c.output(c.op("add", dense(c, moved), c.input(4, QUERIES, WIDTH)))
    assert optimised(c.graph()) < 0.5


def test_sums_over_the_axis_stay() -> None:
    c = CaseBuilder("summed")
    c.output(c.op("reduce_sum", repeated(c, 4), axes=(0,), keepdims=False))
    assert not SameForAll().run(c.graph())


@pytest.mark.parametrize("batch", [4, N])
@pytest.mark.parametrize("op", ["cumsum", "cumprod"])
def test_what_accumulates_along_the_axis_stays(op: str, batch: Dim) -> None:
    """Its first element needs nothing but the first of the operand, the others need more."""
    found = []
    for axis in (0, 1):
        c = CaseBuilder("accumulated")
        summed = c.op(op, dense(c, repeated(c, batch)), axis=axis)
        c.output(c.op("add", dense(c, summed), c.input(batch, QUERIES, WIDTH)))
        graph = c.graph()
        optimised(graph)
        found += [node.inputs[0].shape[0] for node in graph.nodes if node.op == op]
    assert found == [batch, 1]


@pytest.mark.parametrize(("taps", "dilation"), [(2, 1), (2, 2), (3, 1)])
def test_windows_that_reach_back_stay(taps: int, dilation: int) -> None:
    """The first windows of a causal convolution see one element, and zeros."""
    c = CaseBuilder("causal")
    x = c.op("broadcast_to", c.input(1, 4, 1), shape=(1, 4, 9))
    back = dilation * (taps - 1)
    c.output(
        c.op("conv", x, c.weight(4, 4, taps), strides=(1,), pads=(back, 0), dilations=(dilation,))
    )
    optimised(c.graph())


def test_copies_alone_stay() -> None:
    """Where no arithmetic is saved nothing moves."""
    c = CaseBuilder("copied")
    c.output(c.op("transpose", c.op("transpose", repeated(c, 4), perm=(0, 2, 1)), perm=(2, 1, 0)))
    assert not SameForAll().run(c.graph())


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 20))
def test_random_graphs(seed: int) -> None:
    rng = np.random.default_rng(seed)
    c = CaseBuilder("random")
    c.rng = rng
    batch = int(rng.integers(2, 5))
    values = [repeated(c, batch), c.input(batch, QUERIES, WIDTH), c.input(QUERIES, WIDTH)]
    for _ in range(int(rng.integers(2, 8))):
        a, b = (values[int(rng.integers(len(values)))] for _ in range(2))
        kind = int(rng.integers(6))
        if kind == 0:
            values.append(dense(c, a))
        elif kind == 1:
            values.append(c.op("add", a, b))
        elif kind == 2:
            values.append(c.op("sigmoid", a))
        elif kind == 3 and a.type.rank == 3:
            values.append(attend(c, a, b))
        elif kind == 4:
            values.append(c.op("softmax", a, axis=int(rng.integers(a.type.rank))))
        else:
            values.append(c.op("concat", a, a, axis=a.type.rank - 2))
            values[-1] = c.op(
                "slice",
                values[-1],
                starts=(0,) * a.type.rank,
                stops=a.shape,
                steps=(1,) * a.type.rank,
            )
    c.output(values[-1], values[-2])
    optimised(c.graph())
