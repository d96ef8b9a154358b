"""Two-dimensional matrix products and reshapes that move out of the way."""

from __future__ import annotations

import pytest
from rewriting import body, check, count, rewritten

from tensmith.compiler.pass_manager import Fixpoint
from tensmith.passes.layout.matmul_form import MatmulForm
from tensmith.passes.layout.sink_reshapes import SinkReshapes
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.passes.simplify.reciprocal import Reciprocal

FORM = Fixpoint((MatmulForm(), SinkReshapes(), *SIMPLIFY))


def test_rows_through_a_linear_block() -> None:
    inputs = "%x: f32[n, s, 4], %w: f32[4, 4], %b: f32[4]"
    check(
        body(
            inputs,
            [
                "%a: f32[n, s, 4] = matmul(%x, %w)",
                "%c: f32[n, s, 4] = add(%a, %b)",
                "%d: f32[n, s, 4] = tanh(%c)",
                "%e: f32[n, s, 4] = mul(%c, %d)",
                "%f: f32[n, s, 4] = matmul(%e, %w)",
                "%g: f32[n, s, 4] = add(%f, %x)",
                "%y: f32[n, s, 4] = layer_norm(%g, %b) {axis = 2}",
            ],
        ),
        body(
            inputs,
            [
                "%r: f32[n*s, 4] = reshape(%x) {shape = (n*s, 4)}",
                "%a: f32[n*s, 4] = matmul(%r, %w)",
                "%c: f32[n*s, 4] = add(%a, %b)",
                "%d: f32[n*s, 4] = tanh(%c)",
                "%e: f32[n*s, 4] = mul(%c, %d)",
                "%f: f32[n*s, 4] = matmul(%e, %w)",
                "%g: f32[n*s, 4] = add(%f, %r)",
                "%h: f32[n*s, 4] = layer_norm(%g, %b) {axis = 1}",
                "%y: f32[n, s, 4] = reshape(%h) {shape = (n, s, 4)}",
            ],
        ),
        FORM,
    )


def test_batches_of_matrices_stay() -> None:
    text = body("%x: f32[n, s, 4], %w: f32[n, 4, 3]", "%y: f32[n, s, 3] = matmul(%x, %w)")
    check(text, text, FORM)


def test_single_matrix_in_a_batch() -> None:
    graph = rewritten(
        body("%x: f32[n, s, 4], %w: f32[1, 4, 3]", "%y: f32[n, s, 3] = matmul(%x, %w)"), FORM
    )
    product = next(node for node in graph.nodes if node.op == "matmul")
    assert [value.type.rank for value in product.inputs] == [2, 2]


def test_reshapes_between_convolutions_meet() -> None:
    window = 'dilations = (1, 1), layout = "NHWC", pads = (0, 1, 0, 1), strides = (1, 1)'
    graph = rewritten(
        body(
            "%x: f32[n, 1, 9, 4], %w: f32[1, 3, 4, 4], %b: f32[4]",
            [
                f"%a: f32[n, 1, 9, 4] = conv(%x, %w) {{{window}}}",
                "%r: f32[n, 9, 4] = reshape(%a) {shape = (n, 9, 4)}",
                "%c: f32[n, 9, 4] = add(%r, %b)",
                "%d: f32[n, 9, 4] = softmax(%c) {axis = 2}",
                "%m: f32[n, 9, 1] = reduce_max(%d) {axes = (2,), keepdims = true}",
                "%f: f32[n, 9, 4] = sub(%d, %m)",
                "%s: f32[n, 1, 9, 4] = reshape(%f) {shape = (n, 1, 9, 4)}",
                f"%y: f32[n, 1, 9, 4] = conv(%s, %w) {{{window}}}",
            ],
        ),
        FORM,
    )
    assert count(graph)["reshape"] <= 1  # of the row maxima


def test_operands_of_different_shapes_stay() -> None:
    text = body(
        "%x: f32[2, 3, 4], %z: f32[6, 4]",
        [
            "%a: f32[24] = reshape(%x) {shape = (24,)}",
            "%b: f32[24] = reshape(%z) {shape = (24,)}",
            "%y: f32[24] = add(%a, %b)",
        ],
    )
    check(text, text, Fixpoint((SinkReshapes(), *SIMPLIFY)))


def test_an_element_of_a_matrix_is_no_panel() -> None:
    """A matrix of one element has two axes more than a number."""
    before = body(
        "%x: f32[1, 1], %y: f32[]",
        ["%number: f32[] = reshape(%x) {shape = ()}", "%sum: f32[] = add(%number, %y)"],
    )
    assert rewritten(before, SinkReshapes()).outputs[0].shape == ()


def test_division_by_a_constant() -> None:
    constants = "const %c: f32[] = [3.0]\nconst %p: f32[] = [4.0]\nconst %q: f32[] = [0.25]"
    once = Fixpoint((Reciprocal(), *SIMPLIFY))
    assert count(rewritten(body("%x: f32[n]", "%y: f32[n] = div(%x, %c)", constants), once)) == {
        "mul": 1
    }
    check(
        body("%x: f32[n]", ["%a: f32[n] = div(%x, %p)", "%y: f32[n] = round(%a)"], constants),
        body("%x: f32[n]", ["%a: f32[n] = mul(%x, %q)", "%y: f32[n] = round(%a)"], constants),
        once,
    )
    rounded = body("%x: f32[n]", ["%a: f32[n] = div(%x, %c)", "%y: f32[n] = round(%a)"], constants)
    check(rounded, rounded, once)


def test_whole_rows_before_rows_of_another_length_are_elements() -> None:
    """The shift of relative positions: [t, p] is read as [p, t] without its first row."""
    inputs = "%x: f32[n, t, p]"
    check(
        body(
            inputs,
            [
                "%a: f32[n, p, t] = reshape(%x) {shape = (n, p, t)}",
                "%b: f32[n, p - 1, t] = slice(%a) "
                "{starts = (0, 1, 0), steps = (1, 1, 1), stops = (n, p, t)}",
                "%y: f32[n, t, p - 1] = reshape(%b) {shape = (n, t, p - 1)}",
            ],
        ),
        body(
            inputs,
            [
                "%a: f32[n, p*t] = reshape(%x) {shape = (n, p*t)}",
                "%b: f32[n, p*t - t] = slice(%a) "
                "{starts = (0, t), steps = (1, 1), stops = (n, p*t)}",
                "%y: f32[n, t, p - 1] = reshape(%b) {shape = (n, t, p - 1)}",
            ],
        ),
        FORM,
    )


@pytest.mark.parametrize(
    ("starts", "stops", "steps", "kept", "made"),
    [
        ("0, 0, 1", "n, 6, 5", "1, 1, 1", "n, 6, 4", "n, 4, 6"),  # a part of every row
        ("0, 0, 0", "n, 6, 4", "1, 2, 1", "n, 3, 4", "n, 4, 3"),  # every second row
        ("0, 1, 0", "n, 6, 4", "1, 1, 1", "n, 5, 4", "n, 5, 2, 2"),  # rows stay rows
    ],
)
def test_rows_that_are_cut_or_stay_are_left(
    starts: str, stops: str, steps: str, kept: str, made: str
) -> None:
    width = stops.split(", ")[2]
    text = body(
        f"%x: f32[n, 6, {width}]",
        [
            f"%b: f32[{kept}] = slice(%x) "
            f"{{starts = ({starts}), steps = ({steps}), stops = ({stops})}}",
            f"%y: f32[{made}] = reshape(%b) {{shape = ({made})}}",
        ],
    )
    check(text, text, FORM)
