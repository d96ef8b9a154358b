"""Scales and offsets around contractions."""

from __future__ import annotations

import numpy as np
import pytest
from rewriting import count, inputs_for, same_results
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import Graph, Value
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.passes.simplify.scale_folding import ScaleFolding

FOLD = Fixpoint((ScaleFolding(), *SIMPLIFY))


def _folded(c: CaseBuilder, result: Value, **options: int) -> Graph:
    c.output(result)
    graph = c.graph()
    inputs = inputs_for(graph)
    want = run_graph(graph, inputs)
    run_passes(graph, [Fixpoint((ScaleFolding(**options), *SIMPLIFY))])
    same_results(want, run_graph(graph, inputs), rtol=1e-4, atol=1e-4)
    return graph


def _conv(c: CaseBuilder, x: Value, op: str, pad: int, bias: bool, groups: int) -> Value:
    attrs = {"strides": (1, 1), "dilations": (1, 1), "pads": (pad,) * 4, "groups": groups}
    if op == "conv":
        weights = c.weight(4, x.shape[1] // groups, 3, 3)
    else:
        weights = c.weight(x.shape[1], 4 // groups, 3, 3)
        attrs["output_padding"] = (0, 0)
    return c.op(op, x, weights, *([c.weight(4)] if bias else []), **attrs)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("op", ["conv", "conv_transpose"])
def test_batch_norm_after(op: str, bias: bool, groups: int) -> None:
    c = CaseBuilder("after")
    y = _conv(c, c.input(N, 4, 6, 6), op, 1, bias, groups)
    y = c.op("mul", y, c.weight(4, 1, 1))
    graph = _folded(c, c.op("add", y, c.weight(1, 4, 1, 1)))
    assert count(graph) == {op: 1}
    assert len(graph.nodes[0].inputs) == 3


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("pad", "left"), [(0, {"conv": 1}), (1, {"add": 1, "conv": 1})])
def test_batch_norm_before(pad: int, left: dict[str, int], groups: int) -> None:
    """A sum cannot go through zero padding, a product can."""
    c = CaseBuilder("before")
    x = c.op("mul", c.input(1, 4, 6, 6), c.weight(4, 1, 1))
    if pad == 0:
        x = c.op("add", x, c.weight(4, 1, 1))
        assert count(_folded(c, _conv(c, x, "conv", pad, True, groups))) == left
        return
    x = c.op("mul", c.op("add", x, c.weight(4, 1, 1)), c.weight(4, 1, 1))
    graph = _folded(c, _conv(c, x, "conv", pad, False, groups))
    assert graph.nodes[-2].op == "add"
    assert count(graph) == {"mul": 1, **left}


def test_through_views() -> None:
    c = CaseBuilder("views")
    y = _conv(c, c.input(2, 4, 6, 6), "conv", 0, False, 1)
    y = c.op("transpose", c.op("reshape", y, shape=(2, 4, 16)), perm=(0, 2, 1))
    graph = _folded(c, c.op("mul", y, c.weight(4)))
    assert count(graph) == {"conv": 1, "reshape": 1, "transpose": 1}


def test_matrix_product() -> None:
    c = CaseBuilder("matmul")
    x = c.op("mul", c.input(N, 3, 4), c.weight(4))
    y = c.op("add", c.op("matmul", x, c.weight(4, 5)), c.weight(5))
    graph = _folded(c, c.op("add", c.op("mul", y, c.weight(5)), c.weight(5)))
    assert count(graph) == {"matmul": 1, "add": 1}


def test_what_varies_along_other_axes_stays() -> None:
    c = CaseBuilder("spatial")
    y = _conv(c, c.input(1, 4, 6, 6), "conv", 1, True, 1)
    graph = _folded(c, c.op("add", c.op("mul", y, c.weight(6)), c.weight(6, 6)))
    assert count(graph) == {"conv": 1, "mul": 1, "add": 1}


def test_shared_results_stay() -> None:
    c = CaseBuilder("shared")
    y = _conv(c, c.input(1, 4, 6, 6), "conv", 1, True, 1)
    graph = _folded(c, c.op("max", y, c.op("mul", y, c.weight(4, 1, 1))))
    assert count(graph) == {"conv": 1, "mul": 1, "max": 1}


def test_large_weights_are_not_copied() -> None:
    c = CaseBuilder("large")
    weights = c.weight(4, 5)
    y = c.op("mul", c.op("matmul", c.input(2, 4), weights), c.weight(5))
    graph = _folded(c, y, max_elements=19)
    assert count(graph) == {"matmul": 1, "mul": 1}
    assert graph.nodes[0].inputs[1] is weights


def test_arithmetic_is_exact_before_it_is_rounded() -> None:
    c = CaseBuilder("exact")
    weights, scale = c.weight(4, 5), c.weight(5)
    graph = _folded(c, c.op("mul", c.op("matmul", c.input(2, 4), weights), scale))
    exact = weights.data.astype(np.float64) * scale.data.astype(np.float64)
    np.testing.assert_array_equal(graph.nodes[0].inputs[1].data, exact.astype(np.float32))
