"""Expansions that a run decides: what they are lifted over, and what stays one kernel."""

from __future__ import annotations

import pytest
from rewriting import body, count, inputs_for, same_results

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.patterns.lift_expands import LiftExpands
from tensmith.passes.pipeline import SIMPLIFY

WIDE = "broadcast(n, m)"
INPUTS = "%x: f32[n, 6], %y: f32[m, 4], %w: f32[6, 4], %b: f32[4]"
LIFT = Fixpoint((LiftExpands(), *SIMPLIFY))


def lifted(lines: list[str], inputs: str = INPUTS) -> Graph:
    graph = parse_graph(body(inputs, lines).replace("return %y", "return %z"))
    arrays = inputs_for(graph, m=1)
    want = run_graph(graph, arrays)
    run_passes(graph, (LIFT,))
    same_results(want, run_graph(graph, arrays))
    return graph


def operands(graph: Graph) -> list[str]:
    """What is expanded: the name of an input, or the operator that makes it."""
    found = []
    for node in graph.nodes:
        if node.op == "expand":
            source = node.inputs[0]
            found.append(source.producer.op if source.producer else source.name)
    return found


def test_over_a_product_before_pointwise_operators() -> None:
    graph = lifted(
        [
            "%p: f32[n, 4] = matmul(%x, %w)",
            "%q: f32[n, 4] = add(%p, %b)",
            f"%e: f32[{WIDE}, 4] = expand(%q) {{shape = ({WIDE}, 4)}}",
            f"%f: f32[{WIDE}, 4] = expand(%y) {{shape = ({WIDE}, 4)}}",
            f"%z: f32[{WIDE}, 4] = add(%e, %f)",
        ]
    )
    assert operands(graph) == ["x", "y"]
    run_passes(graph, (Fusion(),))
    assert count(graph)["fused"] == 1


def test_not_over_a_product_before_another() -> None:
    graph = lifted(
        [
            "%p: f32[n, 4] = matmul(%x, %w)",
            "%t: f32[4, n] = transpose(%p) {perm = (1, 0)}",
            f"%e: f32[4, {WIDE}] = expand(%t) {{shape = (4, {WIDE})}}",
            f"%f: f32[{WIDE}, 4] = expand(%y) {{shape = ({WIDE}, 4)}}",
            "%z: f32[4, 4] = matmul(%e, %f)",
        ]
    )
    assert operands(graph) == ["matmul", "y"]


def test_not_over_what_others_use() -> None:
    graph = lifted(
        [
            "%p: f32[m, 4] = exp(%y)",
            f"%e: f32[{WIDE}, 4] = expand(%p) {{shape = ({WIDE}, 4)}}",
            "%s: f32[4] = reduce_sum(%p) {axes = (0), keepdims = false}",
            f"%z: f32[{WIDE}, 4] = mul(%e, %s)",
        ],
        "%x: f32[n, 4], %y: f32[m, 4]",
    )
    assert operands(graph) == ["exp"]


def test_over_movement_and_norms() -> None:
    graph = lifted(
        [
            "%g: f32[n, 6, 4] = gather(%t, %i) {axis = 0}",
            "%l: f32[n, 6, 4] = layer_norm(%g, %b) {axis = 2, epsilon = 0.1}",
            "%r: f32[n, 6, 2, 2] = reshape(%l) {shape = (n, 6, 2, 2)}",
            "%s: f32[n, 2, 6, 2] = transpose(%r) {perm = (0, 2, 1, 3)}",
            f"%e: f32[{WIDE}, 2, 6, 2] = expand(%s) {{shape = ({WIDE}, 2, 6, 2)}}",
            f"%f: f32[{WIDE}, 1, 1, 1] = expand(%y) {{shape = ({WIDE}, 1, 1, 1)}}",
            f"%z: f32[{WIDE}, 2, 6, 2] = add(%e, %f)",
        ],
        "%t: f32[9, 4], %i: i64[n, 6], %b: f32[4], %y: f32[m, 1, 1, 1]",
    )
    assert operands(graph) == ["i", "y"]


def test_dims_that_are_merged_stay_behind_their_reshape() -> None:
    merged = "broadcast(k*n, m)"
    graph = lifted(
        [
            "%r: f32[k*n, 6] = reshape(%x) {shape = (k*n, 6)}",
            f"%e: f32[{merged}, 6] = expand(%r) {{shape = ({merged}, 6)}}",
            f"%f: f32[{merged}, 6] = expand(%y) {{shape = ({merged}, 6)}}",
            f"%z: f32[{merged}, 6] = sub(%e, %f)",
        ],
        "%x: f32[n, k, 6], %y: f32[m, 6]",
    )
    assert operands(graph) == ["reshape", "y"]


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        ([f"%e: f32[{WIDE}, 4] = expand(%i) {{shape = ({WIDE}, 4)}}"], ["iota", "y"]),
        (
            [
                "%a: f32[n, 4] = add(%i, %x)",
                f"%e: f32[{WIDE}, 4] = expand(%a) {{shape = ({WIDE}, 4)}}",
            ],
            ["iota", "x", "y"],
        ),
    ],
    ids=["itself", "an operand of what is lifted over"],
)
def test_not_over_what_has_no_operands(lines: list[str], kept: list[str]) -> None:
    graph = lifted(
        [
            "%i: f32[n, 4] = iota() {shape = (n, 4), axis = 1, dtype = !f32}",
            *lines,
            f"%f: f32[{WIDE}, 4] = expand(%y) {{shape = ({WIDE}, 4)}}",
            f"%z: f32[{WIDE}, 4] = sub(%e, %f)",
        ],
        "%x: f32[n, 4], %y: f32[m, 4]",
    )
    assert operands(graph) == kept


def test_what_has_several_results_is_expanded() -> None:
    graph = lifted(
        [
            "%p: i64[n], %i: i64[n], %k: i64[n], %l: i64[1] = unique(%x) {sorted = true}",
            "%q: f32[n] = cast(%i) {dtype = !f32}",
            f"%e: f32[{WIDE}] = expand(%q) {{shape = ({WIDE},)}}",
            "%r: f32[m] = reduce_max(%y) {axes = (1,), keepdims = false}",
            f"%f: f32[{WIDE}] = expand(%r) {{shape = ({WIDE},)}}",
            f"%z: f32[{WIDE}] = add(%e, %f)",
        ]
    )
    assert "unique" in count(graph)
