"""Strassen's algorithm: seven products, within the bound that it states."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import count, inputs_for
from suites.case import F16, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import parse_target
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, DType, Graph
from tensmith.compiler.ir.ops.registry import Array
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.arithmetic.strassen import StrassenProducts, combined
from tensmith.passes.pipeline import SIMPLIFY, optimization_passes


def product(rows: Dim, depth: int, columns: int, dtype: DType | None = None) -> Graph:
    c = CaseBuilder(f"product {rows} {depth} {columns}")
    kind = {} if dtype is None else {"dtype": dtype}
    c.output(c.op("matmul", c.input(rows, depth, **kind), c.weight(depth, columns, **kind)))
    return c.graph()


def bound(depth: int, a: Array, b: Array) -> float:
    """Of Higham's theorem 23.3 for one level."""
    unit = float(np.finfo(np.float32).eps) / 2
    factor = 18 * ((depth / 2) ** 2 + 3 * depth) - 6 * depth
    return float(factor * unit * np.abs(a).max() * np.abs(b).max())


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.integers(1, 20)] * 3), st.integers(0, 100))
def test_products_stay_within_the_bound(halves: tuple[int, ...], seed: int) -> None:
    rows, depth, columns = (2 * half for half in halves)
    graph = product(rows, depth, columns)
    weights = graph.nodes[0].inputs[1].data
    assert weights is not None
    inputs = inputs_for(graph, seed)
    (x,) = inputs.values()
    assert StrassenProducts(least_side=2, least_volume=0).run(graph)
    run_passes(graph, (Fixpoint(SIMPLIFY),))
    assert count(graph)["matmul"] == 7
    (got,) = run_graph(graph, inputs).values()
    error = np.abs(got - x.astype(np.float64) @ weights.astype(np.float64)).max()
    assert error <= bound(depth, x, weights)


def test_combinations_are_rounded_once() -> None:
    w = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    wide = w.astype(np.float64)
    exact = wide[3:, 4:] - (wide[:3, 4:] - wide[:3, :4]) - wide[3:, :4]
    np.testing.assert_array_equal(combined(w)[3], exact.astype(np.float32))


def test_what_is_told() -> None:
    told: list[Saving] = []
    assert StrassenProducts(told.append).run(product(1024, 1024, 2048))
    assert [item.by for item in told] == ["strassen"]
    assert told[0].after < told[0].before


@pytest.mark.parametrize(
    "graph",
    [
        product(128, 768, 3072),
        product(1025, 1024, 2048),
        product(N, 1024, 2048),
        product(1024, 1024, 2048, F16),
    ],
    ids=["few rows", "an odd side", "any number of rows", "halves"],
)
def test_others_stay(graph: Graph) -> None:
    assert not StrassenProducts().run(graph)


@pytest.mark.parametrize(("level", "products"), [(2, 1), (3, 7)])
def test_at_the_third_level_alone(level: int, products: int) -> None:
    graph = product(1024, 1024, 2048)
    run_passes(graph, optimization_passes(level, target=parse_target("x86-64-v4")))
    assert count(graph)["matmul"] == products
