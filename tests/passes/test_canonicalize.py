"""Canonical form, rule by rule."""

from __future__ import annotations

import pytest
from rewriting import body, check, count, rewritten

from tensmith.compiler.pass_manager import Fixpoint
from tensmith.passes.simplify.canonicalize import Canonicalize
from tensmith.passes.simplify.dce import DeadCodeElimination

SIMPLIFY = Fixpoint((Canonicalize(), DeadCodeElimination()))
X = "%x: f32[n, 3]"
NUMBERS = "\n".join(
    f"const %{name}: f32[] = [{number}]"
    for name, number in (
        ("zero", "0.0"),
        ("one", "1.0"),
        ("half", "0.5"),
        ("two", "2.0"),
        ("three", "3.0"),
        ("minus_two", "-2.0"),
        ("five", "5.0"),
        ("six", "6.0"),
        ("low", "-inf"),
    )
)


def _unary(op: str, source: str) -> str:
    return f"%y: f32[n, 3] = {op}({source})"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("add(%x, %zero)", "reshape(%x) {shape = (n, 3)}"),
        ("add(%zero, %x)", "reshape(%x) {shape = (n, 3)}"),
        ("sub(%x, %zero)", "reshape(%x) {shape = (n, 3)}"),
        ("mul(%one, %x)", "reshape(%x) {shape = (n, 3)}"),
        ("div(%x, %one)", "reshape(%x) {shape = (n, 3)}"),
        ("pow(%x, %one)", "reshape(%x) {shape = (n, 3)}"),
        ("pow(%x, %two)", "mul(%x, %x)"),
        ("max(%x, %low)", "reshape(%x) {shape = (n, 3)}"),
        ("max(%x, %x)", "reshape(%x) {shape = (n, 3)}"),
        ("mul(%two, %x)", "mul(%x, %two)"),
        ("sub(%x, %two)", "add(%x, %minus_two)"),
        ("transpose(%x) {perm = (0, 1)}", "reshape(%x) {shape = (n, 3)}"),
        ("broadcast_to(%x) {shape = (n, 3)}", "reshape(%x) {shape = (n, 3)}"),
        ("cast(%x) {dtype = !f32}", "reshape(%x) {shape = (n, 3)}"),
        ("concat(%x) {axis = 1}", "reshape(%x) {shape = (n, 3)}"),
        ("pad(%x) {pads = (0, 0, 0, 0)}", "reshape(%x) {shape = (n, 3)}"),
        (
            "slice(%x) {starts = (0, 0), steps = (1, 1), stops = (n, 3)}",
            "reshape(%x) {shape = (n, 3)}",
        ),
    ],
)
def test_one_node(line: str, expected: str) -> None:
    """An output keeps its name, so where the input is the result a reshape stands between."""
    y = "%y: f32[n, 3] = "
    check(body(X, y + line, NUMBERS), body(X, y + expected, NUMBERS), SIMPLIFY)


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        ("add(%x, %two)", "add(%a, %three)", "add(%x, %five)"),
        ("mul(%x, %two)", "mul(%a, %three)", "mul(%x, %six)"),
        ("max(%x, %two)", "max(%a, %three)", "max(%x, %three)"),
        ("mul(%x, %two)", "neg(%a)", "mul(%x, %minus_two)"),
        ("neg(%x)", "sub(%two, %a)", "add(%x, %two)"),
        ("neg(%x)", "add(%a, %x)", "sub(%x, %x)"),
        ("floor(%x)", "floor(%a)", "floor(%x)"),
        ("abs(%x)", "abs(%a)", "abs(%x)"),
        ("mul(%x, %x)", "sqrt(%a)", "abs(%x)"),
        ("neg(%x)", "neg(%a)", "reshape(%x) {shape = (n, 3)}"),
    ],
)
def test_two_nodes(inner: str, outer: str, expected: str) -> None:
    before = [f"%a: f32[n, 3] = {inner}", f"%y: f32[n, 3] = {outer}"]
    check(body(X, before, NUMBERS), body(X, f"%y: f32[n, 3] = {expected}", NUMBERS), SIMPLIFY)


