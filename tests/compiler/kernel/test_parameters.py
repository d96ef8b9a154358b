"""Kernels whose sizes are computed from others, as parameters of one kernel."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import interpreted, reference, region_inputs
from plan_runs import PlannedGraph
from suites.case import F32, I8, I32, U8, CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.ir.dims import Dim, evaluate, floordiv, symbol
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.kernel import Kernel, kernel_text
from tensmith.compiler.kernel.plan.parameters import parametrised

H, W, N = (symbol(name) for name in "hwn")
SIZES = {"h": 37, "w": 22, "n": 2}


def shifted(*shape: Dim) -> Graph:
    """The mean of every element and the one before it in its row."""
    c = CaseBuilder("shifted")
    x = c.input(*shape)
    none = (0,) * (len(shape) - 1)
    pads = (*none, 1, *none, 0)
    padded = c.op("pad", x, c.scalar(0.0), pads=pads, mode="constant")
    ones = (1,) * len(shape)
    before = c.op("slice", padded, starts=(*none, 0), stops=shape, steps=ones)
    c.output(c.op("mul", c.op("add", x, before), c.scalar(0.5)))
    return c.graph()


def general(*shape: Dim) -> tuple[Kernel, tuple[Dim, ...]]:
    return parametrised(lower_region(shifted(*shape)).kernel)


@pytest.mark.parametrize(
    "shape",
    [
        (N, floordiv(H + 1, 8), floordiv(W + 1, 8)),
        (N, 4 * floordiv(H + 1, 32), 4 * floordiv(W + 1, 32)),
        (N, floordiv(H, 3), 5 * floordiv(W, 4)),
    ],
)
def test_kernels_that_differ_in_sizes_are_one(shape: tuple[Dim, ...]) -> None:
    kernel, _ = general(N, floordiv(H + 1, 2), floordiv(W + 1, 2))
    other, sizes = general(*shape)
    assert kernel_text(kernel) == kernel_text(other)
    assert set(map(str, sizes)) == set(map(str, shape))


@pytest.mark.parametrize(
    "shape",
    [
        (N, 4 * floordiv(H + 1, 8), floordiv(W, 2)),
        (2 * floordiv(H, 3) * floordiv(W, 5),),
        (floordiv(H, 2) + 6, 3 * floordiv(H, 2)),
        (6 * floordiv(H, 2) * floordiv(H, 2) + 4 * floordiv(H, 2), N),
        (H, W + 3),
        (3, 8),
    ],
)
def test_the_general_kernel_computes_the_same(shape: tuple[Dim, ...]) -> None:
    region = shifted(*shape)
    lowered = lower_region(region)
    kernel, values = parametrised(lowered.kernel)
    sizes = {name: evaluate(dim, SIZES) for name, dim in zip(kernel.symbols, values, strict=True)}
    assert "floordiv" not in kernel_text(kernel)
    inputs = region_inputs(region, SIZES, 0)
    got = interpreted(kernel, (lowered.inputs, lowered.outputs), inputs, SIZES | sizes)
    for want, array in zip(reference(region, inputs, SIZES), got.values(), strict=True):
        np.testing.assert_allclose(array, want, rtol=1e-6)


def bordered(dtype: DType, sizes: tuple[int, ...]) -> Graph:
    """Pictures of halved sizes, each with a border of a number of its own kind."""
    c = CaseBuilder("bordered")
    x = c.op("max", c.input(1, *sizes, dtype=dtype, low=0, high=9, name="x"), c.scalar(1, dtype))
    window = {"pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1, "layout": "NHWC"}
    more = {"accumulate": I32} if dtype is U8 else {}
    for stride, zero in ((2, 5), (2, 3), (1, 0)):
        channels = x.shape[-1]
        assert isinstance(channels, int)
        w = c.weight(3, 3, channels, channels + 8, dtype=I8 if dtype is U8 else F32, low=-2, high=3)
        x = c.op(
            "conv", x, w, strides=(stride, stride), pad_value=zero * (dtype is U8), **window, **more
        )
        x = c.op("max", x, c.scalar(1, x.dtype))
        x = c.op("cast", c.op("min", x, c.scalar(9, x.dtype)), dtype=dtype)
    c.output(x)
    return c.graph()


@pytest.mark.parametrize("dtype", [U8, F32])
def test_borders_of_all_sizes_are_one_kernel(dtype: DType) -> None:
    graph = bordered(dtype, (17, 14, 8))
    x = {"x": np.random.default_rng(1).integers(0, 9, (1, 17, 14, 8)).astype(dtype.numpy)}
    [want] = run_graph(graph, x).values()
    planned = PlannedGraph(graph, resolve_target("x86-64-v3")[1])
    [got] = planned.run(x).values()
    np.testing.assert_allclose(got, want, rtol=1e-5)
    numbers = [n for n, k in enumerate(planned.plan.kernels) if k.kernel.operators == ("border",)]
    assert [planned.plan.calls[number] for number in numbers] == [3]
