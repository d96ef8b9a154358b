"""Quantising and dequantising that nothing else took, as pointwise operators."""

from __future__ import annotations

import numpy as np
import pytest
from quantised_graphs import WINDOW, data, number, weights
from suites.case import F32, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.pipeline import optimization_passes
from tensmith.passes.precision.lower_quantisation import LowerQuantisation


def dequantised(dtype: DType, zero: int, scale: DType = F32) -> Graph:
    """Integers of 7 channels as floats, each channel by a scale of its own."""
    c = CaseBuilder("dequantised")
    x = c.input(5, 7, dtype=dtype, low=-100 if dtype.is_signed else 0, high=100, name="x")
    scales = c.weight(7, dtype=scale, low=0.5, high=2)
    zeros = c.weight(7, dtype=dtype, low=zero, high=zero + 1)
    c.output(c.op("dequantize", x, scales, zeros))
    return c.graph()


@pytest.mark.parametrize(
    ("dtype", "zero", "ops"),
    [
        (DType.I32, 0, ["cast", "mul"]),
        (DType.I32, 9, ["sub", "cast", "mul"]),
        (DType.I8, 0, ["cast", "mul"]),
        (DType.I8, 9, ["cast", "sub", "mul"]),
        (DType.U16, 9, ["cast", "sub", "mul"]),
    ],
)
def test_only_what_differs_in_type_is_cast(dtype: DType, zero: int, ops: list[str]) -> None:
    graph = dequantised(dtype, zero)
    info = np.iinfo(dtype.numpy)
    rng = np.random.default_rng(4)
    given = {"x": rng.integers(max(info.min, -999), min(info.max, 999), (5, 7)).astype(dtype.numpy)}
    want = run_graph(graph, given)
    run_passes(graph, (LowerQuantisation(),))
    assert [node.op for node in graph.nodes] == ops
    casts = [node for node in graph.nodes if node.op == "cast"]
    assert all(node.inputs[0].dtype is not node.output.dtype for node in casts)
    for name, array in run_graph(graph, given).items():
        np.testing.assert_array_equal(array, want[name])


def test_layouts_are_chosen_while_quantising_is_one_operator() -> None:
    """What passes go through is no longer than the model."""
    c = CaseBuilder("quantised")
    total = c.op("conv", data(c, 1, 8, 6, 6), weights(c, 16, 8, 3, 3), **WINDOW, groups=1)
    c.output(c.op("quantize", total, c.scalar(0.5), number(3, DType.U8)))
    graph, seen = c.graph(), dict[str, list[str]]()
    x = np.random.default_rng(5).uniform(-2, 2, (1, 8, 6, 6)).astype(np.float32)
    given = {graph.inputs[0].name: x}
    want = run_graph(graph, given)
    run_passes(
        graph,
        optimization_passes(2),
        dump_after=lambda name, at: seen.update({name: [node.op for node in at.nodes]}),
    )
    assert {"quantize", "requantize"} <= set(seen["layout"])
    assert not {"quotient", "rint"} & set(seen["layout"])
    ops = {node.op for node in graph.walk()}
    assert "rint" in ops
    assert not {"quantize", "requantize"} & ops
    for name, array in run_graph(graph, given).items():
        np.testing.assert_array_equal(array, want[name])