def test_overflow_is_not_combined() -> None:
    lines = ["%a: f32[n, 3] = mul(%x, %tiny)", "%y: f32[n, 3] = mul(%a, %tiny)"]
    text = body(X, lines, "const %tiny: f32[] = [1e-30]")
    check(text, text, SIMPLIFY)


def test_used_intermediate_is_not_recomputed() -> None:
    lines = [
        "%a: f32[n, 3] = add(%x, %two)",
        "%b: f32[n, 3] = add(%a, %three)",
        "%y: f32[n, 3] = mul(%a, %b)",
    ]
    text = body(X, lines, NUMBERS)
    check(text, text, SIMPLIFY)


def test_pow_minus_half_is_a_reciprocal_root() -> None:
    graph = rewritten(
        body(
            "%x: f32[4]",
            ["%a: f32[4] = exp(%x)", "%y: f32[4] = pow(%a, %e)"],
            "const %e: f32[] = [-0.5]",
        ),
        SIMPLIFY,
    )
    assert count(graph) == {"exp": 1, "sqrt": 1, "div": 1}


@pytest.mark.parametrize(
    ("lines", "more"),
    [
        (["%y: f32[4] = pow(%x, %h)"], {"abs": 1, "where": 1, "eq": 1}),
        (["%a: f32[4] = sub(%x, %x2)", "%y: f32[4] = pow(%a, %h)"],
         {"sub": 1, "abs": 1, "where": 1, "eq": 1}),
        (["%a: f32[4] = mul(%x, %x)", "%b: f32[4] = add(%a, %h)", "%y: f32[4] = pow(%b, %h)"],
         {"mul": 1, "add": 1}),
        (["%a: f32[4] = mul(%x, %x2)", "%y: f32[4] = pow(%a, %h)"],
         {"mul": 1, "abs": 1, "where": 1, "eq": 1}),
    ],
)  # fmt: skip
def test_pow_of_half_is_a_root_of_what_is_not_negative(
    lines: list[str], more: dict[str, int]
) -> None:
    """Of other things -inf becomes inf."""
    text = body("%x: f32[4], %x2: f32[4]", lines, "const %h: f32[] = [0.5]")
    assert count(rewritten(text, SIMPLIFY)) == {"sqrt": 1, **more}


def test_transposes_compose() -> None:
    check(
        body(
            "%x: f32[2, n, 4]",
            [
                "%a: f32[n, 4, 2] = transpose(%x) {perm = (1, 2, 0)}",
                "%y: f32[4, n, 2] = transpose(%a) {perm = (1, 0, 2)}",
            ],
        ),
        body("%x: f32[2, n, 4]", "%y: f32[4, n, 2] = transpose(%x) {perm = (2, 1, 0)}"),
        SIMPLIFY,
    )


def test_transpose_of_single_elements_is_a_reshape() -> None:
    check(
        body("%x: f32[n, 4, 1, 1]", "%y: f32[n, 1, 1, 4] = transpose(%x) {perm = (0, 2, 3, 1)}"),
        body("%x: f32[n, 4, 1, 1]", "%y: f32[n, 1, 1, 4] = reshape(%x) {shape = (n, 1, 1, 4)}"),
        SIMPLIFY,
    )


def test_slices_compose() -> None:
    x = "%x: f32[n, 20]"
    check(
        body(
            x,
            [
                "%a: f32[n, 8] = slice(%x) {starts = (0, 3), steps = (1, 2), stops = (n, 19)}",
                "%y: f32[n, 2] = slice(%a) {starts = (0, 1), steps = (1, 3), stops = (n, 6)}",
            ],
        ),
        body(x, "%y: f32[n, 2] = slice(%x) {starts = (0, 5), steps = (1, 6), stops = (n, 14)}"),
        SIMPLIFY,
    )


