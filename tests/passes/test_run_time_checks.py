"""Which checks a run is given, and which follow from the graph."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import body, count, rewritten
from suites.case import BOOL, F32, I64, CaseBuilder, N

from tensmith.compiler.ir import Graph, Value
from tensmith.compiler.ir.dims import Dim, dmin
from tensmith.compiler.ir.text import parse_graph
from tensmith.passes.checks.ranges import Ranges
from tensmith.passes.checks.run_time_checks import RunTimeChecks

CHECK = RunTimeChecks()


def checks(*nodes: str, inputs: str = "%x: f32[n, 3], %i: i64[4]", constants: str = "") -> Graph:
    """The graph of the nodes with its checks; the last node is the output."""
    graph = parse_graph(body(inputs, list(nodes), constants))
    CHECK.run(graph)
    return graph


def test_an_index_from_outside_is_checked_in_front_of_its_use() -> None:
    graph = checks("%y: f32[4, 3] = gather(%x, %i) {axis = 0}")
    assert [node.op for node in graph.nodes] == ["check_index", "gather"]
    assert graph.nodes[0].inputs == [graph.inputs[1]]
    assert str(graph.nodes[0].attrs["sizes"][0]) == "n"


def test_an_index_is_checked_once_for_each_size() -> None:
    graph = checks(
        "%a: f32[4, 3] = gather(%x, %i) {axis = 0}",
        "%b: f32[4, 3] = gather(%x, %i) {axis = 0}",
        "%c: f32[n, 4] = gather(%x, %i) {axis = 1}",
        "%d: f32[4, 3] = add(%a, %b)",
        "%e: f32[4, 4] = gather(%c, %i) {axis = 0}",
        "%y: f32[4, 4] = neg(%e)",
    )
    assert count(graph)["check_index"] == 2


@pytest.mark.parametrize(
    "nodes",
    [
        ["%j: i64[4] = mod(%i, %three)"],
        ["%k: i64[4] = max(%i, %zero)", "%j: i64[4] = min(%k, %two)"],
        ["%k: i64[4] = min(%i, %two)", "%j: i64[4] = max(%k, %lowest)"],
        ["%j: i64[3] = iota() {shape = (3,)}"],
        ["%j: i64[n, 1] = argmax(%x) {axis = 1, keepdims = true}"],
        ["%b: bool[4] = lt(%i, %two)", "%j: i64[4] = cast(%b) {dtype = !i64}"],
        [
            "%k: i64[4] = mod(%i, %two)",
            "%l: i64[4] = add(%k, %one)",
            "%j: i64[2, 2] = reshape(%l) {shape = (2, 2)}",
        ],
        ["%m: i64[4] = mod(%i, %two)", "%j: i64[4] = sub(%two, %m)"],
    ],
)
def test_an_index_that_is_in_range_as_it_is_made_needs_no_check(nodes: list[str]) -> None:
    constants = "".join(
        f"const %{name}: i64[] = [{value}]\n"
        for name, value in {"zero": 0, "one": 1, "two": 2, "three": 3, "lowest": -3}.items()
    )
    shape = nodes[-1].partition("[")[2].partition("]")[0]
    last = f"%y: f32[n, {shape}] = gather(%x, %j) {{axis = 1}}"
    text = body("%x: f32[n, 3], %i: i64[4]", [*nodes, last], constants)
    graph = parse_graph(text)
    assert not CHECK.run(graph), [node.op for node in graph.nodes]


def test_symbolic_sizes_follow_too() -> None:
    c = CaseBuilder("graph")
    x = c.input(N, 3)
    line = c.op("iota", shape=(N,), axis=0, dtype=I64)
    short = c.op("iota", shape=(dmin(N, 5),), axis=0, dtype=I64)
    backwards = c.op("sub", c.scalar(-1, I64), line)
    c.output(
        c.op("gather", x, line, axis=0),
        c.op("gather", x, backwards, axis=0),
        c.op("gather", c.weight(5), short, axis=0),
    )
    assert not CHECK.run(c.graph())


def test_a_clipped_index_needs_an_axis_that_is_not_empty() -> None:
    c = CaseBuilder("graph")
    x, i = c.input(N, 3), c.input(4, dtype=I64)
    clipped = c.op("min", c.op("max", i, c.scalar(0, I64)), c.op("dims", values=(N - 1,)))
    c.output(c.op("gather", x, clipped, axis=0))
    graph = c.graph()
    assert CHECK.run(graph)
    found = [node for node in graph.nodes if node.op.startswith("check")]
    assert [node.op for node in found] == ["check_dims"]
    assert (found[0].attrs["left"], str(found[0].attrs["right"])) == (1, "n")


def _interval(value: Value, graph: Graph) -> tuple[set[Dim], set[Dim]]:
    found = Ranges(graph).of(value)
    return set(found.low), set(found.high)


def test_the_counter_of_a_loop_is_below_its_trip() -> None:
    c = CaseBuilder("graph")
    x = c.input(8)
    inner = c.region("body")
    step, cond = inner.input(dtype=I64), inner.input(dtype=BOOL)
    total = inner.input()
    item = inner.op("gather", x, step, axis=0)
    inner.results = [cond, inner.op("add", total, item)]
    start = [c.scalar(8, I64), c.scalar(1, BOOL), c.scalar(0)]
    c.output(c.node("loop", start, {}, [inner.graph()]).output)
    graph = c.graph()
    assert _interval(step, graph) == ({0}, {7})
    assert not CHECK.run(graph)


def test_constants_of_floats_round_outwards() -> None:
    c = CaseBuilder("graph")
    x = c.input(3, dtype=F32)
    low = c.op("max", x, c.scalar(-0.5))
    c.output(c.op("cast", c.op("min", low, c.scalar(2.5)), dtype=I64))
    graph = c.graph()
    assert _interval(graph.outputs[0], graph) == ({-1}, {3})


def test_unknown_parts_make_the_whole_unknown() -> None:
    c = CaseBuilder("graph")
    i, flag = c.input(3, dtype=I64), c.input(3, dtype=BOOL)
    c.output(c.op("where", flag, i, c.scalar(1, I64)), c.op("add", i, c.scalar(1, I64)))
    graph = c.graph()
    assert all(_interval(value, graph) == (set(), set()) for value in graph.outputs)


def test_dims_that_must_be_equal_are_checked_once() -> None:
    graph = checks(
        "%a: f32[n] = add(%p, %q)",
        "%b: f32[n] = mul(%a, %q)",
        "%y: f32[n] = sub(%q, %b)",
        inputs="%p: f32[n], %q: f32[m]",
    )
    assert count(graph)["check_dims"] == 1
    check = graph.nodes[0]
    assert (str(check.attrs["left"]), str(check.attrs["right"])) == ("m", "n")
    places = "where m is dimension 0 of input 'q', n is dimension 0 of input 'p'"
    assert check.attrs["what"].endswith(f"needs m == n, {places}")


def test_dims_that_are_equal_by_their_form_are_not_checked() -> None:
    graph = checks(
        "%a: f32[3*n] = reshape(%x) {shape = (3*n,)}",
        "%b: f32[3*n] = add(%a, %a)",
        "%y: f32[3, n] = reshape(%b) {shape = (3, n)}",
    )
    assert not any(node.op.startswith("check") for node in graph.nodes)


def test_checks_do_not_change_what_is_computed() -> None:
    text = body(
        "%x: f32[n, 3], %i: i64[4], %z: f32[m, 3]",
        [
            "%j: i64[4] = mod(%i, %four)",
            "%k: i64[4] = sub(%j, %four)",
            "%a: f32[4, 3] = gather(%x, %k) {axis = 0}",
            "%b: f32[n, 3] = add(%x, %z)",
            "%y: f32[n + 4, 3] = concat(%a, %b) {axis = 0}",
        ],
        "const %four: i64[] = [4]",
    )
    graph = rewritten(text, CHECK)
    assert count(graph) == {
        "mod": 1, "sub": 1, "check_index": 1, "gather": 1, "check_dims": 1, "add": 1, "concat": 1,
    }  # fmt: skip
    assert np.all([node.name is not None for node in graph.nodes])
