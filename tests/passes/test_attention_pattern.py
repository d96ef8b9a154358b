"""Attention written out in the forms that exporters give it."""

from __future__ import annotations

import pytest
from rewriting import body, count, inputs_for, rewritten, same_results
from suites.case import CaseBuilder, S

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Value
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.patterns.attention_pattern import AttentionPattern
from tensmith.passes.patterns.empty_rows import may_be_infinite
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.passes.simplify.reciprocal import Reciprocal

FIND = (Fixpoint((Reciprocal(), *SIMPLIFY)), Fixpoint((AttentionPattern(), *SIMPLIFY)))
QKV = "%q: f32[2, 3, s, 4], %k: f32[2, 3, t, 4], %v: f32[2, 3, t, 5]"
CONSTANTS = (
    "const %half: f32[] = [0.5]\nconst %two: f32[] = [2.0]\nconst %root: f32[] = [0.7]\n"
    "const %low: f32[] = [-3.4e38]\nconst %mild: f32[] = [-10000.0]"
)
SWAPPED = "%kt: f32[2, 3, 4, t] = transpose(%k) {perm = (0, 1, 3, 2)}"
PRODUCT = "%s: f32[2, 3, s, t] = matmul(%q, %kt)"
SOFTMAX = "%p: f32[2, 3, s, t] = softmax(%m) {axis = 3}"
OUTPUT = "%y: f32[2, 3, s, 5] = matmul(%p, %v)"


def _find(inputs: str, lines: list[str]) -> Graph:
    return rewritten(body(inputs, lines, CONSTANTS), *FIND)


def _scale(graph: Graph) -> float:
    (node,) = (node for node in graph.nodes if node.op == "attention")
    return float(node.attrs["scale"])


@pytest.mark.parametrize(("line", "scale"), [("mul(%s, %half)", 0.5), ("div(%s, %two)", 0.5)])
def test_scaled_scores(line: str, scale: float) -> None:
    lines = [SWAPPED, PRODUCT, f"%m: f32[2, 3, s, t] = {line}", SOFTMAX, OUTPUT]
    graph = _find(QKV, lines)
    assert count(graph) == {"attention": 1}
    assert _scale(graph) == scale


def test_scale_on_both_operands() -> None:
    lines = [
        "%a: f32[2, 3, s, 4] = mul(%q, %root)",
        SWAPPED,
        "%b: f32[2, 3, 4, t] = mul(%kt, %root)",
        "%m: f32[2, 3, s, t] = matmul(%a, %b)",
        SOFTMAX,
        OUTPUT,
    ]
    graph = _find(QKV, lines)
    assert count(graph) == {"attention": 1}
    assert _scale(graph) == pytest.approx(0.49)


def test_added_mask() -> None:
    lines = [
        SWAPPED,
        PRODUCT,
        "%r: f32[2, 3, s, t] = mul(%s, %half)",
        "%m: f32[2, 3, s, t] = add(%mask, %r)",
        SOFTMAX,
        OUTPUT,
    ]
    graph = _find(f"{QKV}, %mask: f32[2, 1, s, t]", lines)
    assert count(graph) == {"attention": 1}
    assert len(graph.nodes[0].inputs) == 4


def test_selected_mask() -> None:
    lines = [
        SWAPPED,
        PRODUCT,
        "%m: f32[2, 3, s, t] = where(%keep, %s, %low)",
        SOFTMAX,
        OUTPUT,
    ]
    graph = _find(f"{QKV}, %keep: bool[s, t]", lines)
    assert count(graph) == {"where": 1, "attention": 1}
    assert graph.nodes[0].output.type.rank == 2


def test_mild_selection_is_left() -> None:
    lines = [SWAPPED, PRODUCT, "%m: f32[2, 3, s, t] = where(%keep, %s, %mild)", SOFTMAX, OUTPUT]
    assert count(_find(f"{QKV}, %keep: bool[s, t]", lines))["attention"] == 0


def test_used_scores_are_left() -> None:
    lines = [
        SWAPPED,
        "%m: f32[2, 3, s, t] = matmul(%q, %kt)",
        SOFTMAX,
        "%o: f32[2, 3, s, 5] = matmul(%p, %v)",
        "%t: f32[2, 3, s, 1] = reduce_max(%p) {axes = (3,), keepdims = true}",
        "%y: f32[2, 3, s, 5] = mul(%o, %t)",
    ]
    assert count(_find(QKV, lines))["attention"] == 0


def test_key_heads_split_in_one_transpose() -> None:
    lines = [
        "%qh: f32[2, 3, s, 4] = transpose(%q) {perm = (0, 2, 1, 3)}",
        "%kt: f32[2, 3, 4, t] = transpose(%k) {perm = (0, 2, 3, 1)}",
        "%m: f32[2, 3, s, t] = matmul(%qh, %kt)",
        SOFTMAX,
        OUTPUT,
    ]
    graph = _find("%q: f32[2, s, 3, 4], %k: f32[2, t, 3, 4], %v: f32[2, 3, t, 5]", lines)
    assert count(graph) == {"transpose": 2, "attention": 1}
    assert {node.attrs["perm"] for node in graph.nodes if node.op == "transpose"} == {(0, 2, 1, 3)}


