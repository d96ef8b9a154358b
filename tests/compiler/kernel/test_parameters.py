"""Kernels whose sizes are computed from others, as parameters of one kernel."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import interpreted, reference, region_inputs
from suites.case import CaseBuilder

from tensmith.compiler.ir import Graph
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
