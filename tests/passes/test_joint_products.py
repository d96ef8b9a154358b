"""Products of one matrix by several constants: which become one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from rewriting import inputs_for, same_results
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, constant
from tensmith.compiler.ir.ops.quantised_product import WeightFormat
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.patterns.joint_products import JointProducts
from tensmith.passes.pipeline import SIMPLIFY

PRODUCTS = [f"%{p}: f32[n, 8] = matmul(%x, %{w})" for p, w in zip("pqr", "uvw", strict=True)]
SUMS = [f"%{s}: f32[n, 8] = add(%{p}, %b)" for s, p in zip("ijk", "pqr", strict=True)]


def rewritten(lines: list[str], results: str, weights: str = "uvwb") -> Graph:
    """The graph after the pass, which computes what it did. weights: inputs made constant."""
    wide = "%x: f32[n, 5], %u: f32[5, 8], %v: f32[5, 8], %w: f32[5, 8], %b: f32[8], %o: f32[5, 6]"
    text = "\n  ".join([*lines, f"return {results}"])
    graph = parse_graph(f'graph "g"({wide}) {{\n  {text}\n}}\n')
    given = inputs_for(graph)
    for value in list(graph.inputs):
        if value.name in weights:
            graph.replace_uses({value: constant(np.asarray(given[value.name]), value.name)})
            graph.inputs.remove(value)
    inputs = {value.name: given[value.name] for value in graph.inputs}
    want = run_graph(graph, inputs)
    run_passes(graph, (JointProducts(), *SIMPLIFY))
    same_results(want, run_graph(graph, inputs))
    return graph


def columns(graph: Graph) -> list[int]:
    return [node.output.shape[1] for node in graph.nodes if node.op == "matmul"]


def shifted(name: str, source: str) -> str:
    return f"%{name}: f32[8, n] = transpose(%{source}) {{perm = (1, 0)}}"


TURNED = [shifted(f"t{s}", s) for s in "ijk"]


def test_products_with_their_constants() -> None:
    graph = rewritten([*PRODUCTS, *SUMS, *TURNED], "%ti, %tj, %tk")
    assert columns(graph) == [24]
    (total,) = (node for node in graph.nodes if node.op == "add")
    assert total.output.shape[1] == 24


def test_products_alone() -> None:
    turned = [shifted(f"t{s}", s) for s in "pqr"]
    assert columns(rewritten([*PRODUCTS, *turned], "%tp, %tq, %tr")) == [24]


@pytest.mark.parametrize(
    ("lines", "results", "weights"),
    [
        ([*PRODUCTS, *SUMS], "%i, %j, %k", "uvwb"),  # results lie in memory of their own
        ([*PRODUCTS, *SUMS, *TURNED], "%ti, %tj, %tk", "b"),  # nothing is constant
        (
            [*PRODUCTS[:2], *SUMS[:2], "%m: f32[n, 8] = mul(%i, %j)", shifted("t", "m")],
            "%t",
            "uvwb",
        ),  # they meet
        (
            [
                PRODUCTS[0], shifted("tp", "p"), "%s: f32[n, 6] = matmul(%x, %o)",
                "%ts: f32[6, n] = transpose(%s) {perm = (1, 0)}",
            ],
            "%tp, %ts",
            "uo",
        ),  # parts of 24 bytes
    ],
)  # fmt: skip
def test_what_stays_apart(lines: list[str], results: str, weights: str) -> None:
    before = sum("matmul" in line for line in lines)
    assert len(columns(rewritten(lines, results, weights))) == before


def packed_products(forms: Sequence[WeightFormat], zeros: str) -> CaseBuilder:
    """Products of one matrix by weights of few bits. zeros: "packed", "floats" or none."""
    c = CaseBuilder("packed")
    x = c.input(3, 64)
    for form in forms:
        operands = [c.weight(*form.packed(form.depth), dtype=DType.U8, low=0, high=256)]
        operands.append(c.weight(*form.plain(form.blocks), low=0.01, high=0.2))
        if zeros == "packed":
            operands.append(c.weight(*form.packed(form.blocks), dtype=DType.U8, low=0, high=256))
        elif zeros:
            operands.append(c.weight(*form.plain(form.blocks), low=0, high=3))
        attrs = {key: value for key, value in asdict(form).items() if key != "matrices"}
        total = c.op("quantised_matmul", x, *operands, **attrs)
        c.output(c.op("transpose", c.op("add", total, c.weight(form.columns)), perm=(1, 0)))
    return c


@pytest.mark.parametrize("zeros", ["", "packed", "floats"])
@pytest.mark.parametrize("by_column", [True, False])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_of_few_bits_stay_packed(bits: int, by_column: bool, zeros: str) -> None:
    form = WeightFormat(bits, 16, 64, 8, by_column=by_column, zero=1)
    graph = packed_products([form, replace(form, columns=20)], zeros).graph()
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, (JointProducts(), *SIMPLIFY))
    same_results(want, run_graph(graph, inputs))
    (product,) = (node for node in graph.nodes if node.op == "quantised_matmul")
    assert product.output.shape == (3, 28)
    assert product.attrs["columns"] == 28


@pytest.mark.parametrize(
    "change", [{"bits": 8}, {"block": 32}, {"zero": 2}, {"by_column": False}, {"columns": 6}]
)
def test_weights_stored_in_other_ways_stay_apart(change: dict[str, Any]) -> None:
    form = WeightFormat(4, 16, 64, 8, zero=1)
    graph = packed_products([form, replace(form, **change)], "").graph()
    run_passes(graph, (JointProducts(), *SIMPLIFY))
    assert sum(node.op == "quantised_matmul" for node in graph.nodes) == 2
