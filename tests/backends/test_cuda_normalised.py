"""Norms that the product which reads them finds anew: for GPUs, in Triton's interpreter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_runs import GpuGraph, needs_triton
from suites.case import BF16, F16, F32, CaseBuilder, N

from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.tiles import Kind
from tensmith.backends.cuda.tuning.spaces import space_of
from tensmith.backends.cuda.vetting import OtherTiles, vetted
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.forms.form import NormalisedForm, form_of
from tensmith.compiler.kernel.forms.region import lower_region
from tensmith.compiler.kernel.interpret import interpret
from tensmith.compiler.kernel.plan.in_place import may_share
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.grouping.normalised_products import FEW_ROWS, NormalisedProducts
from tensmith.passes.simplify.decompose import Decompose


def layer(
    rows: Dim, depth: int, columns: int, *, read: bool = False, dtype: DType = F32, op: str = ""
) -> CaseBuilder:
    """A norm and a product. read: whether something else reads the norm, too."""
    c = CaseBuilder("layer")
    x = c.input(rows, depth, dtype=dtype)
    if op:
        norm = c.op(op, x, axis=1)
    else:
        weights = c.weight(depth, dtype=dtype), c.weight(depth, dtype=dtype)
        norm = c.op("layer_norm", x, *weights, axis=1, epsilon=1e-5)
    attrs = {} if dtype is F32 else {"accumulate": F32}
    product = c.op("matmul", norm, c.weight(depth, columns, dtype=dtype), **attrs)
    c.output(c.op("tanh", c.op("cast", product, dtype=F32) if attrs else product))
    if read:
        c.output(norm)
    return c


def inputs_of(c: CaseBuilder, dtype: DType = F32) -> dict[str, np.ndarray]:
    shape = [40 if dim is N else dim for dim in c.graph().inputs[0].shape]
    rng = np.random.default_rng(0)
    return {"x0": rng.standard_normal(shape).astype(dtype.numpy)}


@needs_triton
@pytest.mark.parametrize("read", [False, True])
@pytest.mark.parametrize("shape", [(40, 24, 100), (9, 70, 16), (130, 33, 40)])
def test_one_kernel_computes_both(shape: tuple[int, int, int], read: bool) -> None:
    c = layer(*shape, read=read)
    inputs = inputs_of(c)
    want = run_graph(c.graph(), inputs)
    graph = GpuGraph(c.graph())
    assert [function.tiles.kind for function in graph.functions] == [Kind.PRODUCT]
    got = graph.run(inputs)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, rtol=2e-4, atol=2e-5)


@needs_triton
def test_halves() -> None:
    c = layer(40, 32, 64, read=True, dtype=F16)
    inputs = inputs_of(c, F16)
    want = run_graph(c.graph(), inputs)
    graph = GpuGraph(c.graph())
    assert [function.tiles.kind for function in graph.functions] == [Kind.PRODUCT]
    got = graph.run(inputs)
    for name, array in want.items():
        np.testing.assert_allclose(got[name].astype("f8"), array.astype("f8"), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("rows", "op", "read"),
    [(N, "", False), (FEW_ROWS + 1, "", False), (40, "softmax", False), (1, "", True)],
)
def test_what_stays_apart(rows: Dim, op: str, read: bool) -> None:
    """Rows that only a run counts, or many; what keeps rows between its stages; one row that is
    read elsewhere, too."""
    graph = GpuGraph(layer(rows, 24, 100, op=op, read=read).graph())
    assert len(graph.functions) == 2


@needs_triton
@pytest.mark.parametrize(("depth", "dtype"), [(24, F16), (24, BF16), (576, F32), (5000, F32)])
def test_one_row(depth: int, dtype: DType) -> None:
    """In one step of the row's reduction, and in several."""
    c = layer(1, depth, 10, dtype=dtype)
    inputs = inputs_of(c, dtype)
    want = run_graph(c.graph(), inputs)["y0"]
    graph = GpuGraph(c.graph())
    assert [function.tiles.kind for function in graph.functions] == [Kind.ROWS]
    bound = {F32: 2e-5, F16: 1e-2, BF16: 6e-2}[dtype]
    got = graph.run(inputs)["y0"]
    np.testing.assert_allclose(got.astype("f8"), want.astype("f8"), rtol=bound, atol=bound)


