"""Products whose parts meet again: what is split, and what becomes one kernel."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, inputs_for, same_results
from suites.cases import ALL_CASES

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, constant
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.patterns.split_products import SplitProducts
from tensmith.passes.pipeline import SIMPLIFY

ROWS = "%x: f32[n, 5], %b: f32[n, 12]"


def rewritten(lines: list[str], columns: int = 12) -> Graph:
    """The graph after the pass, its input `w` a constant; checks that it computes what it did."""
    graph = parse_graph(body(f"{ROWS}, %w: f32[5, {columns}]", lines))
    weights = inputs_for(graph)["w"]
    graph.replace_uses({graph.inputs[-1]: constant(np.asarray(weights), "w")})
    del graph.inputs[-1]
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (SplitProducts(), *SIMPLIFY))
    same_results(want, run_graph(graph, inputs))
    return graph


def products(graph: Graph) -> list[tuple[int, ...]]:
    return [node.output.shape[1:] for node in graph.nodes if node.op == "matmul"]


def cut(name: str, source: str, start: int, stop: int) -> str:
    attrs = f"starts = (0, {start}), steps = (1, 1), stops = (n, {stop})"
    return f"%{name}: f32[n, {stop - start}] = slice(%{source}) {{{attrs}}}"


def test_parts_that_meet() -> None:
    graph = rewritten(
        [
            "%p: f32[n, 12] = matmul(%x, %w)",
            "%s: f32[n, 12] = add(%b, %p)",
            cut("i", "s", 0, 6),
            cut("j", "s", 6, 12),
            "%t: f32[n, 6] = tanh(%i)",
            "%y: f32[n, 6] = mul(%t, %j)",
        ]
    )
    assert products(graph) == [(6,), (6,)]
    run_passes(graph, (Fusion(),))
    (fused,) = graph.nodes
    kinds = [node.op for node in fused.regions[0].nodes]
    assert kinds.count("matmul") == 2
    assert fused.outputs == graph.outputs


@pytest.mark.parametrize(
    "lines",
    [
        [cut("i", "s", 0, 6), cut("j", "s", 6, 12), "%y: f32[n, 12] = concat(%j, %i) {axis = 1}"],
        [cut("i", "s", 0, 5), cut("j", "s", 7, 12), "%y: f32[n, 5] = mul(%i, %j)"],
        [cut("i", "s", 0, 6), "%y: f32[n, 6] = mul(%i, %i)"],
        [
            cut("i", "s", 0, 6), cut("j", "s", 6, 12), "%k: f32[n, 6] = mul(%i, %j)",
            "%m: f32[n, 1] = reduce_max(%s) {axes = (1,), keepdims = true}",
            "%y: f32[n, 6] = add(%k, %m)",
        ],
    ],
    ids=["apart", "with a gap", "one part", "used whole"],
)  # fmt: skip
def test_others_stay(lines: list[str]) -> None:
    graph = rewritten(["%s: f32[n, 12] = matmul(%x, %w)", *lines])
    assert products(graph) == [(12,)]


def test_one_kernel_for_the_products_of_a_gated_layer() -> None:
    (case,) = (case for case in ALL_CASES if case.name == "gated_layer")
    graph = case.graph()
    run_passes(graph, (Fusion(),))
    (fused,) = graph.nodes
    assert [node.op for node in fused.regions[0].nodes].count("matmul") == 2


def test_products_that_do_not_meet_stay_apart() -> None:
    text = body(
        "%x: f32[n, 5], %v: f32[5, 6], %w: f32[5, 6]",
        [
            "%p: f32[n, 6] = matmul(%x, %v)",
            "%q: f32[n, 6] = matmul(%x, %w)",
            "%t: f32[6, n] = transpose(%q) {perm = (1, 0)}",
            "%y: f32[n, n] = matmul(%p, %t)",
        ],
    )
    graph = parse_graph(text)
    found = inputs_for(graph)
    graph.replace_uses({v: constant(found[v.name], v.name) for v in graph.inputs[1:]})
    del graph.inputs[1:]
    run_passes(graph, (Fusion(),))
    for node in graph.nodes:
        if node.op == "fused":
            assert [inner.op for inner in node.regions[0].nodes].count("matmul") <= 1
