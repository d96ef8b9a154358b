"""Right operands of products in panels: where, how wide, and the same results."""

from __future__ import annotations

import pytest
from rewriting import body, check, rewritten

from tensmith.compiler.pass_manager import Fixpoint
from tensmith.passes.layout.operand_panels import OperandPanels
from tensmith.passes.pipeline import SIMPLIFY

PANELS = Fixpoint((OperandPanels(8), *SIMPLIFY))


def test_columns_become_panels() -> None:
    inputs = "%x: f32[2, 40, 24], %w: f32[2, 24, 64]"
    check(
        body(inputs, "%y: f32[2, 40, 64] = matmul(%x, %w)"),
        body(
            inputs,
            [
                "%p: f32[2, 24, 4, 16] = reshape(%w) {shape = (2, 24, 4, 16)}",
                "%q: f32[2, 4, 24, 16] = transpose(%p) {perm = (0, 2, 1, 3)}",
                "%a: f32[2, 1, 40, 24] = reshape(%x) {shape = (2, 1, 40, 24)}",
                "%c: f32[2, 4, 40, 16] = matmul(%a, %q)",
                "%d: f32[2, 40, 4, 16] = transpose(%c) {perm = (0, 2, 1, 3)}",
                "%y: f32[2, 40, 64] = reshape(%d) {shape = (2, 40, 64)}",
            ],
        ),
        PANELS,
    )


def test_the_last_panel_is_filled_and_a_transpose_of_the_result_joins() -> None:
    graph = rewritten(
        body(
            "%x: f32[2, 3, 40, 24], %w: f32[2, 3, 24, 64]",
            [
                "%c: f32[2, 3, 40, 64] = matmul(%x, %w)",
                "%y: f32[2, 40, 3, 64] = transpose(%c) {perm = (0, 2, 1, 3)}",
            ],
        ),
        PANELS,
    )
    perms = [node.attrs["perm"] for node in graph.nodes if node.op == "transpose"]
    assert perms == [(0, 1, 3, 2, 4), (0, 3, 1, 2, 4)]
    odd = rewritten(
        body("%x: f32[2, 40, 24], %w: f32[2, 24, 61]", "%y: f32[2, 40, 61] = matmul(%x, %w)"),
        PANELS,
    )
    kinds = [node.op for node in odd.nodes]
    assert kinds.count("pad") == kinds.count("slice") == 1


@pytest.mark.parametrize(
    ("rows", "depth", "columns"),
    [("4", "24", "64"), ("n", "24", "64"), ("n", "m", "64"), ("40", "24", "n"), ("40", "24", "16")],
)
def test_few_rows_and_unknown_columns_stay(rows: str, depth: str, columns: str) -> None:
    text = body(
        f"%x: f32[2, {rows}, {depth}], %w: f32[2, {depth}, {columns}]",
        f"%y: f32[2, {rows}, {columns}] = matmul(%x, %w)",
    )
    check(text, text, PANELS)


def test_as_many_rows_as_steps_are_many() -> None:
    text = body("%x: f32[2, n, n], %w: f32[2, n, 64]", "%y: f32[2, n, 64] = matmul(%x, %w)")
    product = next(node for node in rewritten(text, PANELS).nodes if node.op == "matmul")
    assert product.inputs[1].type.rank == 4


def test_groups_are_copied_to_panels_and_their_bits_changed_by_the_copy() -> None:
    text = body(
        "%x: i32[2, 40, 6], %w: i32[2, 6, 61]",
        [
            "%f: i32[2, 6, 61] = bitxor(%w, %bits)",
            '%y: i32[2, 40, 61] = matmul(%x, %f) {product = "dot4"}',
        ],
        "const %bits: i32[] = [-2139062144]",
    )
    graph = rewritten(text, PANELS)
    kinds = [node.op for node in graph.nodes]
    order = ["pad", "reshape", "transpose", "bitxor", "matmul"]
    assert [kind for kind in kinds if kind in order][:4] == order[:4]
    product = next(node for node in graph.nodes if node.op == "matmul")
    assert product.attrs["product"] == "dot4"
    assert product.inputs[1].shape == (2, 4, 6, 16)
