"""Attention leaves out keys that a constant mask hides, and keeps what it computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, Graph, constant
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.ir.ops.registry import Array
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.arithmetic.known_masks import KnownMasks
from tensmith.passes.pipeline import SIMPLIFY

LENGTH = 64
LOWEST = float(np.finfo(np.float32).min)


def attending(mask: Array, queries: Dim = LENGTH, keys: int = LENGTH, heads: int = 2) -> Graph:
    c = CaseBuilder("attending")
    q, k, v = c.input(1, heads, queries, 4), c.input(1, heads, keys, 4), c.input(1, heads, keys, 3)
    c.output(c.op("attention", q, k, v, constant(mask.astype(np.float32)), scale=0.5))
    return c.graph()


def optimised(graph: Graph, told: list[Saving] | None = None) -> float:
    """How much of the arithmetic is left; checks the results."""
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    before = graph_flops(graph)
    run_passes(graph, (KnownMasks(None if told is None else told.append, 8), *SIMPLIFY))
    same_results(want, run_graph(graph, inputs))
    after = graph_flops(graph)
    assert isinstance(before, int)
    assert isinstance(after, int)
    return after / before


def hidden(seen: Array) -> Array:
    return np.where(seen, 0, LOWEST)


ROWS, KEYS = np.arange(LENGTH)[:, None], np.arange(LENGTH)[None, :]


def test_causal() -> None:
    told: list[Saving] = []
    graph = attending(hidden(ROWS >= KEYS))
    # keys are cut in steps of 16: more blocks than four would leave out no more
    assert optimised(graph, told) == (16 + 32 + 48 + 64) / (4 * 64)
    assert [item.by for item in told] == ["known_masks"]
    assert count(graph)["attention"] == 4


def test_window() -> None:
    assert optimised(attending(hidden(abs(ROWS - KEYS) < 4))) <= 0.5


def test_padding() -> None:
    """The same keys for all queries: one attention, and no mask is left."""
    graph = attending(hidden(KEYS < 32))
    assert optimised(graph) == 0.5
    (node,) = (node for node in graph.nodes if node.op == "attention")
    assert len(node.inputs) == 3


def test_rows_that_see_nothing() -> None:
    """Their weights are equal, whatever the scores are."""
    assert optimised(attending(hidden((ROWS >= KEYS) & (ROWS != 5)))) < 1


def test_heads_with_masks_of_their_own() -> None:
    masks = np.stack([hidden(ROWS >= KEYS), hidden((KEYS < 16) & (ROWS >= 0))])[None]
    assert optimised(attending(masks)) < 1


@pytest.mark.parametrize(
    "graph",
    [
        attending(np.zeros((LENGTH, LENGTH))),
        attending(np.where(ROWS >= KEYS, 0, -10.0)),
        attending(hidden(KEYS < 32), queries=N),
        attending(hidden(ROWS[:4] >= KEYS[:, :4]), 4, 4),
    ],
    ids=["nothing hidden", "low, not hidden", "any length", "small"],
)
def test_others_stay(graph: Graph) -> None:
    assert not KnownMasks(least_rows=8).run(graph)


@settings(max_examples=30)
@given(st.integers(0, 1 << 16))
def test_random_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, keys = (int(size) for size in rng.integers(1, 80, 2))
    low, high = np.sort(rng.integers(0, keys + 1, (2, queries, 1)), axis=0)
    seen = (np.arange(keys) >= low) & (np.arange(keys) < high)
    noise = rng.normal(size=seen.shape) if rng.integers(2) else 0.0
    shape = (1, 1, queries, keys) if rng.integers(2) else (queries, keys)
    mask = np.where(seen, noise, -np.inf if seen.any(axis=1).all() else LOWEST)
    assert optimised(attending(mask.reshape(shape), queries, keys)) <= 1
