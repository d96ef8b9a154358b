"""Products with blocks of zeros multiply by what is left, and compute what they did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from compiled import Setting, compile_graph
from hypothesis import given, settings
from hypothesis import strategies as st
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder, N

from tensmith.backends import arm, x86
from tensmith.backends.common.link import link
from tensmith.backends.reference import run_graph
from tensmith.backends.x86.targets import parse_target
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.decisions import Saving
from tensmith.compiler.ir import Dim, Graph, Value, constant
from tensmith.compiler.ir.dims import estimate
from tensmith.compiler.ir.flops import graph_flops
from tensmith.compiler.ir.ops.registry import Array
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.compiler.target import CpuTarget
from tensmith.passes.arithmetic.zero_blocks import ZeroBlocks, best_panels
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.runtime.loader import load

CPU_TARGETS = [name for b in (x86, arm) for name in b.BACKEND.targets if name != "native"]
V3, V4 = parse_target("x86-64-v3"), parse_target("x86-64-v4")
SETTING = Setting("x86-64-v3", 2)


def pruned(depth: int, columns: int, block: tuple[int, int], share: float, seed: int = 0) -> Array:
    """Weights of which a share of the blocks is zero, equally many in every column of blocks."""
    rng = np.random.default_rng(seed)
    rows, wide = depth // block[0], columns // block[1]
    gone = np.argsort(rng.random((rows, wide)), axis=0) < round(share * rows)
    w = rng.uniform(0.5, 1, (depth, columns)) * rng.choice([-1, 1], (depth, columns))
    return (w * ~np.kron(gone, np.ones(block, bool))).astype(np.float32)


def layer(c: CaseBuilder, x: Value, w: Array, residual: bool = False) -> Value:
    y = c.op("add", c.op("matmul", x, constant(w)), c.weight(w.shape[1]))
    return c.op("add", y, x) if residual else c.op("max", y, c.scalar(0))


def optimised(graph: Graph, target: object = V4, told: list[Saving] | None = None) -> float:
    """The share of the arithmetic that is left; checks the results."""
    inputs = inputs_for(graph)
    want, before = run_graph(graph, inputs), graph_flops(graph)
    hear = None if told is None else told.append
    run_passes(graph, (ZeroBlocks(target, hear), Fixpoint(SIMPLIFY)))  # type: ignore[arg-type]
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    return estimate(graph_flops(graph), 5) / estimate(before, 5)


@pytest.mark.parametrize("rows", [1, 37, N])
@pytest.mark.parametrize("block", [(1, 16), (32, 32), (4, 64), (16, 128)])
def test_blocks(rows: Dim, block: tuple[int, int]) -> None:
    c = CaseBuilder("blocks")
    c.output(layer(c, c.input(rows, 128), pruned(128, 128, block, 0.75)))
    told: list[Saving] = []
    left = optimised(c.graph(), told=told)
    if rows == 1 and block[1] == 16:
        assert 0.6 < left < 0.8  # in wide panels: one row's sums would wait in narrow ones
    else:
        assert left == 0.25
        (saving,) = told
        assert saving.after == saving.before * 0.25


@pytest.mark.parametrize("name", CPU_TARGETS)
@pytest.mark.parametrize("rows", [1, N])
def test_every_processor_has_a_tile_for_some_width(name: str, rows: Dim) -> None:
    """Of few registers wide tiles leave none for a step's vectors; without any nothing changes."""
    target = resolve_target(name)[1]
    assert isinstance(target, CpuTarget)
    c = CaseBuilder("blocks")
    c.output(layer(c, c.input(rows, 128), pruned(128, 128, (32, 64), 0.75)))
    left = optimised(c.graph(), target)
    assert left == (0.25 if target.lanes(32) > 1 else 1)


@pytest.mark.parametrize("height", [7, N])
@pytest.mark.parametrize("step", [1, 2])
def test_pointwise_convolutions(step: int, height: Dim) -> None:
    c = CaseBuilder("conv")
    w = constant(pruned(64, 96, (8, 32), 0.5).reshape(1, 1, 64, 96))
    window = {"strides": (step, step), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1}
    x = c.input(2, height, 5, 64)
    c.output(c.op("conv", x, w, c.weight(96), **window, layout="NHWC"))
    graph = c.graph()
    assert optimised(graph) == 0.5
    assert "conv" not in count(graph)


