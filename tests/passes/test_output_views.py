"""Results that are reshapes: which of them are another shape of what a kernel has made."""

from __future__ import annotations

import pytest
from rewriting import body, rewritten

from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.types import Layout
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.grouping.output_views import OutputViews

EXP = "%e: f32[6, 4] = exp(%x)"
FLAT = "{shape = (24,)}"


def viewed(lines: list[str], results: str, inputs: str = "%x: f32[6, 4]") -> Graph:
    """The graph behind the pass, which must not change what it computes."""
    text = body(inputs, lines).replace("return %y", f"return {results}")
    return rewritten(text, Fusion(), OutputViews())


def kinds(graph: Graph) -> list[str]:
    """The operators that make the results."""
    return [value.producer.op for value in graph.outputs if value.producer is not None]


def test_a_reshape_of_what_a_kernel_makes_is_no_kernel() -> None:
    graph = viewed([EXP, f"%y: f32[24] = reshape(%e) {FLAT}"], "%y")
    assert kinds(graph) == ["reshape"]
    assert [node.op for node in graph.nodes] == ["fused", "reshape"]


@pytest.mark.parametrize("order", ["%y, %e", "%e, %y"])
def test_what_is_a_result_itself_has_memory_of_its_own(order: str) -> None:
    graph = viewed([EXP, f"%y: f32[24] = reshape(%e) {FLAT}"], order)
    assert kinds(graph) == ["fused", "fused"]


def test_one_of_two_views_takes_the_memory() -> None:
    lines = [
        EXP,
        f"%y: f32[24] = reshape(%e) {FLAT}",
        "%z: f32[4, 6] = reshape(%e) {shape = (4, 6)}",
    ]
    assert sorted(kinds(viewed(lines, "%y, %z"))) == ["fused", "reshape"]


def test_a_view_is_made_once() -> None:
    graph = rewritten(body("%x: f32[6, 4]", [EXP, f"%y: f32[24] = reshape(%e) {FLAT}"]), Fusion())
    assert OutputViews().run(graph)
    assert not OutputViews().run(graph)


def test_views_of_inputs_are_copied() -> None:
    assert kinds(viewed([f"%y: f32[24] = reshape(%x) {FLAT}"], "%y")) == ["fused"]


def test_kernels_that_compute_stay() -> None:
    lines = [EXP, f"%r: f32[24] = reshape(%e) {FLAT}", "%y: f32[24] = neg(%r)"]
    assert kinds(viewed(lines, "%y")) == ["fused"]


def test_what_lies_within_borders_is_copied() -> None:
    graph = rewritten(body("%x: f32[6, 4]", [EXP, f"%y: f32[24] = reshape(%e) {FLAT}"]), Fusion())
    made = graph.nodes[0].output
    made.type = made.type.with_layout(Layout(border=((1, 1), (0, 0))))
    assert not OutputViews().run(graph)
    assert kinds(graph) == ["fused"]
