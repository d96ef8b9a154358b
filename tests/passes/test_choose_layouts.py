"""Channels-last layouts and where transposes end up."""

from __future__ import annotations

from rewriting import body, check, count, rewritten

from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.layout.axis_permutation import match_axes, regroup
from tensmith.passes.layout.choose_layouts import ChooseLayouts
from tensmith.passes.pipeline import SIMPLIFY

LAYOUT = (ChooseLayouts(), Fixpoint(SIMPLIFY))
WINDOW = "dilations = (1, 1), pads = (1, 1, 1, 1), strides = (1, 1)"
POINT = "dilations = (1, 1), pads = (0, 0, 0, 0), strides = (1, 1)"
NHWC = 'dilations = (1, 1), layout = "NHWC", pads = (1, 1, 1, 1), strides = (1, 1)'
W = "%w: f32[4, 4, 3, 3]"


def test_regroup() -> None:
    assert regroup((2, 3, 4, 5), (2, 12, 5), (0, 3, 1, 2)) == (0, 2, 1)
    assert regroup((2, 3, 4, 5), (2, 12, 5), (0, 2, 1, 3)) is None
    assert regroup((2, 12, 5), (2, 3, 4, 5), (2, 0, 1)) == (3, 0, 1, 2)
    assert regroup((2, 3, 1, 1), (2, 3), (0, 2, 3, 1)) == (0, 1)
    assert match_axes((4, 6), (6, 4)) == [((0, 1), (0, 1))]
    assert match_axes((2, 1, 3), (2, 3)) == [((0,), (0,)), ((2,), (1,))]


def test_chain_has_one_transpose_at_each_end() -> None:
    graph = rewritten(
        body(
            f"%x: f32[n, 4, 6, 6], {W}, %c: f32[4, 1, 1]",
            [
                f"%a: f32[n, 4, 6, 6] = conv(%x, %w) {{{WINDOW}}}",
                "%b: f32[n, 4, 6, 6] = mul(%a, %c)",
                "%d: f32[n, 4, 6, 6] = tanh(%b)",
                f"%y: f32[n, 4, 6, 6] = conv(%d, %w) {{{WINDOW}}}",
            ],
        ),
        *LAYOUT,
    )
    ops = [node.op for node in graph.nodes]
    assert ops.count("transpose") == 3  # input, filter (not constant here), output
    assert all(node.attrs["layout"] == "NHWC" for node in graph.nodes if node.op == "conv")


def test_constants_are_turned_at_compile_time() -> None:
    attrs = 'dilations = (1, 1), layout = "NHWC", pads = (0, 0, 0, 0), strides = (1, 1)'
    check(
        body(
            "%x: f32[1, 2, 5, 5]",
            [
                f"%a: f32[1, 2, 5, 5] = conv(%x, %w) {{{POINT}}}",
                "%b: f32[1, 2, 5, 5] = mul(%a, %c)",
                "%y: f32[1, 2] = reduce_max(%b) {axes = (2, 3)}",
            ],
            "const %w: f32[2, 2, 1, 1] = [1.0, 2.0, 3.0, 4.0]\nconst %c: f32[2, 1, 1] = [3.0, 4.0]",
        ),
        body(
            "%x: f32[1, 2, 5, 5]",
            [
                "%t: f32[1, 5, 5, 2] = transpose(%x) {perm = (0, 2, 3, 1)}",
                f"%a: f32[1, 5, 5, 2] = conv(%t, %w) {{{attrs}}}",
                "%b: f32[1, 5, 5, 2] = mul(%a, %c)",
                "%y: f32[1, 2] = reduce_max(%b) {axes = (1, 2)}",
            ],
            "const %w: f32[1, 1, 2, 2] = [1.0, 3.0, 2.0, 4.0]\nconst %c: f32[2] = [3.0, 4.0]",
        ),
        *LAYOUT,
    )


def test_squeeze_and_excite_stays_channels_last() -> None:
    graph = rewritten(
        body(
            f"%x: f32[n, 4, 6, 6], {W}, %v: f32[4, 4, 1, 1]",
            [
                f"%a: f32[n, 4, 6, 6] = conv(%x, %w) {{{WINDOW}}}",
                "%m: f32[n, 4, 1, 1] = reduce_mean(%a) {axes = (2, 3), keepdims = true}",
                f"%s: f32[n, 4, 1, 1] = conv(%m, %v) {{{POINT}}}",
                "%g: f32[n, 4, 1, 1] = sigmoid(%s)",
                "%b: f32[n, 4, 6, 6] = mul(%a, %g)",
                "%y: f32[n, 4] = reduce_mean(%b) {axes = (2, 3)}",
            ],
        ),
        *LAYOUT,
    )
    assert count(graph)["transpose"] == 3  # x and the filters, which are no constants here
    assert count(graph)["reshape"] == 0
    gate = next(node for node in graph.nodes if node.op == "sigmoid")
    assert gate.output.shape[1:] == (1, 1, 4)


def test_concat_slice_pad_and_pool_carry_the_layout() -> None:
    graph = rewritten(
        body(
            f"%x: f32[1, 4, 6, 6], {W}",
            [
                f"%a: f32[1, 4, 6, 6] = conv(%x, %w) {{{WINDOW}}}",
                f"%p: f32[1, 4, 6, 6] = max_pool(%a) {{kernel = (3, 3), {WINDOW}}}",
                "%c: f32[1, 8, 6, 6] = concat(%a, %p) {axis = 1}",
                "%s: f32[1, 4, 6, 6] = slice(%c) {starts = (0, 2, 0, 0), "
                "steps = (1, 1, 1, 1), stops = (1, 6, 6, 6)}",
                "%d: f32[1, 4, 8, 6] = pad(%s) {pads = (0, 0, 1, 0, 0, 0, 1, 0)}",
                "%e: f32[1, 4, 8, 6] = softmax(%d) {axis = 1}",
                "%y: i64[1, 8, 6] = argmax(%e) {axis = 1}",
            ],
        ),
        *LAYOUT,
    )
    assert count(graph)["transpose"] == 2
    assert next(node for node in graph.nodes if node.op == "softmax").attrs["axis"] == 3


