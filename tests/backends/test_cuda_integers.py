"""Products of bytes as kernels of a GPU, in Triton's interpreter: the integers of the reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_runs import GpuGraph, needs_triton
from quantised_graphs import WINDOW, data, number, weights
from suites.case import I8, I32, U8, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Value
from tensmith.compiler.kernel import expr as ex
from tensmith.compiler.kernel.schedule.tiles import Kind
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.pipeline import optimization_passes


def quantised(c: CaseBuilder, value: Value, dtype: DType = U8, zero: int = 100) -> Value:
    return c.op("quantize", value, c.scalar(0.05), number(zero, dtype))


def matrices(c: CaseBuilder, dtype: DType, zero: int, weight: DType = I8, offset: int = 0) -> None:
    x = data(c, 20, 36, dtype=dtype, zero=zero)
    w = weights(c, 36, 18, axis=1, dtype=weight, zero=offset)
    total = c.op("matmul", x, w)
    c.output(quantised(c, total, dtype, zero), c.op("add", total, c.weight(18)))


def layers(c: CaseBuilder, dtype: DType, zero: int) -> None:
    """Two convolutions of bytes, the first clipped, the second strided, with a float behind."""
    x = data(c, 1, 8, 9, 7, dtype=dtype, zero=zero)
    y = c.op("max", c.op("conv", x, weights(c, 16, 8, 3, 3), c.weight(16), **WINDOW), c.scalar(0.0))
    step, point = c.scalar(0.02), number(zero, dtype)
    y = c.op("dequantize", c.op("quantize", y, step, point), step, point)
    strided = {"strides": (2, 2), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    c.output(c.op("sigmoid", c.op("conv", y, weights(c, 12, 16, 3, 3), **strided)))


def depthwise(c: CaseBuilder) -> None:
    y = c.op("conv", data(c, 1, 6, 7, 5), weights(c, 6, 1, 3, 3), **WINDOW, groups=6)
    c.output(quantised(c, y))


def grouped(c: CaseBuilder) -> None:
    y = c.op("conv", data(c, 1, 16, 5, 6, zero=77), weights(c, 24, 8, 3, 3), **WINDOW, groups=2)
    c.output(quantised(c, y, I8, -3))


def attention(c: CaseBuilder) -> None:
    """Products of bytes that the run makes."""
    q, k = data(c, 2, 32, 24), data(c, 2, 24, 40, dtype=I8, zero=-7)
    c.output(quantised(c, c.op("matmul", q, k)))


def of_the_run(c: CaseBuilder) -> None:
    """Unsigned inputs with a zero point that only the run knows."""
    x, zero = c.input(17, 40, dtype=U8, low=0, high=256), c.input(dtype=U8, low=0, high=256)
    wide = c.op("sub", c.op("cast", x, dtype=I32), c.op("cast", zero, dtype=I32))
    w = c.weight(40, 24, dtype=I32, low=-128, high=128)
    c.output(c.op("matmul", wide, w))


CASES: dict[str, Callable[[CaseBuilder], None]] = {
    "unsigned": lambda c: matrices(c, U8, 13),
    "signed": lambda c: matrices(c, I8, -5),
    "unsigned_weights": lambda c: matrices(c, U8, 0, U8, 131),
    "convolutions": lambda c: layers(c, U8, 0),
    "signed_convolutions": lambda c: layers(c, I8, 3),
    "depthwise": depthwise,
    "grouped": grouped,
    "attention": attention,
    "of_the_run": of_the_run,
}


def built(name: str) -> Graph:
    c = CaseBuilder(name)
    CASES[name](c)
    return c.graph()


def multiplies_bytes(planned: GpuGraph) -> int:
    """How many functions multiply tiles of signed bytes."""
    found = 0
    for kernel in planned.plan.kernels:
        for stage, tiles in zip(kernel.kernel.stages, kernel.schedule.tiles, strict=False):
            loads = [
                part.dtype for r in stage.reductions for part in ex.unique_parts(r.body)
                if isinstance(part, ex.Load)
            ]  # fmt: skip
            found += tiles.kind is Kind.PRODUCT and set(loads) <= {I8, U8}
    return found


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_integers_are_those_of_the_reference(name: str) -> None:
    graph = built(name)
    rng = np.random.default_rng(5)
    inputs = {
        v.name: rng.integers(0, 256, v.type.static_shape).astype("u1") if v.dtype is U8
        else rng.uniform(-2, 2, v.type.static_shape).astype("f4")
        for v in graph.inputs
    }  # fmt: skip
    plain = run_graph(graph, inputs)
    lowered = built(name)
    run_passes(lowered, optimization_passes(2, data=I8))
    want = run_graph(lowered, inputs)
    planned = GpuGraph(built(name))
    products = {"convolutions": 2, "signed_convolutions": 2, "depthwise": 0}
    assert multiplies_bytes(planned) == products.get(name, 1)
    assert all(told.precision == "int8" for told in planned.decisions)
    got = planned.run(inputs)
    for key, array in want.items():
        if array.dtype == np.float32:
            np.testing.assert_allclose(got[key], array, rtol=2e-6, atol=2e-6)
            np.testing.assert_allclose(got[key], plain[key], rtol=1e-2, atol=1e-2)
            continue
        np.testing.assert_array_equal(got[key], array)
        steps = np.abs(got[key].astype(int) - plain[key].astype(int))
        assert steps.max() <= 1
        assert (steps > 0).mean() < 0.01