def _grouped(rows: str) -> list[str]:
    lines = []
    for name in "kv":
        lines += [
            f"%{name}1: f32[2, 3, 1, t, 4] = reshape(%{name}) {{shape = (2, 3, 1, t, 4)}}",
            f"%{name}2: f32[2, 3, 2, t, 4] = broadcast_to(%{name}1) {{shape = (2, 3, 2, t, 4)}}",
            f"%{name}3: f32[2, 6, t, 4] = reshape(%{name}2) {{shape = (2, 6, t, 4)}}",
        ]
    return [
        *lines,
        "%kt: f32[2, 6, 4, t] = transpose(%k3) {perm = (0, 1, 3, 2)}",
        f"%s: f32[2, 6, {rows}, t] = matmul(%q, %kt)",
        f"%m: f32[2, 6, {rows}, t] = add(%s, %mask)",
        f"%p: f32[2, 6, {rows}, t] = softmax(%m) {{axis = 3}}",
        f"%y: f32[2, 6, {rows}, 4] = matmul(%p, %v3)",
    ]


@pytest.mark.parametrize(("rows", "rank"), [("1", 4), ("s", 5)])
def test_shared_heads_are_not_repeated(rows: str, rank: int) -> None:
    inputs = (
        f"%q: f32[2, 6, {rows}, 4], %k: f32[2, 3, t, 4], %v: f32[2, 3, t, 4], "
        f"%mask: f32[2, 1, {rows}, t]"
    )
    graph = _find(inputs, _grouped(rows))
    assert count(graph)["broadcast_to"] == 0
    (node,) = (node for node in graph.nodes if node.op == "attention")
    assert node.output.type.rank == rank


GUARD = ["%n: bool[2, 3, s, t] = isnan(%p)", "%g: f32[2, 3, s, t] = where(%n, %zero, %p)"]


def _guarded(low: str) -> str:
    """Attention as scaled_dot_product_attention is exported: rows without keys weigh nothing."""
    lines = [
        f"%mask: f32[2, 1, s, t] = where(%keep, %zero, {low})",
        SWAPPED,
        PRODUCT,
        "%m: f32[2, 3, s, t] = add(%s, %mask)",
        SOFTMAX,
        *GUARD,
        "%y: f32[2, 3, s, 5] = matmul(%g, %v)",
    ]
    more = "const %zero: f32[] = [0.0]\nconst %gone: f32[] = [-inf]"
    return body(f"{QKV}, %keep: bool[2, 1, s, t]", lines, f"{CONSTANTS}\n{more}")


@pytest.mark.parametrize(
    ("low", "left"),
    [
        ("%low", {"attention": 1, "where": 1}),
        ("%gone", {"attention": 1, "where": 2, "reduce_max": 1, "ge": 1}),
    ],
)
def test_guarded_weights(low: str, left: dict[str, int]) -> None:
    """The guard stays, for whole rows, where a row of the mask may be -inf throughout."""
    graph = parse_graph(_guarded(low))
    inputs = inputs_for(graph)
    inputs["keep"][0, 0, 2] = False
    want = run_graph(graph, inputs)
    run_passes(graph, FIND)
    assert count(graph) == left
    same_results(want, run_graph(graph, inputs))


def test_masks_that_may_be_infinite() -> None:
    """Sums of what hides in 16 bits, and integers that those do not hold, are -inf."""
    made = CaseBuilder("masks")
    half, keep = DType.F16, [made.input(S, S, dtype=DType.BOOL) for _ in range(2)]

    def mask(low: float, dtype: DType = half, number: int = 0) -> Value:
        return made.op("where", keep[number], made.scalar(0, dtype), made.scalar(low, dtype))

    def cast(value: Value, dtype: DType) -> Value:
        return made.op("cast", value, dtype=dtype)

    def twice(low: float, dtype: DType) -> Value:
        return made.op("add", mask(low, dtype), mask(low, dtype, 1))

    assert not may_be_infinite(mask(-65504))
    assert may_be_infinite(twice(-65504, half))
    assert not may_be_infinite(twice(-1000, half))
    assert not may_be_infinite(twice(-65504, DType.F32))
    assert may_be_infinite(cast(mask(-1e9, DType.I32), half))
    assert not may_be_infinite(cast(mask(-1e9, DType.I32), DType.F32))
    assert not may_be_infinite(cast(keep[0], half))


def test_guard_of_unmasked_weights() -> None:
    lines = [SWAPPED, SOFTMAX.replace("%m", "%s"), *GUARD, OUTPUT.replace("%p", "%g")]
    lines.insert(1, PRODUCT)
    more = f"{CONSTANTS}\nconst %zero: f32[] = [0.0]"
    assert count(rewritten(body(QKV, lines, more), *FIND)) == {"attention": 1}


def test_guard_by_rows() -> None:
    """As the function of ONNX's Attention has it."""
    line = "%p2: f32[2, 3, s, t] = where(%row, %zero, %p)"
    lines = [SWAPPED, PRODUCT, SOFTMAX.replace("%m", "%s"), line, OUTPUT.replace("%p", "%p2")]
    more = f"{CONSTANTS}\nconst %zero: f32[] = [0.0]"
    graph = rewritten(body(f"{QKV}, %row: bool[s, 1]", lines, more), *FIND)
    assert count(graph) == {"attention": 1, "where": 1}