def test_detection_head_needs_no_transpose() -> None:
    graph = rewritten(
        body(
            f"%x: f32[n, 4, h, w], {W}".replace("%w: ", "%f: "),
            [
                f"%a: f32[n, 4, h, w] = conv(%x, %f) {{{WINDOW}}}",
                "%t: f32[n, h, w, 4] = transpose(%a) {perm = (0, 2, 3, 1)}",
                "%y: f32[n, h*w*2, 2] = reshape(%t) {shape = (n, h*w*2, 2)}",
            ],
        ),
        *LAYOUT,
    )
    assert [node.op for node in graph.nodes if node.inputs[0] in graph.inputs[:1]] == ["transpose"]
    assert count(graph)["transpose"] == 2


def test_transposes_cancel_through_pointwise() -> None:
    x = "%x: f32[2, n, 4], %z: f32[2, n, 4]"
    check(
        body(
            x,
            [
                "%a: f32[2, 4, n] = transpose(%x) {perm = (0, 2, 1)}",
                "%b: f32[2, 4, n] = transpose(%z) {perm = (0, 2, 1)}",
                "%c: f32[2, 4, n] = add(%a, %b)",
                "%d: f32[2, 4, n] = softmax(%c) {axis = 1}",
                "%y: f32[2, n, 4] = transpose(%d) {perm = (0, 2, 1)}",
            ],
        ),
        body(
            x,
            [
                "%c: f32[2, n, 4] = add(%x, %z)",
                "%y: f32[2, n, 4] = softmax(%c) {axis = 2}",
            ],
        ),
        *LAYOUT,
    )


def test_transpose_moves_to_the_smaller_tensor() -> None:
    x = "%x: f32[2, 50, 4]"
    check(
        body(
            x,
            [
                "%a: f32[2, 4, 50] = transpose(%x) {perm = (0, 2, 1)}",
                "%b: f32[2, 4, 50] = exp(%a)",
                "%y: f32[2, 4, 2] = slice(%b) {starts = (0, 0, 3), steps = (1, 1, 1), "
                "stops = (2, 4, 5)}",
            ],
        ),
        body(
            x,
            [
                "%b: f32[2, 50, 4] = exp(%x)",
                "%c: f32[2, 2, 4] = slice(%b) {starts = (0, 3, 0), steps = (1, 1, 1), "
                "stops = (2, 5, 4)}",
                "%y: f32[2, 4, 2] = transpose(%c) {perm = (0, 2, 1)}",
            ],
        ),
        *LAYOUT,
    )


def test_a_large_cache_is_not_turned_for_a_small_addition() -> None:
    text = body(
        "%past: f32[1, 8, 200, 4], %x: f32[1, 1, 8, 4]",
        [
            "%new: f32[1, 8, 1, 4] = reshape(%x) {shape = (1, 8, 1, 4)}",
            "%old: f32[1, 8, 4, 200] = transpose(%past) {perm = (0, 1, 3, 2)}",
            "%next: f32[1, 8, 4, 1] = transpose(%new) {perm = (0, 1, 3, 2)}",
            "%y: f32[1, 8, 4, 201] = concat(%old, %next) {axis = 3}",
        ],
    )
    graph = rewritten(text, *LAYOUT)
    assert count(graph)["transpose"] == 1


def test_equal_results_keep_their_names() -> None:
    """Transposes of one tensor, and those that cancel, are results of the model each."""
    two = "{perm = (1, 2, 0, 3)}"
    text = body(
        "%x: f32[2, 4, 5, 3], %c: f32[4, 1]",
        [
            f"%a: f32[4, 5, 2, 3] = transpose(%x) {two}",
            f"%b: f32[4, 5, 2, 3] = transpose(%x) {two}",
            "%d: f32[2, 4, 5, 3] = transpose(%b) {perm = (2, 0, 1, 3)}",
            "%e: f32[3, 1] = reshape(%w) {shape = (3, 1)}",
            "%y: f32[2, 4, 5, 1] = matmul(%x, %e)",
        ],
        "const %w: f32[3] = [1.0, 2.0, 3.0]",
    ).replace("return %y", "return %a, %y, %b, %d")
    graph = rewritten(text, *LAYOUT)
    assert [value.name for value in graph.outputs] == ["a", "y", "b", "d"]


def test_regions_see_what_they_captured() -> None:
    graph = parse_graph(
        body(
            f"%x: f32[1, 4, 6, 6], {W}, %c: bool[]",
            [
                f"%a: f32[1, 4, 6, 6] = conv(%x, %w) {{{WINDOW}}}",
                "%y: f32[1, 4, 6, 6] = if(%c) [",
                '  graph "then"() {',
                "    %b: f32[1, 4, 6, 6] = exp(%a)",
                "    return %b",
                "  }",
                '  graph "else"() {',
                f"    %d: f32[1, 4, 6, 6] = conv(%a, %w) {{{WINDOW}}}",
                "    return %d",
                "  }",
                "]",
            ],
        )
    )
    run_passes(graph, LAYOUT)
    assert all(node.attrs["layout"] == "NHWC" for node in graph.walk() if node.op == "conv")
