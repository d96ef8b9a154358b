"""Composite operators taken apart: what they compute, and that 16-bit floats round once."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, inputs_for

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.text import parse_graph
from tensmith.passes.simplify.decompose import RULES, Decompose

CASES = {
    "softmax": ("%x: {t}[3, 40]", "%y: {t}[3, 40] = softmax(%x) {{axis = 1}}"),
    "layer_norm": (
        "%x: {t}[3, 40], %s: {t}[40], %b: {t}[40]",
        "%y: {t}[3, 40] = layer_norm(%x, %s, %b) {{axis = 1, epsilon = 0.00001}}",
    ),
    "attention": (
        "%q: {t}[2, 6, 8], %k: {t}[2, 7, 8], %v: {t}[2, 7, 5], %m: {t}[6, 7]",
        "%y: {t}[2, 6, 5] = attention(%q, %k, %v, %m) {{scale = 0.35}}",
    ),
}
TOLERANCE = {"f16": (2.0**-11, 2.0**-14), "f32": (2.0**-20, 2.0**-20)}  # relative, absolute


@pytest.mark.parametrize("dtype", sorted(TOLERANCE))
@pytest.mark.parametrize("op", sorted(RULES))
def test_parts_compute_what_the_whole_does(op: str, dtype: str) -> None:
    inputs, line = (text.format(t=dtype) for text in CASES[op])
    graph = parse_graph(body(inputs, [line]))
    feeds = inputs_for(graph)
    wanted = run_graph(graph, feeds)["y"].astype(np.float64)
    assert Decompose().run(graph)
    assert not any(node.op in RULES for node in graph.walk())
    found = run_graph(graph, feeds)["y"].astype(np.float64)
    np.testing.assert_allclose(found, wanted, *TOLERANCE[dtype])


def test_scores_that_fit_only_after_scaling() -> None:
    inputs, line = (text.format(t="f16") for text in CASES["attention"])
    graph = parse_graph(body(inputs, [line.replace("0.35", "0.0001")]))
    feeds = {name: array * np.float16(120) for name, array in inputs_for(graph).items()}
    assert np.abs(feeds["q"].astype(np.float64) @ feeds["k"].astype(np.float64).mT).max() > 65504
    Decompose().run(graph)
    assert np.isfinite(run_graph(graph, feeds)["y"]).all()
