"""Fusion: what becomes one kernel, and how large its expressions may grow."""

from __future__ import annotations

from itertools import pairwise

import pytest
from rewriting import body, rewritten

from tensmith.compiler.ir import Graph
from tensmith.passes.fusion import MAX_EXPRESSION, Fusion

X = "%x: f32[n, 4]"


def groups(graph: Graph) -> list[list[str]]:
    """The operators of every fused node."""
    return [[n.op for n in node.regions[0].nodes] for node in graph.nodes if node.op == "fused"]


def chain(op: str, length: int, *, twice: bool) -> list[str]:
    """op(op(...)), of the value and itself or of the value and the input."""
    names = ["x", *(f"v{step}" for step in range(length - 1)), "y"]
    return [
        f"%{new}: f32[n, 4] = {op}(%{old}, %{old if twice else 'x'})"
        for old, new in pairwise(names)
    ]


def test_epilogue_joins_the_contraction() -> None:
    graph = rewritten(
        body(
            f"{X}, %w: f32[4, 8], %b: f32[8]",
            [
                "%p: f32[n, 8] = matmul(%x, %w)",
                "%s: f32[n, 8] = add(%p, %b)",
                "%y: f32[n, 8] = sigmoid(%s)",
            ],
        ),
        Fusion(),
    )
    assert groups(graph) == [["matmul", "add", "sigmoid"]]


def test_rows_are_reduced_together() -> None:
    graph = rewritten(
        body(
            X,
            [
                "%m: f32[n, 1] = reduce_max(%x) {axes = (1,), keepdims = true}",
                "%d: f32[n, 4] = sub(%x, %m)",
                "%e: f32[n, 4] = exp(%d)",
                "%s: f32[n, 1] = reduce_sum(%e) {axes = (1,), keepdims = true}",
                "%y: f32[n, 4] = div(%e, %s)",
            ],
        ),
        Fusion(),
    )
    assert groups(graph) == [["reduce_max", "sub", "exp", "reduce_sum", "div"]]


def test_off_makes_a_kernel_of_every_node() -> None:
    graph = rewritten(body(X, chain("add", 5, twice=False)), Fusion(epilogues=False))
    assert groups(graph) == [["add"]] * 5


def test_value_through_another_group_does_not_join() -> None:
    """The sum needs the reduction, which needs the exponential: one kernel would be a cycle."""
    graph = rewritten(
        body(
            X,
            [
                "%a: f32[n, 4] = exp(%x)",
                "%m: f32[4] = reduce_sum(%a) {axes = (0,), keepdims = false}",
                "%y: f32[n, 4] = add(%a, %m)",
            ],
        ),
        Fusion(),
    )
    assert not any({"exp", "add"} <= set(group) for group in groups(graph))


@pytest.mark.parametrize(("op", "twice", "length"), [("max", True, 40), ("add", False, 600)])
def test_expressions_are_bounded(op: str, twice: bool, length: int) -> None:
    """Used twice, each value doubles the expression; used once, it deepens it."""
    found = groups(rewritten(body(X, chain(op, length, twice=twice)), Fusion()))
    longest = MAX_EXPRESSION.bit_length() if twice else MAX_EXPRESSION
    assert max(map(len, found)) <= longest
    assert sum(map(len, found)) == length
    assert len(found) <= 1 + length / (longest / 4)


def test_producers_of_a_reduction_are_bounded() -> None:
    lines = [line.replace("%y", "%last") for line in chain("max", 40, twice=True)]
    total = "%y: f32[n, 1] = reduce_sum(%last) {axes = (1,), keepdims = true}"
    found = groups(rewritten(body(X, [*lines, total]), Fusion()))
    assert max(map(len, found)) <= 1 + MAX_EXPRESSION.bit_length()


def test_chains_of_moves_are_bounded() -> None:
    steps = [f"v{step}" for step in range(2 * MAX_EXPRESSION)]
    lines, last = [], "x"
    for number, name in enumerate(steps):
        shape = "4, n" if number % 2 == 0 else "n, 4"
        lines.append(f"%{name}: f32[{shape}] = transpose(%{last}) {{perm = (1, 0)}}")
        last = name
    found = groups(rewritten(body(X, [*lines, f"%y: f32[n, 4] = exp(%{last})"]), Fusion()))
    assert max(map(len, found)) <= MAX_EXPRESSION


def test_part_that_a_region_reads_through_a_reshape_is_in_memory() -> None:
    text = """
graph "g"(%x: f32[3, 1, 4], %w: f32[4, 2, 4], %s: f32[1, 4]) {
  %part: f32[4, 1, 4] = slice(%w) {starts = (0, 1, 0), steps = (1, 1, 1), stops = (4, 2, 4)}
  %flat: f32[4, 4] = reshape(%part) {shape = (4, 4)}
  %y: f32[1, 4] = scan(%s, %x) {num_state = 1, reverse_in = (false,), reverse_out = (), trip = 3} [
    graph "step"(%state: f32[1, 4], %row: f32[1, 4]) {
      %p: f32[1, 4] = matmul(%state, %flat)
      %q: f32[1, 4] = add(%row, %p)
      return %q
    }
  ]
  return %y
}
"""
    assert ["slice"] in groups(rewritten(text, Fusion()))
