"""Sums that several programs add up a part of each: for GPUs, in Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from cuda_models import SM_80, onnx_model
from cuda_runs import GpuGraph, inputs_of, needs_triton
from onnx import helper
from quantised_graphs import data, weights
from suites.case import F16, F32, I32, CaseBuilder, N

import tensmith
from tensmith.backends.cuda.candidates import Problem, candidates
from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.dots import Dot
from tensmith.backends.cuda.fake.install import install
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.vetting import DIVISION_STACK
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import ScheduleError
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.ir.dims import Dim, evaluate
from tensmith.compiler.kernel.schedule.choices import Choices
from tensmith.compiler.kernel.schedule.tiles import Kind, Tiles

PLAIN = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "layout": "NHWC"}


def linear(rows: Dim, depth: Dim, columns: int, dtype: DType = F32) -> Graph:
    """A product, to which the second launch adds another input, and whose tanh it takes."""
    c = CaseBuilder("linear")
    attrs = {} if dtype is F32 else {"accumulate": F32}
    factors = c.input(rows, depth, dtype=dtype), c.input(depth, columns, dtype=dtype)
    c.output(c.op("tanh", c.op("add", c.op("matmul", *factors, **attrs), c.input(rows, columns))))
    return c.graph()


def convolution() -> Graph:
    """A window over 9 steps of 40 each, of odd sizes, with an activation."""
    c = CaseBuilder("convolution")
    found = c.op("conv", c.input(1, 5, 7, 40), c.weight(3, 3, 40, 24), c.weight(24), **PLAIN)
    c.output(c.op("max", found, c.scalar(0.0)))
    return c.graph()


def matrices() -> Graph:
    c = CaseBuilder("matrices")
    c.output(c.op("tanh", c.op("matmul", c.input(3, 17, 130), c.input(3, 130, 21))))
    return c.graph()


def normalised() -> Graph:
    c = CaseBuilder("normalised")
    scales = c.weight(100), c.weight(100)
    norm = c.op("layer_norm", c.input(40, 100), *scales, axis=1, epsilon=1e-5)
    c.output(c.op("tanh", c.op("matmul", norm, c.weight(100, 40))), norm)
    return c.graph()


def integers() -> Graph:
    c = CaseBuilder("integers")
    total = c.op("matmul", data(c, 20, 260), weights(c, 260, 18, axis=1))
    c.output(c.op("add", total, c.weight(18)))
    return c.graph()


def in_parts(build: Callable[[], Graph], parts: int, target: str = "cuda:sm_80") -> GpuGraph:
    """A graph whose products have sums in parts."""
    usual = GpuGraph(build(), TARGETS[target]).plan.kernels
    keys = [k.keys[0] for k in usual if k.schedule.tiles[0].kind is Kind.PRODUCT]
    given = Choices({key: {"tiles": [{"split": parts}]} for key in keys})
    planned = GpuGraph(build(), TARGETS[target], choices=given)
    products = [f for f in planned.functions if f.tiles.kind is Kind.PRODUCT]
    assert [f.tiles.split for f in products] == [parts]
    assert [f.symbol for f in planned.functions if f.workspace] == [
        products[0].symbol, f"{products[0].symbol}_total"
    ]  # fmt: skip
    return planned


def check_linear(planned: GpuGraph, graph: Graph, tolerance: float = 2e-5, **sizes: int) -> None:
    """Compare with f64; memory that nothing wrote holds what is no number."""
    inputs = inputs_of(graph, **sizes)
    x, w, other = (inputs[value.name].astype(np.float64) for value in graph.inputs)
    got = planned.run(inputs)["y0"]
    np.testing.assert_allclose(got, np.tanh(x @ w + other), rtol=tolerance, atol=tolerance)


@needs_triton
@pytest.mark.parametrize("parts", [2, 3, 16])
@pytest.mark.parametrize("shape", [(9, 130, 24), (40, 519, 50)])
def test_products(shape: tuple[int, int, int], parts: int) -> None:
    """With more parts than there are steps, too: some of them add up nothing."""
    planned = in_parts(lambda: linear(*shape), parts)
    check_linear(planned, linear(*shape))


@needs_triton
@pytest.mark.parametrize("rows", [0, 1, 400, 900])
def test_as_many_rows_as_a_run_has(rows: int) -> None:
    """In fewer parts where there are many; where there is one, the second launch has no programs
    and the first stores the results."""
    planned = in_parts(lambda: linear(N, 180, 16), 5)
    assert all(isinstance(function.workspace, int) for function in planned.functions)
    check_linear(planned, linear(N, 180, 16), n=rows)
    product, total = planned.functions
    blocks = -(-rows // product.tiles.rows)
    parts = max(1, min(5, product.tiles.busy // blocks)) if blocks else 1
    (name,) = product.symbols
    assert evaluate(product.programs, {name: rows}) == blocks * parts
    assert (evaluate(total.programs, {name: rows}) > 0) == (parts > 1)


@needs_triton
@pytest.mark.parametrize("steps", [0, 5, 130])
def test_as_many_steps_as_a_run_has(steps: int) -> None:
    check_linear(in_parts(lambda: linear(20, N, 24), 3), linear(20, N, 24), n=steps)


@needs_triton
@pytest.mark.parametrize("build", [convolution, matrices, normalised, integers])
def test_other_products(build: Callable[[], Graph]) -> None:
    planned, graph = in_parts(build, 3), build()
    inputs = inputs_of(graph)
    if build is integers:
        inputs = {n: (8 * a).clip(-100, 100).astype(a.dtype) for n, a in inputs.items()}
    got, want = planned.run(inputs), run_graph(build(), inputs)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=1e-4, atol=1e-4)


@needs_triton
def test_halves_are_added_up_in_floats() -> None:
    check_linear(in_parts(lambda: linear(40, 500, 24, F16), 4), linear(40, 500, 24, F16), 2e-3)


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90, 100, 120])
@pytest.mark.parametrize("rows", [64, N])
def test_code(rows: Dim, architecture: int) -> None:
    """Both functions compile, none spills, products stay those of tensor cores."""
    planned = in_parts(lambda: linear(rows, 2048, 64, F16), 8, f"cuda:sm_{architecture}")
    images = compile_all([FunctionJob(f, architecture) for f in planned.functions])
    assert all(image.stack <= DIVISION_STACK for image in images)


def problem(rows: int, columns: int, depth: int) -> Problem:
    usual = Tiles(Kind.PRODUCT, 64, 64, 64, busy=132)
    return Problem(rows, columns, depth, 1, 1, Dot(DType.F16, DType.F32), 2, usual)


def test_few_results_of_many_steps_are_added_up_in_parts() -> None:
    target = TARGETS["cuda:sm_90"]
    few = problem(16, 64, 16384)
    assert candidates(few, target)[0].split > 1
    assert candidates(replace(few, unknown=True), target)[0].split > 1
    for sizes in [(4096, 4096, 4096), (16, 64, 256), (128, 768, 768)]:
        assert candidates(problem(*sizes), target)[0].split == 1
    assert all(own.split == 1 for own in candidates(replace(few, whole=True), target))


@pytest.mark.parametrize(("parts", "why"), [(0, "1 to 64 parts"), (65, "1 to 64 parts")])
def test_illegal_parts(parts: int, why: str) -> None:
    with pytest.raises(ScheduleError, match=why):
        in_parts(lambda: linear(40, 64, 24), parts)


def test_places_of_parts_fit_32_bits() -> None:
    in_parts(lambda: linear(40, 64, 24), 64)
    with pytest.raises(ScheduleError, match="parts of all sums are more than 2147483647"):
        in_parts(lambda: linear(16384, 64, 4096), 64)


def test_only_products_are_divided() -> None:
    c = CaseBuilder("softmax")
    c.output(c.op("softmax", c.input(8, 40), axis=1))
    (kernel,) = GpuGraph(c.graph()).plan.kernels
    given = Choices({kernel.keys[0]: {"tiles": [{"split": 2}]}})
    with pytest.raises(ScheduleError, match="only sums of products, keys of attention"):
        GpuGraph(c.graph(), choices=given)


@needs_triton
def test_a_library(tmp_path: Any) -> None:
    """What the model of a launch divides is told, and runs."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((12, 8192)).astype("f4")
    v = rng.standard_normal((8192, 24)).astype("f4")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Tanh", ["h"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"]),
    ]
    artifact = tensmith.compile(onnx_model(nodes, {"w": w, "v": v}, 9), target="cuda:sm_80")
    told = [kernel for kernel in artifact.kernels if "parts" in kernel.schedule]
    assert [len(kernel.functions) for kernel in told] == [2]
    assert told[0].choice["tiles"][0]["split"] > 1
    artifact.save(tmp_path / "split.so")
    driver = install()
    driver.be(80, SM_80)
    x = rng.standard_normal((9, 12)).astype("f4")
    got = tensmith.load(tmp_path / "split.so")(x)["y"]
    want = np.tanh(x.astype("f8") @ w) @ v
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)


