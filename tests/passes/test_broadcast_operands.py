"""Reshapes that only put axes of size 1 in front of an operand, or take them away, go."""

from __future__ import annotations

import pytest
from rewriting import body, inputs_for, same_results

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.layout.broadcast_operands import BroadcastOperands
from tensmith.passes.simplify.dce import DeadCodeElimination

PASSES = BroadcastOperands(), DeadCodeElimination()


def rewritten(inputs: str, lines: list[str]) -> Graph:
    graph = parse_graph(body(inputs, lines).replace("return %y", "return %z"))
    arrays = inputs_for(graph)
    want = run_graph(graph, arrays)
    run_passes(graph, PASSES)
    same_results(want, run_graph(graph, arrays))
    return graph


def test_what_scales_one_row_is_one_kernel_with_its_reduction() -> None:
    graph = rewritten(
        "%x: f32[1, 24], %w: f32[24]",
        [
            "%m: f32[1, 1] = reduce_mean(%x) {axes = (1,), keepdims = true}",
            "%r: f32[1, 1] = exp(%m)",
            "%s: f32[] = reshape(%r) {shape = ()}",
            "%p: f32[1, 24] = mul(%x, %s)",
            "%z: f32[1, 24] = mul(%p, %w)",
        ],
    )
    assert [node.op for node in graph.nodes] == ["reduce_mean", "exp", "mul", "mul"]
    run_passes(graph, (Fusion(),))
    assert [node.op for node in graph.nodes] == ["fused"]


@pytest.mark.parametrize(
    ("source", "view", "goes"),
    [
        ("1, 1, 6", "1, 6", True),  # fewer axes than the result has, either way
        ("6", "1, 1, 6", True),
        ("1, 1, 1", "", True),
        ("4, 6", "1, 4, 6", True),
        ("6, 4", "4, 6", False),  # other rows
        ("24", "4, 6", False),
        ("1, 1, 1, 6", "6", False),  # more axes than the result has
    ],
)
def test_shapes(source: str, view: str, goes: bool) -> None:
    comma = "," if view and "," not in view else ""
    graph = rewritten(
        f"%x: f32[2, 4, 6], %v: f32[{source}]",
        [
            f"%s: f32[{view}] = reshape(%v) {{shape = ({view}{comma})}}",
            "%z: f32[2, 4, 6] = add(%x, %s)",
        ],
    )
    assert (len(graph.nodes) == 1) == goes


def test_a_result_keeps_its_axes() -> None:
    graph = rewritten(
        "%v: f32[6], %w: f32[4, 1]",
        [
            "%s: f32[1, 4, 1] = reshape(%w) {shape = (1, 4, 1)}",
            "%z: f32[1, 4, 6] = mul(%v, %s)",
        ],
    )
    assert len(graph.nodes) == 2