def test_slice_of_concat_reads_one_operand() -> None:
    inputs = "%a: f32[n, 3], %b: f32[n, 4]"
    check(
        body(
            inputs,
            [
                "%c: f32[n, 7] = concat(%a, %b) {axis = 1}",
                "%y: f32[n, 2] = slice(%c) {starts = (0, 4), steps = (1, 1), stops = (n, 6)}",
            ],
        ),
        body(inputs, "%y: f32[n, 2] = slice(%b) {starts = (0, 1), steps = (1, 1), stops = (n, 3)}"),
        SIMPLIFY,
    )


def test_gather_of_a_range_is_a_slice() -> None:
    check(
        body("%x: f32[n, 6]", "%y: f32[n] = gather(%x, %i) {axis = 1}", "const %i: i64[] = [-2]"),
        body(
            "%x: f32[n, 6]",
            [
                "%a: f32[n, 1] = slice(%x) {starts = (0, 4), steps = (1, 1), stops = (n, 5)}",
                "%y: f32[n] = reshape(%a) {shape = (n,)}",
            ],
        ),
        SIMPLIFY,
    )


def test_concat_is_flattened() -> None:
    inputs = "%a: f32[2], %b: f32[3]"
    check(
        body(
            inputs,
            ["%c: f32[5] = concat(%a, %b) {axis = 0}", "%y: f32[7] = concat(%c, %a) {axis = 0}"],
        ),
        body(inputs, "%y: f32[7] = concat(%a, %b, %a) {axis = 0}"),
        SIMPLIFY,
    )


def test_of_broadcasts_in_a_chain_the_last_stays() -> None:
    """Axes of the first operand are looked for from the end of the last shape."""
    a = "%a: f32[4, 2, 3] = broadcast_to(%x) {shape = (4, 2, 3)}"
    y = "%y: f32[5, 4, 2, 3] = broadcast_to({source}) {{shape = (5, 4, 2, 3)}}"
    x = X.replace("[n, 3]", "[2, 3]")
    check(body(x, [a, y.format(source="%a")]), body(x, y.format(source="%x")), SIMPLIFY)


def test_broadcast_before_pointwise_goes() -> None:
    inputs = "%x: f32[n, 3], %z: f32[3]"
    check(
        body(
            inputs,
            [
                "%a: f32[n, 3] = broadcast_to(%z) {shape = (n, 3)}",
                "%y: f32[n, 3] = mul(%x, %a)",
            ],
        ),
        body(inputs, "%y: f32[n, 3] = mul(%x, %z)"),
        SIMPLIFY,
    )


def test_broadcast_moves_behind_pointwise() -> None:
    check(
        body(
            "%z: f32[1, 3]",
            [
                "%a: f32[4, 3] = broadcast_to(%z) {shape = (4, 3)}",
                "%y: f32[4, 3] = exp(%a)",
            ],
        ),
        body(
            "%z: f32[1, 3]",
            [
                "%a: f32[1, 3] = exp(%z)",
                "%y: f32[4, 3] = broadcast_to(%a) {shape = (4, 3)}",
            ],
        ),
        SIMPLIFY,
    )


def test_casts_that_hold_the_value_are_skipped() -> None:
    x = "%x: i8[n]"
    check(
        body(x, ["%a: f32[n] = cast(%x) {dtype = !f32}", "%y: i32[n] = cast(%a) {dtype = !i32}"]),
        body(x, "%y: i32[n] = cast(%x) {dtype = !i32}"),
        SIMPLIFY,
    )
    narrow = body(
        "%x: f32[n]",
        ["%a: i8[n] = cast(%x) {dtype = !i8}", "%y: f32[n] = cast(%a) {dtype = !f32}"],
    )
    check(narrow, narrow, SIMPLIFY)


