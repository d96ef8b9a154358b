"""Graphs of quantised data and weights, and what the passes of precision make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from rewriting import same_results
from suites.case import F32, I8, U8, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Node, Value, constant
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.passes.precision.byte_products import ByteProducts
from tensmith.passes.precision.integer_products import IntegerProducts
from tensmith.passes.precision.kept_bytes import KeptBytes
from tensmith.passes.precision.lower_quantisation import LowerQuantisation
from tensmith.passes.precision.quantised_movement import QuantisedMovement

MOVE = Fixpoint((KeptBytes(), QuantisedMovement(), *SIMPLIFY))
TURN = Fixpoint((KeptBytes(), *SIMPLIFY))
PASSES = (MOVE, IntegerProducts(), TURN, ByteProducts(), Fixpoint(SIMPLIFY))
WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def number(value: int, dtype: DType) -> Value:
    return constant(np.array(value, dtype.numpy))


def data(c: CaseBuilder, *shape: Any, dtype: DType = U8, zero: int = 13) -> Value:
    """An input that is quantised to bytes, and back."""
    x = c.input(*shape)
    scale, point = c.scalar(1 / 64), number(zero, dtype)
    return c.op("dequantize", c.op("quantize", x, scale, point), scale, point)


def weights(c: CaseBuilder, *shape: int, axis: int = 0, dtype: DType = I8, zero: int = 0) -> Value:
    """Constant bytes with a scale for each step of an axis (-1: one), dequantised."""
    low, high = (0, 256) if dtype is U8 else (-128, 128)
    p = c.weight(*shape, dtype=dtype, low=low, high=high)
    steps = [n if at == axis else 1 for at, n in enumerate(shape)] if axis >= 0 else []
    return c.op("dequantize", p, c.weight(*steps, low=0.001, high=0.01), number(zero, dtype))


def passed(c: CaseBuilder, result: Value) -> Graph:
    """The graph after the passes, found to compute the same floats, or bytes but for ties."""
    c.output(result)
    graph = c.graph()
    rng = np.random.default_rng(3)
    inputs = {
        value.name: rng.uniform(-2, 2, [n if isinstance(n, int) else 3 for n in value.shape])
        .astype(np.float32) for value in graph.inputs
    }  # fmt: skip
    want = run_graph(graph, inputs)
    run_passes(graph, PASSES)
    got = run_graph(graph, inputs)
    if result.dtype is F32:
        same_results(want, got, rtol=1e-5, atol=1e-5)
    else:
        steps = np.abs(got["y0"].astype(int) - want["y0"].astype(int))
        assert steps.max() <= 1
        assert (steps > 0).mean() < 0.002
    run_passes(graph, (LowerQuantisation(), Fixpoint(SIMPLIFY)))
    lowered = run_graph(graph, inputs)
    if result.dtype is F32:
        same_results(got, lowered, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(got["y0"], lowered["y0"])
    return graph


def the(graph: Graph, op: str) -> Node:
    [node] = [node for node in graph.nodes if node.op == op]
    return node