def windows(w: Array, batch: Dim = 2, stride: int = 1) -> Graph:
    c = CaseBuilder("windows")
    filters = np.random.default_rng(1).uniform(0.5, 1, (3, 3, *w.shape)).astype(np.float32) * w
    attrs = {"strides": (stride, stride), "pads": (1, 0, 1, 2), "dilations": (1, 1), "groups": 1}
    x = c.input(batch, 7, 5, w.shape[0])
    y = c.op("conv", x, constant(filters), c.weight(w.shape[1]), **attrs, layout="NHWC")
    c.output(c.op("max", y, c.scalar(0)))
    return c.graph()


GROUPED = [((1, 64), 0.75, 0.25), ((16, 32), 0.75, 0.25), ((4, 64), 0.6, 0.5)]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("block", "share", "left"), GROUPED)
def test_windows_in_groups(block: tuple[int, int], share: float, left: float, stride: int) -> None:
    """Channels are kept in multiples of 16."""
    graph = windows(pruned(64, 128, block, share), stride=stride)
    assert optimised(graph) == left
    (conv,) = (node for node in graph.nodes if node.op == "conv")
    assert conv.attrs["groups"] in (2, 4)


@pytest.mark.parametrize(("stride", "left"), [(1, 0.375), (2, 1)])
def test_copies_of_groups_are_not_many_times_the_layer(stride: int, left: float) -> None:
    """Eight groups read three times of what there is, beside results of a third of that, or of
    as much."""
    graph = windows(pruned(256, 256, (16, 32), 0.625), stride=stride)
    assert optimised(graph) == left


def test_pictures_of_no_elements_have_groups_or_none() -> None:
    assert optimised(windows(pruned(64, 128, (16, 32), 0.75), batch=0)) <= 1


@pytest.mark.parametrize(
    "kind", ["few", "scattered", "one panel has all", "few of windows", "no target"]
)
def test_what_stays(kind: str) -> None:
    c, target = CaseBuilder("stays"), None if kind == "no target" else V4
    w = pruned(128, 128, (32, 32), 0.1 if kind == "few" else 0.75)
    if kind == "scattered":
        w = pruned(128, 128, (1, 1), 0.75)
    if kind == "one panel has all":
        w[:, :16] = 1
    if "of windows" in kind:
        graph = windows(pruned(128, 128, (32, 32), 0.25))
    else:
        c.output(layer(c, c.input(37, 128), w))
        graph = c.graph()
    assert optimised(graph, target) == 1


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(2, 12), st.integers(1, 8), st.floats(0, 1), st.integers(0, 99)
)
def test_any_zeros(rows: int, deep: int, wide: int, share: float, seed: int) -> None:
    """Whatever the zeros are, the results stay, and operations do not become more."""
    rng, c = np.random.default_rng(seed), CaseBuilder("any")
    w = pruned(8 * deep, 16 * wide, (8, 16), 0, seed)
    w *= np.kron(rng.random((deep, wide)) > share, np.ones((8, 16))).astype(np.float32)
    c.output(layer(c, c.input(rows, 8 * deep), w))
    assert optimised(c.graph(), V3 if seed % 2 else V4) <= 1


def test_panels_are_filled_up_with_rows_of_zeros() -> None:
    w = np.ones((64, 64), np.float32)
    w[8:, :32] = w[:40, 32:] = 0
    found = best_panels(w, 14, V4)
    assert found is not None
    panels, kept, width = found.weights.shape
    assert (kept, panels * width) == (24, 64)
    assert found.weights[0].sum() == 8 * width
    assert (np.diff(found.channels, axis=1) > 0).all()


@pytest.mark.skipif(bool(SETTING.missing()), reason=SETTING.missing())
@pytest.mark.parametrize("rows", [3, 50])
def test_in_one_kernel(tmp_path: Path, rows: int) -> None:
    """Bias, sum and activation included; what is read is looked up as it is multiplied."""

    def network() -> Graph:
        c = CaseBuilder("network")
        x = layer(c, c.input(rows, 128), pruned(128, 128, (1, 64), 0.75))
        c.output(layer(c, x, pruned(128, 128, (4, 64), 0.75), residual=True))
        return c.graph()

    model = compile_graph(network(), SETTING, tmp_path)
    link(model, "so", tmp_path / "m.so")
    inputs = inputs_for(network())
    got, want = load(tmp_path / "m.so")(inputs), run_graph(network(), inputs)
    np.testing.assert_allclose(got["y0"], want["y0"], rtol=1e-4, atol=1e-4)
