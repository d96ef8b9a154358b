"""Constant folding, common subexpressions, dead code, control flow."""

from __future__ import annotations

import numpy as np
from rewriting import body, check, count, inputs_for, rewritten, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, TensorType, Value, constant
from tensmith.compiler.ir.ops.registry import make_node
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.passes.simplify.canonicalize import Canonicalize
from tensmith.passes.simplify.constant_folding import ConstantFolding
from tensmith.passes.simplify.cse import CommonSubexpressions
from tensmith.passes.simplify.dce import DeadCodeElimination

CLEAN = Fixpoint(SIMPLIFY)
FOLD = Fixpoint((ConstantFolding(), DeadCodeElimination()))
SHARE = CommonSubexpressions()


def test_folding() -> None:
    check(
        body(
            "%x: f32[n]",
            ["%a: f32[] = add(%c, %c)", "%y: f32[n] = mul(%x, %a)"],
            "const %c: f32[] = [2.0]",
        ),
        body("%x: f32[n]", "%y: f32[n] = mul(%x, %a)", "const %a: f32[] = [4.0]"),
        FOLD,
    )


def test_folding_is_bounded() -> None:
    wide = body(
        "%x: f32[500, 100]",
        [
            "%a: f32[500, 100] = broadcast_to(%c) {shape = (500, 100)}",
            "%y: f32[500, 100] = mul(%x, %a)",
        ],
        "const %c: f32[] = [2.0]",
    )
    check(wide, wide, FOLD)
    assert count(rewritten(wide, Fixpoint((ConstantFolding(max_spread_bytes=1 << 20),)))) == {
        "mul": 1
    }
    product = Value(TensorType(DType.F32, (8, 8)), "y")
    node = make_node("matmul", [constant(np.ones((8, 8), np.float32))] * 2)
    node.output.name = product.name
    graph = Graph([], [node.output], [node])
    assert not ConstantFolding(max_operations=100).run(graph)
    assert ConstantFolding().run(graph)


def test_errors_of_the_model_are_left_for_the_run() -> None:
    text = body(
        "%x: f32[1]",
        ["%a: f32[1] = gather(%t, %i) {axis = 0}", "%y: f32[1] = add(%x, %a)"],
        "const %t: f32[2] = [1.0, 2.0]\nconst %i: i64[1] = [7]",
    )
    graph = parse_graph(text)
    assert not ConstantFolding().run(graph)


def test_common_subexpressions() -> None:
    inputs = "%x: f32[n], %z: f32[n]"
    check(
        body(
            inputs,
            [
                "%a: f32[n] = add(%x, %z)",
                "%b: f32[n] = add(%z, %x)",
                "%c: f32[n] = sub(%x, %z)",
                "%d: f32[n] = sub(%z, %x)",
                "%e: f32[n] = mul(%a, %b)",
                "%f: f32[n] = mul(%c, %d)",
                "%y: f32[n] = add(%e, %f)",
            ],
        ),
        body(
            inputs,
            [
                "%a: f32[n] = add(%x, %z)",
                "%c: f32[n] = sub(%x, %z)",
                "%d: f32[n] = sub(%z, %x)",
                "%e: f32[n] = mul(%a, %a)",
                "%f: f32[n] = mul(%c, %d)",
                "%y: f32[n] = add(%e, %f)",
            ],
        ),
        SHARE,
    )


def test_equal_outputs_keep_their_names() -> None:
    text = body("%x: f32[n]", ["%a: f32[n] = exp(%x)", "%y: f32[n] = exp(%x)"])
    graph = rewritten(text.replace("return %y", "return %a, %y"), CLEAN)
    assert [value.name for value in graph.outputs] == ["a", "y"]


def test_what_a_branch_shares_keeps_the_name_of_the_output() -> None:
    lines = [
        "%y: f32[n] = exp(%x)",
        "%z: f32[n] = if(%c) [",
        '  graph "then"() {',
        "    %t: f32[n] = exp(%x)",
        "    return %t",
        "  }",
        '  graph "else"() {',
        "    return %x",
        "  }",
        "]",
    ]
    text = body("%x: f32[n], %c: bool[]", lines).replace("return %y", "return %y, %z")
    graph = rewritten(text, SHARE)
    assert [value.name for value in graph.outputs] == ["y", "z"]
    assert count(graph) == {"exp": 1, "if": 1}


def test_attributes_tell_apart() -> None:
    text = body(
        "%x: f32[3, 3]",
        [
            "%a: f32[3] = reduce_sum(%x) {axes = (0,)}",
            "%b: f32[3] = reduce_sum(%x) {axes = (1,)}",
            "%y: f32[3] = add(%a, %b)",
        ],
    )
    check(text, text, SHARE)


BRANCHES = [
    "%y: f32[n] = if(%c) [",
    '  graph "then"() {',
    "    %t: f32[n] = exp(%x)",
    "    return %t",
    "  }",
    '  graph "else"() {',
    "    %e: f32[n] = neg(%x)",
    "    %u: f32[n] = abs(%e)",
    "    %unused: f32[n] = sqrt(%e)",
    "    return %u",
    "  }",
    "]",
]


