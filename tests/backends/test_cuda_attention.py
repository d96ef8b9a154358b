"""Attention as one kernel for GPUs: masks, heads, lengths and types; in Triton's interpreter."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_runs import GpuGraph, needs_triton
from suites.case import BF16, F16, F32, CaseBuilder, S

from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.emit.function import Function
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.tiles import Kind
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import constant
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.ir.types import DType
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.lower import ATTENTION

Shape = tuple[Dim, ...]


def attention(
    q: Shape, k: Shape, mask: Shape | None = None, dtype: DType = F32, values: int | None = None
) -> CaseBuilder:
    c = CaseBuilder("attention")
    operands = [c.input(*shape, dtype=dtype) for shape in (q, k, (*k[:-1], values or k[-1]))]
    operands += [c.input(*mask, dtype=dtype)] if mask else []
    c.output(c.op("attention", *operands, scale=0.25))
    return c


def only_function(c: CaseBuilder) -> Function:
    (function,) = GpuGraph(c.graph()).functions
    assert function.tiles.kind is Kind.ATTENTION
    return function


def checked(c: CaseBuilder, inputs: dict[str, Any], tolerance: float = 2e-5) -> Any:
    """The result, once it is the reference's."""
    want = run_graph(c.graph(), inputs)["y0"].astype(np.float64)
    graph = GpuGraph(c.graph())
    assert graph.functions[0].tiles.kind is Kind.ATTENTION
    got = graph.run(inputs)["y0"].astype(np.float64)
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance)
    return got


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float32) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {f"x{n}": rng.standard_normal(s).astype(dtype) for n, s in enumerate(shapes)}


@needs_triton
@pytest.mark.parametrize(
    ("keys", "apart"),
    [*((keys, (1, 2)) for keys in (1, 31, 32, 33, 100)),
     pytest.param(200, (2, 3), marks=pytest.mark.slow)],
)  # fmt: skip
def test_blocks_of_keys(keys: int, apart: tuple[int, int]) -> None:
    shapes = (*apart, 40, 24), (*apart, keys, 24)
    checked(attention(*shapes), arrays(*shapes, shapes[1]))


@needs_triton
@pytest.mark.parametrize("keys", [0, 5, 70])
def test_as_many_keys_as_a_run_has(keys: int) -> None:
    c = attention((2, 3, 16), (2, S, 16), values=20)
    checked(c, arrays((2, 3, 16), (2, keys, 16), (2, keys, 20)))


@needs_triton
def test_causal_masks_hide_whole_blocks() -> None:
    shape = (2, 100, 16)
    inputs = arrays(shape, shape, shape, (100, 100))
    inputs["x3"] = np.where(np.tri(100, dtype=bool), 0, -np.inf).astype("f4")
    checked(attention(shape, shape, (100, 100)), inputs)
    inputs["x3"] = inputs["x3"][::-1, ::-1].copy()  # the first blocks are hidden, not the last
    checked(attention(shape, shape, (100, 100)), inputs)
    inputs["x3"][7] = -np.inf  # a query that sees nothing has no result
    with np.errstate(invalid="ignore"):
        assert np.isnan(checked(attention(shape, shape, (100, 100)), inputs)[:, 7]).all()


def masked(shape: tuple[int, ...], mask: np.ndarray, dtype: DType = F32) -> CaseBuilder:
    """Attention under a mask that is a constant."""
    c = CaseBuilder("masked")
    operands = [c.input(*shape, dtype=dtype) for _ in range(3)]
    mask = mask.astype(dtype.numpy)
    c.output(c.op("attention", *operands, constant(mask, "mask"), scale=0.25))
    return c


def hiding(seen: np.ndarray, value: float = -np.inf) -> np.ndarray:
    return np.where(seen, np.float32(0), np.float32(value))


MASKS = {
    "causal": (np.tri(100, dtype=bool), (99, 0, 0, 99)),
    "window": (np.tri(100, dtype=bool) & ~np.tri(100, k=-20, dtype=bool), (19, 0, 0, 99)),
    "padding": (np.broadcast_to(np.arange(100) < 30, (100, 100)), (99, 29, 0, 29)),
    "heads": (np.stack([np.tri(100, k=k, dtype=bool) for k in (0, 7)]), (99, 7, 0, 99)),
}


@needs_triton
@pytest.mark.parametrize("name", MASKS)
def test_keys_that_a_constant_hides_are_not_gone_over(name: str) -> None:
    seen, band = MASKS[name]
    mask = hiding(np.array(seen), -np.inf if name == "causal" else -3e38)
    c = masked((2, 100, 16), mask)
    (function,) = GpuGraph(c.graph()).functions
    assert function.tiles.band == band
    checked(c, arrays(*((2, 100, 16),) * 3))


@needs_triton
def test_code_for_a_part_of_the_keys() -> None:
    c = masked((4, 512, 64), hiding(np.tri(512, dtype=bool)), F16)
    (function,) = GpuGraph(c.graph()).functions
    assert function.tiles.band == (511, 0, 0, 511)
    jobs = [FunctionJob(function, architecture) for architecture in (80, 90, 100, 120)]
    assert all(image.stack == 0 for image in compile_all(jobs))


