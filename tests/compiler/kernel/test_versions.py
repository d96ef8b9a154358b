"""Kernels for sizes that have two names and mostly are one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from kernels import interpreted, reference, region_inputs
from suites.case import CaseBuilder

from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import Dim, evaluate, floordiv, symbol
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.plan.versions import Fit, fitted, fitting

B, E, N, M = (symbol(name) for name in "benm")


def regrouped(shape: tuple[Dim, ...], other: tuple[Dim, ...]) -> Graph:
    """x of a shape, reshaped to another, and every element doubled."""
    c = CaseBuilder("regrouped")
    value = c.op("reshape", c.input(*shape), shape=other)
    c.output(c.op("mul", value, c.scalar(2.0)))
    return c.graph()


def two_batches() -> Graph:
    """Heads split by one batch, flattened by another, then summed over the rows."""
    c = CaseBuilder("two_batches")
    heads = c.op("reshape", c.input(E, N, 24), shape=(E, N, 4, 6))
    heads = c.op("transpose", heads, perm=(0, 2, 1, 3))
    flat = c.op("reshape", heads, shape=(4 * B, floordiv(4 * E * N, 4 * B), 6))
    c.output(c.op("reduce_sum", flat, axes=(1,), keepdims=False))
    return c.graph()


def two_sizes() -> Graph:
    """A transposed matrix whose sizes have other names in the result."""
    c = CaseBuilder("two_sizes")
    turned = c.op("transpose", c.input(N, E), perm=(1, 0))
    c.output(c.op("mul", c.op("reshape", turned, shape=(B, M)), c.scalar(2.0)))
    return c.graph()


def windows() -> Graph:
    """Windows of 3 x 3, put together to a map of any size."""
    c = CaseBuilder("windows")
    apart = (B, floordiv(N, 3), floordiv(M, 3), 3, 3, 4)
    x = c.input(B * apart[1] * apart[2], 9, 4)
    turned = c.op("transpose", c.op("reshape", x, shape=apart), perm=(0, 1, 3, 2, 4, 5))
    c.output(c.op("mul", c.op("reshape", turned, shape=(B, N, M, 4)), c.scalar(2.0)))
    return c.graph()


@pytest.mark.parametrize(
    ("make", "fits", "sizes"),
    [
        (two_batches, {Fit("e", "b")}, {"b": 3, "e": 3, "n": 5}),
        (two_sizes, {Fit("n", "m")}, {"b": 2, "e": 2, "n": 7, "m": 7}),
        (windows, {Fit("n", factor=3), Fit("m", factor=3)}, {"b": 2, "n": 6, "m": 9}),
    ],
)
def test_sizes_that_fit_leave_no_division(
    make: Callable[[], Graph], fits: set[Fit], sizes: Mapping[str, int]
) -> None:
    region = make()
    lowered = lower_region(region)
    assert set(fitting(lowered.kernel)) == fits
    for left, right in (fit.condition for fit in fits):
        assert evaluate(left, sizes) == evaluate(right, sizes)
    simpler = fitted(lowered.kernel, tuple(fits))
    assert set(simpler.symbols) <= set(lowered.kernel.symbols)
    text = " ".join(str(index) for stage in simpler.stages for index in stage.all_indices())
    assert "floordiv($" not in text.replace(" ", "")
    assert "mod(" not in text
    inputs = region_inputs(region, sizes, 0)
    got = interpreted(simpler, (lowered.inputs, lowered.outputs), inputs, sizes)
    for want, array in zip(reference(region, inputs, sizes), got.values(), strict=True):
        np.testing.assert_allclose(array, want, rtol=1e-5)


@pytest.mark.parametrize(
    ("shape", "other"), [((N, 6), (6, N)), ((B, N, 6), (B, 2, N, 3)), ((B, 12, N), (4 * B, 3, N))]
)
def test_one_name_needs_no_version(shape: tuple[Dim, ...], other: tuple[Dim, ...]) -> None:
    assert not fitting(lower_region(regrouped(shape, other)).kernel)