def test_dead_code_in_regions() -> None:
    graph = rewritten(body("%x: f32[n], %c: bool[]", BRANCHES), CLEAN)
    assert count(graph) == {"if": 1, "exp": 1, "neg": 1, "abs": 1}


def test_constant_condition_is_inlined() -> None:
    check(
        body("%x: f32[n]", BRANCHES, "const %c: bool[] = [false]"),
        body("%x: f32[n]", ["%e: f32[n] = neg(%x)", "%y: f32[n] = abs(%e)"]),
        CLEAN,
    )


def test_bound_dims_become_known_when_a_branch_is_taken() -> None:
    lines = [
        '%a: f32[k] = if(%c) {bound = ("k",)} [',
        '  graph "then"() {',
        "    return %x",
        "  }",
        '  graph "else"() {',
        "    %e: f32[n + 2] = concat(%x, %z) {axis = 0}",
        "    return %e",
        "  }",
        "]",
        "%y: f32[k] = exp(%a)",
    ]
    inputs = "%x: f32[n], %z: f32[2]"
    check(
        body(inputs, lines, "const %c: bool[] = [false]"),
        body(
            inputs,
            ["%e: f32[n + 2] = concat(%x, %z) {axis = 0}", "%y: f32[n + 2] = exp(%e)"],
        ),
        CLEAN,
    )


def test_dims_read_from_constants() -> None:
    lines = [
        "%d: i64[1] = dims() {values = (n*2,)}",
        'read_dims(%d) {symbols = ("k",)}',
        "%y: f32[k] = broadcast_to(%x) {shape = (k,)}",
    ]
    graph = parse_graph(body("%x: f32[1], %z: f32[n]", lines))
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, [CLEAN])
    same_results(want, run_graph(graph, inputs))
    assert count(graph) == {"broadcast_to": 1}


def test_reading_dims_stays_while_they_are_used() -> None:
    lines = [
        'read_dims(%d) {symbols = ("k",)}',
        "%y: f32[k] = broadcast_to(%x) {shape = (k,)}",
    ]
    text = body("%x: f32[1], %d: i64[1]", lines)
    graph = parse_graph(text)
    assert not run_passes(graph, [DeadCodeElimination()])
    unused = parse_graph(body("%x: f32[1], %d: i64[1]", [lines[0], "%y: f32[1] = exp(%x)"]))
    run_passes(unused, [DeadCodeElimination()])
    assert count(unused) == {"exp": 1}


def _scan(trip: str, results: str) -> str:
    return body(
        f"%s: f32[3], %x: f32[{trip}, 3]",
        [
            f"%last: f32[3], %all: f32[{trip}, 3] = scan(%s, %x) {{num_state = 1, "
            f"reverse_in = (false,), reverse_out = (false,), trip = {trip}}} [",
            '  graph "step"(%h: f32[3], %i: f32[3]) {',
            "    %a: f32[3] = add(%h, %i)",
            "    %b: f32[3] = tanh(%a)",
            "    return %b, %a",
            "  }",
            "]",
            f"%y: f32[3] = {results}",
        ],
    )


def test_scan_of_one_step_is_its_body() -> None:
    total = "reduce_sum(%all) {axes = (0,)}"
    graph = rewritten(_scan("1", total), CLEAN)
    assert count(graph) == {"reshape": 1, "add": 1}


def test_unused_stacked_results_go() -> None:
    graph = rewritten(_scan("t", "exp(%last)"), CLEAN)
    (scan,) = (node for node in graph.nodes if node.op == "scan")
    assert len(scan.outputs) == 1
    assert scan.attrs["reverse_out"] == ()


def test_simplification_in_a_region() -> None:
    text = _scan("t", "exp(%last)").replace("tanh(%a)", "max(%a, %a)")
    graph = rewritten(text, Fixpoint((Canonicalize(), DeadCodeElimination())))
    assert count(graph) == {"scan": 1, "add": 1, "exp": 1}


def _twins(low: float = 0.0, second: float = 0.0) -> Graph:
    """Two loops over the same, each with large weights of its own, added up."""
    c = CaseBuilder("twins")
    x, results = c.input(3, 160), []
    for shift in (low, second):
        inner = c.region("body")
        row = inner.input(160)
        w = constant(np.arange(160 * 160, dtype=np.float32).reshape(160, 160) / 160**2 + shift)
        seen = inner.op("reshape", row, shape=(1, 160))
        inner.output(inner.op("add", inner.op("matmul", seen, w), c.scalar(1)))
        attrs = {"num_state": 0, "trip": 3, "reverse_in": (False,), "reverse_out": (False,)}
        results.append(c.node("scan", [x], attrs, [inner.graph()]).output)
    c.output(c.op("mul", *results))
    return c.graph()


def test_equal_regions_are_one() -> None:
    graph = _twins()
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    assert run_passes(graph, (Fixpoint((SHARE, DeadCodeElimination())),))
    assert count(graph)["scan"] == 1
    same_results(want, run_graph(graph, inputs))


def test_regions_with_other_weights_stay() -> None:
    graph = _twins(second=1.0)
    run_passes(graph, (Fixpoint((SHARE, DeadCodeElimination())),))
    assert count(graph)["scan"] == 2
