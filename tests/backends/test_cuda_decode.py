"""Attention of few queries and many keys, in parts of these: in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_runs import GpuGraph, inputs_of, needs_triton
from suites.case import F16, F32, CaseBuilder, N, S

from tensmith.backends.cuda.candidates import LEAST_KEY_STEPS, key_parts_of
from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.ir.dims import Dim, evaluate
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.tiles import Kind

Shape = tuple[Dim, ...]


def attention(q: Shape, k: Shape, mask: Shape | None = None, dtype: DType = F32) -> Graph:
    """With an activation behind it, and values of another size."""
    c = CaseBuilder("attention")
    operands = [c.input(*shape, dtype=dtype) for shape in (q, k, (*k[:-1], 20))]
    operands += [c.input(*mask, dtype=dtype)] if mask else []
    c.output(c.op("tanh", c.op("attention", *operands, scale=0.25)))
    return c.graph()


def in_parts(*shapes: Any, parts: int, dtype: DType = F32, target: str = "cuda:sm_80") -> GpuGraph:
    (kernel,) = GpuGraph(attention(*shapes, dtype=dtype), TARGETS[target]).plan.kernels
    given = Choices({kernel.keys[0]: {"tiles": [{"split": parts}]}})
    planned = GpuGraph(attention(*shapes, dtype=dtype), TARGETS[target], choices=given)
    assert [f.tiles.kind for f in planned.functions] == [Kind.ATTENTION, Kind.POINTS]
    assert all(isinstance(f.workspace, int) and f.workspace for f in planned.functions)
    return planned


def check(planned: GpuGraph, inputs: dict[str, Any], tolerance: float = 2e-5) -> Any:
    """Compare with f64; memory that nothing wrote holds what is no number."""
    q, k, v, *mask = (array.astype(np.float64) for array in inputs.values())
    scores = 0.25 * q @ np.swapaxes(k, -1, -2) + (mask[0] if mask else 0)
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(-1, keepdims=True))
        want = np.tanh(powers / powers.sum(-1, keepdims=True) @ v)
    got = planned.run(inputs)["y0"].astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return got


@needs_triton
@pytest.mark.parametrize("parts", [2, 3, 7])
@pytest.mark.parametrize("rows", [1, 21])
def test_parts_of_keys(rows: int, parts: int) -> None:
    """With more parts than blocks of keys, too."""
    shapes = (2, 3, rows, 24), (2, 3, 150, 24)
    check(in_parts(*shapes, parts=parts), inputs_of(attention(*shapes)))


@needs_triton
def test_heads_that_share_keys_and_masks() -> None:
    """What a mask hides wholly in one part counts in the others; what it hides in all is NaN."""
    shapes = (2, 3, 4, 1, 16), (2, 3, 1, 200, 16), (2, 1, 1, 1, 200)
    inputs = inputs_of(attention(*shapes))
    inputs["x3"][0, ..., :120] = -np.inf
    check(in_parts(*shapes, parts=3), inputs)
    inputs["x3"][1] = -np.inf
    with np.errstate(invalid="ignore"):
        got = in_parts(*shapes, parts=3).run(inputs)["y0"]
    assert np.isnan(got[1]).all()
    assert np.isfinite(got[0]).all()


@needs_triton
@pytest.mark.parametrize("keys", [0, 1, 300, 1100])
def test_as_many_keys_as_a_run_has(keys: int) -> None:
    """Few of them are one part, which the first launch computes alone."""
    shapes = (2, 1, 16), (2, S, 16)
    planned = in_parts(*shapes, parts=5)
    inputs = inputs_of(attention(*shapes), s=keys)
    if keys:
        check(planned, inputs)
    else:
        want = run_graph(attention(*shapes), inputs)["y0"]
        np.testing.assert_array_equal(planned.run(inputs)["y0"], want)
    first, second = planned.functions
    steps = -(-keys // first.tiles.depth)
    parts = min(5, max(1, steps // LEAST_KEY_STEPS))
    assert evaluate(first.programs, {"s": keys}) == 2 * parts
    assert (evaluate(second.programs, {"s": keys}) > 0) == (parts > 1)


@needs_triton
@pytest.mark.parametrize("batch", [0, 2, 56])
def test_as_many_queries_as_a_run_has(batch: int) -> None:
    shapes = (N, 4, 16), (N, 40, 16)
    planned = in_parts(*shapes, parts=3)
    check(planned, inputs_of(attention(*shapes), n=batch))


@needs_triton
def test_halves() -> None:
    shapes = (2, 2, 32), (2, 200, 32)
    inputs = inputs_of(attention(*shapes, dtype=F16))
    check(in_parts(*shapes, parts=3, dtype=F16), inputs, 3e-3)


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90, 100, 120])
def test_nothing_spills(architecture: int) -> None:
    shapes = (1, 8, 4, 1, 128), (1, 8, 1, S, 128)
    planned = in_parts(*shapes, parts=8, dtype=F16, target=f"cuda:sm_{architecture}")
    images = compile_all([FunctionJob(f, architecture) for f in planned.functions])
    assert all(image.stack == 0 for image in images)


def test_where_keys_are_divided() -> None:
    target = TARGETS["cuda:sm_90"]
    assert key_parts_of(8, 64, target) > 4
    assert key_parts_of(8, 4, target) == 1
    assert key_parts_of(200, 64, target) == 1
    slow, fast = (replace(target, clock=times * target.clock) for times in (0.25, 4))
    parts = [key_parts_of(8, 32, own) for own in (slow, target, fast)]
    assert parts[0] > parts[-1] == 1, "a launch is as long on every GPU, in cycles it is not"
    for shapes, divided in (
        (((1, 8, 1, 64), (1, 8, 4096, 64)), True),
        (((1, 8, 1, 64), (1, 8, S, 64)), True),
        (((1, 12, 128, 64), (1, 12, 128, 64)), False),
        (((4, 12, 512, 64), (4, 12, 512, 64)), False),
    ):
        planned = GpuGraph(attention(*shapes, dtype=F16), target)
        assert (len(planned.functions) == 2) == divided


def masked(*shapes: Any, parts: int) -> tuple[GpuGraph, dict[str, Any]]:
    """Attention under a mask of the run, in parts, with the inputs for 1500 keys."""
    graph = attention(*shapes)
    (kernel,) = GpuGraph(attention(*shapes)).plan.kernels
    given = Choices({kernel.keys[0]: {"tiles": [{"split": parts}]}})
    planned = GpuGraph(attention(*shapes), choices=given)
    assert planned.functions[0].tiles.looks
    assert planned.functions[0].tiles.depth <= 64
    return planned, inputs_of(graph, s=1500)


@needs_triton
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("keys", [S, 1500])
def test_keys_that_a_mask_of_the_run_hides_are_not_read(keys: Dim, parts: int) -> None:
    """They hold what is no number."""
    shapes = (2, 3, 1, 16), (2, 3, keys, 16), (2, 1, 1, keys)
    planned, inputs = masked(*shapes, parts=parts)
    inputs["x3"][..., :70] = inputs["x3"][..., 300:] = -np.inf
    for name in ("x1", "x2"):
        inputs[name][:, :, :64] = inputs[name][:, :, 320:] = np.nan
    q, k, v, mask = (array.astype(np.float64) for array in inputs.values())
    seen = slice(70, 300)
    scores = 0.25 * q @ np.swapaxes(k[:, :, seen], -1, -2) + mask[:, :, None, 0, seen].reshape(
        2, 1, 1, -1
    )
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    want = np.tanh(weights / weights.sum(-1, keepdims=True) @ v[:, :, seen])
    np.testing.assert_allclose(planned.run(inputs)["y0"], want, rtol=2e-5, atol=2e-5)


@needs_triton
def test_every_block_of_queries_sees_keys_of_its_own() -> None:
    """Query r sees keys up to 100 + r; what none of them sees is not read."""
    shapes = (2, 70, 16), (2, S, 16), (1, 70, S)
    planned, inputs = masked(*shapes, parts=1)
    numbers = np.arange(70)
    inputs["x3"][0] = np.where(np.arange(1500) <= 100 + numbers[:, None], inputs["x3"][0], -1e38)
    finite = {name: array.copy() for name, array in inputs.items()}
    for name in ("x1", "x2"):
        inputs[name][:, 192:] = np.nan
    np.testing.assert_allclose(
        planned.run(inputs)["y0"], run_graph(attention(*shapes), finite)["y0"], rtol=2e-5, atol=2e-5
    )


@needs_triton
def test_queries_that_see_nothing_keep_all_keys() -> None:
    shapes = (2, 2, 16), (2, S, 16), (2, 2, S)
    planned, inputs = masked(*shapes, parts=1)
    inputs["x3"][:, 0, 40:] = inputs["x3"][1, 1] = -3e38
    want = run_graph(attention(*shapes), inputs)["y0"]
    np.testing.assert_allclose(planned.run(inputs)["y0"], want, rtol=2e-5, atol=2e-5)
