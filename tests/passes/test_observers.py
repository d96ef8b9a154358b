"""What observers hand out, by the reference."""

from __future__ import annotations

import numpy as np
from suites.case import F16, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.verify import verify
from tensmith.passes.precision.observers import SAMPLED, compare, observe, sample

X = np.random.default_rng(0).standard_normal((2, 3, 5)).astype(np.float32)


def test_statistics_of_what_is_behind_the_kept_outputs() -> None:
    c = CaseBuilder("graph")
    x = c.input(2, 3, 5)
    c.output(c.op("neg", x), c.op("exp", x), c.op("cast", x, dtype=F16))
    graph = c.graph()
    kept, exp, half = (value.name for value in graph.outputs)
    observe(graph, 1, [1, None])
    verify(graph)
    found = run_graph(graph, {graph.inputs[0].name: X})
    assert list(found) == [
        kept,
        *(f"{exp}:{what}" for what in ("square", "mean", "lows", "highs")),
        *(f"{half}:{what}" for what in ("square", "low", "high")),
    ]
    wanted = np.exp(X)
    np.testing.assert_allclose(found[f"{exp}:square"], np.square(wanted).mean(), rtol=1e-6)
    np.testing.assert_allclose(found[f"{exp}:mean"], wanted.mean((0, 2)), rtol=1e-6)
    np.testing.assert_array_equal(found[f"{exp}:lows"], wanted.min((0, 2)))
    np.testing.assert_array_equal(found[f"{exp}:highs"], wanted.max((0, 2)))
    assert found[f"{half}:low"] == X.astype(np.float16).min()
    assert found[f"{half}:high"] == X.astype(np.float16).max()


def test_samples_are_some_elements_of_large_tensors_and_all_of_others() -> None:
    c = CaseBuilder("graph")
    x, y, z = c.input(3, SAMPLED), c.input(N, 2), c.input(4)
    c.output(c.op("neg", x), c.op("neg", y), c.op("neg", z))
    graph = c.graph()
    names = [value.name for value in graph.outputs]
    sample(graph, 0)
    verify(graph)
    arrays = [np.arange(3 * SAMPLED).reshape(3, -1), np.ones((7, 2)), np.arange(4)]
    feeds = zip(graph.inputs, arrays, strict=True)
    found = run_graph(graph, {v.name: array.astype(np.float32) for v, array in feeds})
    assert [found[f"{name}:sample"].shape for name in names] == [(SAMPLED,), (14,), (4,)]
    steps = np.diff(found[f"{names[0]}:sample"])
    assert (steps == -3).all()


def test_pairs_are_compared() -> None:
    c = CaseBuilder("graph")
    x = c.input(2, 3, 5)
    c.output(c.op("neg", x), c.op("floor", c.op("neg", x)))
    graph = c.graph()
    name = graph.outputs[0].name
    compare(graph)
    verify(graph)
    found = run_graph(graph, {graph.inputs[0].name: X})
    assert list(found) == [f"{name}:square", f"{name}:noise"]
    np.testing.assert_allclose(found[f"{name}:square"], np.square(X).mean(), rtol=1e-6)
    noise = np.square(np.floor(-X) + X).mean()
    np.testing.assert_allclose(found[f"{name}:noise"], noise, rtol=1e-6)
