"""Fusion: what becomes one kernel, and how large its expressions may grow."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from rewriting import body, rewritten
from suites.case import F32, I32, U8, CaseBuilder

from tensmith.compiler.ir import Graph, Value, constant
from tensmith.compiler.ir.text import print_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.grouping.fusion import MAX_EXPRESSION, Fusion

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


STEPS = "reverse_in = (false,), reverse_out = (), trip = 3"


def _scan(state: str, *lines: str) -> str:
    """A scan over x that begins at `state` and adds the product with `flat` in every step."""
    before = "\n  ".join(lines)
    return f"""
graph "g"(%x: f32[3, 1, 4], %w: f32[4, 2, 4], %s: f32[2, 1, 4]) {{
  {before}
  %y: f32[1, 4] = scan(%{state}, %x) {{num_state = 1, {STEPS}}} [
    graph "step"(%state: f32[1, 4], %row: f32[1, 4]) {{
      %p: f32[1, 4] = matmul(%state, %flat)
      %q: f32[1, 4] = add(%row, %p)
      return %q
    }}
  ]
  return %y
}}
"""


PART = "%part: f32[4, 1, 4] = slice(%w) {starts = (0, 1, 0), steps = (1, 1, 1), stops = (4, 2, 4)}"
FLAT = "%flat: f32[4, 4] = reshape(%part) {shape = (4, 4)}"
TAKEN = (
    "%taken: f32[1, 1, 4] = slice(%s) {starts = (1, 0, 0), steps = (1, 1, 1), stops = (2, 1, 4)}"
)
START = "%start: f32[1, 4] = reshape(%taken) {shape = (1, 4)}"


@pytest.mark.parametrize("epilogues", [False, True])
def test_parts_that_control_flow_reads_through_reshapes_are_in_memory(epilogues: bool) -> None:
    """What a region captures, and what a loop begins with."""
    graph = rewritten(_scan("start", PART, FLAT, TAKEN, START), Fusion(epilogues))
    assert groups(graph).count(["slice"]) == 2


def test_reshapes_of_reshapes_before_control_flow_need_no_copies() -> None:
    lines = [
        "%t: f32[2, 1, 4] = neg(%s)",
        "%taken: f32[2, 4] = reshape(%t) {shape = (2, 4)}",
        "%start: f32[1, 4] = slice(%taken) {starts = (0, 0), steps = (1, 1), stops = (1, 4)}",
        "%u: f32[4, 2, 4] = abs(%w)",
        "%v: f32[8, 4] = reshape(%u) {shape = (8, 4)}",
        "%part: f32[4, 4] = slice(%v) {starts = (0, 0), steps = (1, 1), stops = (4, 4)}",
        "%wide: f32[16] = reshape(%part) {shape = (16,)}",
        "%flat: f32[4, 4] = reshape(%wide) {shape = (4, 4)}",
    ]
    graph = rewritten(_scan("start", *lines), Fusion())
    assert sum(found[-1] == "slice" for found in groups(graph)) == 2
    assert [node.op for node in graph.nodes].count("reshape") == 2


@pytest.mark.parametrize("result", ["%a", "%b"])
def test_what_branches_return_is_not_made_with_what_reads_it(result: str) -> None:
    """A branch that returns a value of the graph around it reads that value."""
    graph = rewritten(
        body(
            f"{X}, %c: bool[]",
            [
                "%a: f32[n, 4] = exp(%x)",
                "%b: f32[n, 4] = neg(%a)",
                "%i: f32[n, 4] = if(%c) [",
                '  graph "then"() {',
                f"    return {result}",
                "  }",
                '  graph "else"() {',
                "    return %x",
                "  }",
                "]",
                "%y: f32[n, 4] = add(%b, %i)",
            ],
        ),
        Fusion(),
    )
    assert ["exp", "neg"] in groups(graph)
    assert ["add"] in groups(graph)


def test_sizes_are_read_before_what_they_size() -> None:
    """The group stands where its last member stood; what uses its symbols comes behind them."""
    graph = rewritten(
        body(
            "%x: f32[4], %n: i64[1]",
            [
                "%a: f32[4] = exp(%x)",
                "%m: i64[1] = abs(%n)",
                'read_dims(%m) {symbols = ("k",)}',
                "%b: f32[4] = neg(%a)",
                "%r: f32[1, 4] = reshape(%b) {shape = (1, 4)}",
                "%y: f32[k, 4] = broadcast_to(%r) {shape = (k, 4)}",
            ],
        ),
        Fusion(),
    )
    assert [node.op for node in graph.nodes].index("read_dims") < len(graph.nodes) - 1


def test_groups_that_would_need_each_other() -> None:
    """[a, c] reads what is made of b, and [b, d] what is made of a, without d needing c."""
    graph = rewritten(
        body(
            "%x: f32[8], %z: f32[4]",
            [
                "%a: f32[8] = exp(%x)",
                "%b: f32[4] = exp(%z)",
                "%s: f32[4] = slice(%a) {starts = (0,), stops = (4,), steps = (1,)}",
                "%d: f32[4] = mul(%b, %s)",
                "%w: f32[8] = concat(%b, %z) {axis = 0}",
                "%c: f32[8] = mul(%a, %w)",
                "%v: f32[8] = concat(%d, %z) {axis = 0}",
                "%y: f32[8] = add(%c, %v)",
            ],
        ),
        Fusion(),
    )
    found = groups(graph)
    assert sorted(op for group in found for op in group if op != "slice") == sorted(
        ["exp", "mul", "add", "exp", "mul", "concat", "concat"]
    )
    assert max(map(len, found)) > 1  # one of the two is kept


def test_bytes_are_made_floats_by_every_group_that_reads_them() -> None:
    """A residual connection keeps bytes in memory; a float product gets its floats from there."""
    c = CaseBuilder("bytes")
    zero, scale = constant(np.uint8(3)), c.scalar(0.5)
    x = c.op("matmul", c.input(4, 8), c.weight(8, 8))
    q = c.op("rint", x)
    q = c.op("cast", q, dtype=U8)
    real = c.op("dequantize", q, scale, zero)
    y = c.op("matmul", c.op("cast", c.op("reshape", q, shape=(8, 4)), dtype=F32), c.weight(4, 4))
    y = c.op("reshape", y, shape=(4, 8))
    c.output(c.op("add", c.op("sigmoid", y), real))
    graph = c.graph()
    run_passes(graph, (Fusion(),))
    holders = [
        [inner.op for inner in node.regions[0].nodes] for node in graph.nodes if node.op == "fused"
    ]
    assert "dequantize" not in holders[0]
    assert "dequantize" in holders[-1]


def test_a_group_makes_the_floats_of_its_bytes_that_others_have_in_memory() -> None:
    """A product reads them there; the kernel that makes the bytes cannot wait for them."""
    c = CaseBuilder("bytes")
    q = c.op("cast", c.op("rint", c.input(4, 4)), dtype=U8)
    real = c.op("dequantize", q, c.scalar(0.5), constant(np.uint8(3)))
    c.output(c.op("matmul", real, c.input(4, 4)))
    c.output(c.op("abs", real))
    graph = c.graph()
    run_passes(graph, (Fusion(),))
    assert groups(graph) == [
        ["rint", "cast", "dequantize", "abs"],
        ["dequantize"],
        ["matmul"],
    ]


def test_places_of_extremes_are_no_rows_that_join() -> None:
    """argmax keeps an axis as well, but of a single one, and goes in order."""
    graph = rewritten(
        body(
            X,
            [
                "%m: f32[n, 1] = reduce_max(%x) {axes = (1,), keepdims = true}",
                "%d: f32[n, 4] = sub(%x, %m)",
                "%i: i64[n, 1] = argmax(%d) {axis = 1, keepdims = true}",
                "%f: f32[n, 1] = cast(%i) {dtype = !f32}",
                "%y: f32[n, 1] = mul(%m, %f)",
            ],
        ),
        Fusion(),
    )
    assert not [group for group in groups(graph) if {"reduce_max", "argmax"} <= set(group)]


def test_layers_with_other_zero_points_have_one_kernel() -> None:
    """What zero points take off sums are operands."""

    def layer(numbers: tuple[int, int]) -> str:
        c = CaseBuilder("layer")
        a = c.input(40, 16, dtype=I32, name="a")
        total = c.op("matmul", a, c.input(16, 24, dtype=I32), product="dot4")
        rows = c.op("reduce_sum", a, axes=(1,), keepdims=True)
        moved = c.op("sub", total, c.op("mul", rows, constant(np.int32(numbers[0]))))
        c.output(c.op("add", moved, constant(np.int32(numbers[1]))))
        graph = c.graph()
        run_passes(graph, [Fusion()])
        regions = [print_graph(n.regions[0]) for n in graph.nodes if n.op == "fused"]
        return "\n".join(regions)

    assert layer((7, 90)) == layer((-3, 5))


def test_layers_with_other_scales_of_sums_have_one_kernel() -> None:
    def layer(scale: float) -> str:
        c = CaseBuilder("layer")
        total = c.op(
            "matmul", *(c.input(*s, dtype=I32) for s in ((40, 16), (16, 24))), product="dot4"
        )
        real = c.op("cast", total, dtype=F32)
        c.output(c.op("exp", c.op("mul", real, constant(np.float32(scale)))))
        graph = c.graph()
        run_passes(graph, [Fusion()])
        (group,) = [n for n in graph.nodes if n.op == "fused"]
        return print_graph(group.regions[0])

    assert layer(0.25) == layer(0.003)


def test_tables_are_operands_of_the_kernels_that_look_up() -> None:
    def looked_up(values: tuple[int, ...]) -> tuple[str, Value]:
        c = CaseBuilder("table")
        c.output(c.op("byte_table", c.input(4, 40, dtype=U8), values=values, dtype=U8))
        graph = c.graph()
        run_passes(graph, [Fusion()])
        [node] = [node for node in graph.nodes if node.op == "fused"]
        return print_graph(node.regions[0]), node.inputs[1]

    ascending, falling = tuple(range(256)), tuple(range(255, -1, -1))
    (one, first), (two, second) = looked_up(ascending), looked_up(falling)
    assert one == two
    assert [first.data.tolist(), second.data.tolist()] == [list(ascending), list(falling)]  # type: ignore[union-attr]


def test_branches_that_meet_are_one_kernel() -> None:
    """What only a pointwise group reads is in it, and not in memory in between."""
    graph = rewritten(
        body(
            f"{X}, %z: f32[n, 4]",
            [
                "%a: f32[n, 4] = tanh(%x)",
                "%b: f32[n, 4] = sigmoid(%z)",
                "%c: f32[n, 4] = neg(%b)",
                "%y: f32[n, 4] = mul(%a, %c)",
            ],
        ),
        Fusion(),
    )
    assert groups(graph) == [["tanh", "sigmoid", "neg", "mul"]]


@pytest.mark.parametrize("length", [4, MAX_EXPRESSION])
def test_branches_are_bounded(length: int) -> None:
    """A branch of many operators, read by one that is used twice."""
    names = ["z", *(f"b{step}" for step in range(length))]
    branch = [f"%{new}: f32[n, 4] = neg(%{old})" for old, new in pairwise(names)]
    lines = [
        "%a: f32[n, 4] = tanh(%x)",
        *branch,
        f"%m: f32[n, 4] = mul(%a, %{names[-1]})",
        "%y: f32[n, 4] = mul(%m, %m)",
    ]
    made = groups(rewritten(body(f"{X}, %z: f32[n, 4]", lines), Fusion()))
    assert len(made) == 1 if length == 4 else len(made) > 1