def reduction(kind: str, rows: int, steps: int, dtype: DType = F32) -> Graph:
    """A reduction of rows, to which the second launch adds another input."""
    c = CaseBuilder("reduction")
    found = c.op(f"reduce_{kind}", c.input(rows, steps, dtype=dtype), axes=(1,), keepdims=False)
    c.output(c.op("add", found, c.input(rows, dtype=dtype)))
    return c.graph()


def columns() -> Graph:
    """Sums down columns: elements of a sum lie apart."""
    c = CaseBuilder("columns")
    c.output(c.op("reduce_sum", c.input(6000, 5), axes=(0,), keepdims=True))
    return c.graph()


@needs_triton
@pytest.mark.parametrize("parts", [None, 7])
@pytest.mark.parametrize(
    ("kind", "dtype"), [("sum", F32), ("max", F32), ("min", I32), ("sum", I32), ("prod", F32)]
)
def test_long_rows_are_reduced_in_parts(kind: str, dtype: DType, parts: int | None) -> None:
    """As predicted, where few programs would take many steps, or as given."""
    steps = 40000 if parts is None else 3001
    graph = reduction(kind, 3, steps, dtype)
    given = Choices()
    if parts:
        (kernel,) = GpuGraph(reduction(kind, 3, steps, dtype)).plan.kernels
        given = Choices({kernel.keys[0]: {"tiles": [{"split": parts, "columns": 256}]}})
    planned = GpuGraph(reduction(kind, 3, steps, dtype), choices=given)
    first, total = planned.functions
    assert first.tiles.kind is Kind.ROWS
    assert first.tiles.split == (parts or first.tiles.split) > 1
    assert total.symbol == f"{first.symbol}_total"
    rng = np.random.default_rng(0)
    x = rng.uniform(0.999, 1.001, (3, steps)) if dtype is F32 else rng.integers(-99, 99, (3, steps))
    other = np.arange(3)
    inputs = {
        value.name: array.astype(dtype.numpy)
        for value, array in zip(graph.inputs, (x, other), strict=True)
    }
    function = {"sum": np.sum, "max": np.max, "min": np.min, "prod": np.prod}[kind]
    wide = inputs[graph.inputs[0].name].astype(np.float64 if dtype is F32 else np.int64)
    np.testing.assert_allclose(planned.run(inputs)["y0"], function(wide, 1) + other, rtol=1e-4)


@needs_triton
def test_sums_down_columns_are_in_parts() -> None:
    planned = GpuGraph(columns())
    assert planned.functions[0].tiles.split > 1
    x = inputs_of(columns())
    np.testing.assert_allclose(
        planned.run(x)["y0"], x["x0"].astype("f8").sum(0, keepdims=True), rtol=1e-4, atol=1e-3
    )


@needs_triton
def test_what_is_not_divided() -> None:
    """Positions, and sizes that only a run knows."""
    positions, unknown = CaseBuilder("positions"), CaseBuilder("unknown")
    positions.output(positions.op("argmax", positions.input(2, 40000), axis=1, keepdims=False))
    unknown.output(unknown.op("reduce_sum", unknown.input(2, N), axes=(1,), keepdims=False))
    for graph in (positions.graph(), unknown.graph()):
        assert [f.tiles.split for f in GpuGraph(graph).functions] == [1]