def test_select_with_constant_condition() -> None:
    inputs = "%a: f32[n], %b: f32[n]"
    constants = "const %c: bool[] = [false]"
    check(
        body(inputs, ["%w: f32[n] = where(%c, %a, %b)", "%y: f32[n] = exp(%w)"], constants),
        body(inputs, "%y: f32[n] = exp(%b)"),
        SIMPLIFY,
    )


def test_reductions() -> None:
    x = "%x: f32[n, 1, 3]"
    check(
        body(x, "%y: f32[n, 3] = reduce_max(%x) {axes = (1,)}"),
        body(x, "%y: f32[n, 3] = reshape(%x) {shape = (n, 3)}"),
        SIMPLIFY,
    )
    check(
        body(
            "%x: f32[2, 5, 3]",
            [
                "%a: f32[2, 1, 3] = reduce_mean(%x) {axes = (1,), keepdims = true}",
                "%y: f32[2, 1, 1] = reduce_mean(%a) {axes = (2,), keepdims = true}",
            ],
        ),
        body(
            "%x: f32[2, 5, 3]",
            "%y: f32[2, 1, 1] = reduce_mean(%x) {axes = (1, 2), keepdims = true}",
        ),
        SIMPLIFY,
    )


def test_pool_over_everything_is_a_reduction() -> None:
    x = "%x: f32[n, 2, 4, 5]"
    attrs = "dilations = (1, 1), kernel = (4, 5), pads = (0, 0, 0, 0), strides = (1, 1)"
    check(
        body(x, f"%y: f32[n, 2, 1, 1] = avg_pool(%x) {{{attrs}}}"),
        body(x, "%y: f32[n, 2, 1, 1] = reduce_mean(%x) {axes = (2, 3), keepdims = true}"),
        SIMPLIFY,
    )


@pytest.mark.parametrize("op", ["avg_pool", "max_pool"])
def test_a_window_reaches_no_further_than_the_axis(op: str) -> None:
    """As exporters write a mean over everything: a window of a thousand elements, one of ceil."""
    x = "%x: f32[n, 2, 4, 5]"
    attrs = "ceil_mode = true, dilations = (1, 1), kernel = (90, 80), pads = (0, 0, 0, 0)"
    reduction = {"avg_pool": "reduce_mean", "max_pool": "reduce_max"}[op]
    check(
        body(x, f"%y: f32[n, 2, 1, 1] = {op}(%x) {{{attrs}, strides = (90, 80)}}"),
        body(x, f"%y: f32[n, 2, 1, 1] = {reduction}(%x) {{axes = (2, 3), keepdims = true}}"),
        SIMPLIFY,
    )


def test_one_spatial_axis_becomes_two() -> None:
    graph = rewritten(
        body(
            "%x: f32[2, 3, 9], %w: f32[4, 3, 3]",
            "%y: f32[2, 4, 5] = conv(%x, %w) {dilations = (1,), pads = (1, 1), strides = (2,)}",
        ),
        SIMPLIFY,
    )
    conv = next(node for node in graph.nodes if node.op == "conv")
    assert conv.attrs["pads"] == (0, 1, 0, 1)
    assert conv.attrs["strides"] == (1, 2)
    assert conv.output.shape == (2, 4, 1, 5)


def test_pad_goes_into_conv() -> None:
    inputs = "%x: f32[1, 2, 5, 5], %w: f32[3, 2, 3, 3]"
    attrs = "dilations = (1, 1), pads = ({}), strides = (1, 1)"
    check(
        body(
            inputs,
            [
                "%p: f32[1, 2, 7, 6] = pad(%x) {pads = (0, 0, 1, 0, 0, 0, 1, 1)}",
                f"%y: f32[1, 3, 7, 4] = conv(%p, %w) {{{attrs.format('1, 0, 1, 0')}}}",
            ],
        ),
        body(inputs, f"%y: f32[1, 3, 7, 4] = conv(%x, %w) {{{attrs.format('2, 0, 2, 1')}}}"),
        SIMPLIFY,
    )