@needs_triton
def test_queries_that_see_nothing_keep_all_keys() -> None:
    """So do those of a mask that hides little, or of one that changes scores only."""
    seen = np.tri(100, dtype=bool)
    seen[40] = False
    c = masked((2, 100, 16), hiding(seen, -3e38))
    (function,) = GpuGraph(c.graph()).functions
    assert function.tiles.band is None
    checked(c, arrays(*((2, 100, 16),) * 3))
    for mask in (hiding(np.tri(100, k=95, dtype=bool)), hiding(np.tri(100, dtype=bool), -5.0)):
        (function,) = GpuGraph(masked((2, 100, 16), mask).graph()).functions
        assert function.tiles.band is None


@needs_triton
def test_what_is_no_number_stays_so() -> None:
    shape = (1, 70, 16)
    inputs = arrays(shape, shape, shape)
    inputs["x1"][0, 65, 3] = np.nan
    assert np.isnan(checked(attention(shape, shape), inputs)).all()


@needs_triton
@pytest.mark.parametrize("rows", [1, 20])
def test_heads_that_share_keys(rows: int) -> None:
    """Groups of queries per head of keys, as `grouped_heads` leaves them."""
    shapes = (2, 3, 4, rows, 16), (2, 3, 1, 50, 16)
    checked(attention(*shapes, mask=(2, 1, 1, 1, 50)), arrays(*shapes, shapes[1], (2, 1, 1, 1, 50)))


@needs_triton
@pytest.mark.parametrize(("dtype", "tolerance"), [(F16, 2e-3), (BF16, 2e-2)])
def test_halves(dtype: DType, tolerance: float) -> None:
    shape = (2, 100, 32)
    inputs = arrays(shape, shape, shape, dtype=dtype.numpy)
    checked(attention(shape, shape, dtype=dtype), inputs, tolerance)


@needs_triton
@pytest.mark.parametrize("dtype", [F32, F16])
@pytest.mark.parametrize("depth", [64, 128, 200])
def test_nothing_spills(depth: int, dtype: DType) -> None:
    shape = (4, 12, 512, depth)
    function = only_function(attention(shape, shape, (4, 1, 1, 512), dtype))
    jobs = [FunctionJob(function, architecture) for architecture in (80, 90, 100, 120)]
    for image in compile_all(jobs):
        assert image.stack == 0
        assert image.shared <= 99 << 10, "blocks of 8.6 and 12.0 have no more"


@needs_triton
@pytest.mark.parametrize(("architecture", "instruction"), [(80, "mma.sync"), (90, "wgmma")])
def test_halves_use_tensor_cores(architecture: int, instruction: str) -> None:
    shape = (16, 12, 512, 64)
    function = only_function(attention(shape, shape, dtype=F16))
    (image,) = compile_all([FunctionJob(function, architecture, ptx=True)])
    assert instruction in image.data.decode()


@pytest.mark.parametrize("depth", [300, "s"])
def test_wide_attention_is_taken_apart(depth: int | str) -> None:
    size = S if depth == "s" else 300
    c = attention((2, 8, size), (2, 8, size))
    assert Kind.ATTENTION not in {f.tiles.kind for f in GpuGraph(c.graph()).functions}


def test_the_kernel_means_what_the_operator_does() -> None:
    shapes = (2, 3, 4), (2, 5, 4), (2, 5, 6), (3, 5)
    c = attention((2, 3, 4), (2, 5, 4), (3, 5), values=6)
    graph = c.graph()
    assert [node.op for node in graph.nodes] == [ATTENTION]
    inputs = arrays(*shapes)
    want = run_graph(graph, inputs)["y0"]
    got = np.zeros(want.size, "f4")
    kernel = lower_region(graph).kernel
    names = [buffer.name for buffer in kernel.params]
    given = [inputs[f"x{n}"].reshape(-1) for n in range(4)]
    interpret(kernel, dict(zip(names, (*given, got), strict=True)))
    np.testing.assert_allclose(got.reshape(want.shape), want, rtol=1e-5, atol=1e-6)


@needs_triton
@pytest.mark.parametrize(
    ("architecture", "queries", "width", "precision", "rows"),
    [
        (80, 128, 64, "fp16", 16),  # fewer blocks than multiprocessors, however many rows they have
        (90, 128, 64, "fp16", 64),
        (100, 128, 128, "tf32", 64),
        (90, 128, 64, "fp32", 16),  # no groups multiply these
        (90, 48, 64, "fp16", 16),
        (90, 128, 160, "fp16", 16),  # registers hold no more
    ],
)
def test_blocks_of_queries(
    architecture: int, queries: int, width: int, precision: str, rows: int
) -> None:
    """As many as a group of warps multiplies, where groups do; else so few that a GPU is busy."""
    c = CaseBuilder("attention")
    c.output(c.op("attention", *(c.input(2, queries, width) for _ in range(3)), scale=0.125))
    target = TARGETS[f"cuda:sm_{architecture}"]
    planned = GpuGraph(c.graph(), target, precision=precision)
    assert [f.tiles.rows for f in planned.functions if f.tiles.kind is Kind.ATTENTION] == [rows]
