"""Kernels, as written and simplified, against the regions that they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels import fused_nodes, interpreted, reference, region_inputs
from random_graphs import build
from rewriting import body
from suites.cases import ALL_CASES, Case

from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import (
    Dim,
    as_dim,
    floordiv,
    has_calls,
    is_position,
    map_atoms,
    symbol,
    symbols_of,
)
from tensmith.compiler.ir.text import parse_graph
from tensmith.compiler.kernel.forms import region as forms_region
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import Kernel, Stage

Simplify = Callable[[Kernel], Kernel]


def check_region(region: Graph, sizes: dict[str, int], simplify: Simplify | None = None) -> None:
    """The kernel of a region computes what the region does."""
    original = forms_region.simplify
    forms_region.simplify = simplify or original
    try:
        lowered = lower_region(region)
    finally:
        forms_region.simplify = original
    inputs = region_inputs(region, sizes, seed=1)
    want = reference(region, inputs, sizes)
    values = lowered.inputs, lowered.outputs
    got = interpreted(lowered.kernel, values, inputs, sizes, lowered.transforms)
    for value, array in zip(region.outputs, want, strict=True):
        scale = max(1.0, float(np.abs(array).max())) if array.size and value.dtype.is_float else 1
        np.testing.assert_allclose(
            got[value.name].astype(np.float64), array.astype(np.float64), 1e-3, 1e-4 * scale
        )


def check_graph(graph: Graph, sizes: dict[str, int], level: int = 2) -> int:
    """`check_region` for every fused node, with and without simplification; how many there are."""
    count = 0
    for count, node in enumerate(fused_nodes(graph, level), start=1):  # noqa: B007
        region = node.regions[0]
        values = (*region.inputs, *(value for inner in region.nodes for value in inner.outputs))
        unknown = {name for value in values for dim in value.shape for name in symbols_of(dim)}
        unknown |= set(lower_region(region).kernel.symbols)
        bound = {**dict.fromkeys(unknown, 3), **sizes}
        check_region(region, bound, simplify=lambda kernel: kernel)
        check_region(region, bound)
    return count


@pytest.mark.parametrize("level", [0, 2])
@pytest.mark.parametrize("part", range(4))
def test_kernels_of_the_suites(part: int, level: int) -> None:
    plain = [c for c in ALL_CASES[part::4] if not any(n.op == "fused" for n in c.graph().nodes)]
    assert sum(_check_case(case, level) for case in plain) > len(plain) // 2


def _check_case(case: Case, level: int) -> int:
    try:
        return check_graph(case.graph(), dict(case.sizes), level)
    except Exception as error:
        raise AssertionError(f"{case.name}: {error}") from error


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 9999), min_size=1, max_size=8),
    st.booleans(),
    st.sampled_from([0, 2]),
    st.integers(1, 3),
)
def test_kernels_of_random_graphs(numbers: list[int], symbolic: bool, level: int, n: int) -> None:
    check_graph(build(numbers, symbols=int(symbolic)), {"n": n}, level)


@pytest.mark.parametrize("t", [symbol("m"), symbol("m") + 1, floordiv(symbol("m"), 2) + 3, 7])
def test_scores_shifted_by_their_row_are_read_without_a_division(t: Dim) -> None:
    """A zero before each row of [t, 2*t - 1], rows of another length, and the first t of each."""
    flat = 2 * t * t
    graph = parse_graph(
        body(
            f"%s: f32[m], %x: f32[n, {t}, {2 * t - 1}]",
            [
                f"%a: f32[n, {t}, {2 * t}] = pad(%x) {{pads = (0, 0, 1, 0, 0, 0)}}",
                f"%b: f32[n, {flat}] = reshape(%a) {{shape = (n, {flat})}}",
                f"%c: f32[n, {flat - t}] = slice(%b) "
                f"{{starts = (0, {t}), steps = (1, 1), stops = (n, {flat})}}",
                f"%d: f32[n, {t}, {2 * t - 1}] = reshape(%c) {{shape = (n, {t}, {2 * t - 1})}}",
                f"%e: f32[n, {t}, {t}] = slice(%d) "
                f"{{starts = (0, 0, 0), steps = (1, 1, 1), stops = (n, {t}, {t})}}",
                f"%y: f32[n, {t}, {t}] = neg(%e)",
            ],
        )
    )
    (node,) = fused_nodes(graph)
    for size in (1, 2, 5):
        check_region(node.regions[0], {"n": 2, "m": size})
    stages = lower_region(node.regions[0]).kernel.stages
    assert not any(has_calls(index) for stage in stages for index in _positions(stage))


def _positions(stage: Stage) -> Iterator[Dim]:
    """Indices of a stage with what only sizes decide, which is computed once, as a number."""
    for index in stage.all_indices():
        yield map_atoms(index, lambda atom: as_dim(atom) if is_position(as_dim(atom)) else 1)