@needs_triton
@pytest.mark.parametrize(("rows", "dtype"), [(40, F16), (1, F32)])
def test_weights_lie_as_steps_of_sums_read_them(rows: int, dtype: DType) -> None:
    """Side by side, in whole runs of 16 elements."""
    graph = GpuGraph(layer(rows, 24, 100, dtype=dtype).graph())
    (function,) = graph.functions
    packed = [weight for weight in graph.plan.weights if weight.packing is not None]
    assert [weight.size for weight in packed] == [100 * 32 * dtype.bytes]
    assert function.tiles.packed == (0, 32)


def gated() -> CaseBuilder:
    """Two products of a normalised row that meet element by element."""
    c = CaseBuilder("gated")
    x = c.input(1, 1, 40)
    squares = c.op("reduce_mean", c.op("mul", x, x), axes=(2,), keepdims=True)
    norm = c.op("div", x, c.op("sqrt", c.op("add", squares, c.scalar(1e-5))))
    gate, up = (c.op("matmul", norm, c.weight(40, 33)) for _ in range(2))
    c.output(c.op("mul", c.op("sigmoid", gate), up))
    return c


@needs_triton
def test_several_products_of_one_row() -> None:
    inputs = {"x0": np.random.default_rng(0).standard_normal((1, 1, 40)).astype("f4")}
    want = run_graph(gated().graph(), inputs)["y0"]
    graph = GpuGraph(gated().graph())
    assert [function.tiles.kind for function in graph.functions] == [Kind.ROWS]
    np.testing.assert_allclose(graph.run(inputs)["y0"], want, rtol=1e-5, atol=1e-6)


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90, 100, 120])
def test_one_row_spills_nothing(architecture: int) -> None:
    target = TARGETS[f"cuda:sm_{architecture}"]
    (function,) = GpuGraph(layer(1, 2048, 4096).graph(), target).functions
    found = vetted([(function,)], {}, target)
    assert found[function.symbol].excess == 0


@needs_triton
def test_tiles_of_one_row_are_tuned() -> None:
    graph = GpuGraph(layer(1, 576, 1000).graph(), TARGETS["cuda:sm_90"])
    (kernel,) = [planned.kernel for planned in graph.plan.kernels]
    (function,) = graph.functions
    space = space_of(kernel, function.tiles, {}, maps=False, busy=1)
    tiles = set(space.tiles(TARGETS["cuda:sm_90"]))
    assert len(tiles) > 1
    assert all(own.split == 1 for own in tiles)


@needs_triton
@pytest.mark.parametrize("target", ["cuda:sm_80", "cuda:sm_90"])
@pytest.mark.parametrize("dtype", [F32, F16])
def test_nothing_spills(dtype: DType, target: str) -> None:
    """With as many threads as are tried where registers do not suffice."""
    c = layer(128, 768, 2304, read=True, dtype=dtype)
    (function,) = GpuGraph(c.graph(), TARGETS[target]).functions
    more = replace(function.tiles, warps=2 * function.tiles.warps)
    others = OtherTiles(iter([more]), lambda tiles: (replace(function, tiles=tiles),))
    found = vetted([(function,)], {function.symbol: others}, TARGETS[target])
    assert found[function.symbol].excess == 0


def test_the_kernel_means_what_the_operators_do() -> None:
    c = layer(5, 6, 7, read=True)
    graph, inputs = c.graph(), inputs_of(c)
    want = run_graph(c.graph(), inputs)
    for found in (Decompose(), Fusion(), NormalisedProducts()):
        found.run(graph)
    node = next(node for node in graph.nodes if node.op == "fused" and node.attrs["form"])
    assert form_of(node) == NormalisedForm()
    lowered = lower_region(node.regions[0], form_of(node))
    kernel = lowered.kernel
    outer = dict(zip(node.regions[0].inputs, node.inputs, strict=True))
    arrays = {
        buffer.name: inputs["x0"].reshape(-1) if outer[value].data is None
        else np.asarray(outer[value].data).reshape(-1)
        for buffer, value in zip(kernel.params, lowered.inputs, strict=False)
    }  # fmt: skip
    norm, product = np.zeros(30, "f4"), np.zeros(35, "f4")
    results = kernel.params[len(lowered.inputs) :]
    arrays |= dict(zip((buffer.name for buffer in results), (norm, product), strict=True))
    interpret(kernel, arrays)
    np.testing.assert_allclose(product.reshape(5, 7), want["y0"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.reshape(5, 6), want["y1"], rtol=1e-4, atol=1e-5)
    for buffer in kernel.params[: len(lowered.inputs)]:
        for result in results:
            assert not may_share(kernel, frozenset({buffer.name}), result.name)
