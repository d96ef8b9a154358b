"""Machine code of contractions, made without a GPU: the instructions that make them fast.

Every contraction of 64 rows, columns and steps or more is multiplied by tensor cores, in the way of
its architecture; what is loaded ahead is copied 16 bytes at a time, results are stored so, and no
register is spilled.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from cuda_runs import GpuGraph, needs_triton
from quantised_graphs import WINDOW, data, number, weights
from suites.case import F16, F32, I8, U8, CaseBuilder, N, S

from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.emit.function import Function
from tensmith.backends.cuda.sass import SassFacts, disassembler, sass_facts
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import UsageError
from tensmith.compiler.ir import Graph
from tensmith.compiler.ir.dims import evaluate, symbol
from tensmith.compiler.kernel.schedule.tiles import Kind

FLOATS = {80: "HMMA", 90: "HGMMA", 100: "UTCHMMA", 120: "HMMA"}
BYTES = {80: "IMMA", 90: "IGMMA", 100: "UTCIMMA", 120: "IMMA"}
PLAIN = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "layout": "NHWC"}
needs_disassembler = pytest.mark.skipif(
    disassembler() is None, reason="this version of Triton has no cuobjdump"
)


def linear() -> Graph:
    c = CaseBuilder("linear")
    product = c.op("matmul", c.input(64, 192), c.weight(192, 64))
    c.output(c.op("max", c.op("add", product, c.weight(64)), c.scalar(0.0)))
    return c.graph()


def convolution() -> Graph:
    """Rows, columns and steps that are no multiples of a block."""
    c = CaseBuilder("convolution")
    x = c.input(1, 9, 11, 96)
    y = c.op("conv", x, c.weight(3, 3, 96, 80), c.weight(80), groups=1, **PLAIN)
    c.output(c.op("max", y, c.scalar(0.0)))
    return c.graph()


def grouped() -> Graph:
    c = CaseBuilder("grouped")
    x = c.input(1, 8, 8, 128)
    c.output(c.op("conv", x, c.weight(3, 3, 64, 128), groups=2, **PLAIN))
    return c.graph()


def quantised_linear() -> Graph:
    c = CaseBuilder("quantised")
    y = c.op("matmul", data(c, 64, 256), weights(c, 256, 64, axis=1))
    c.output(c.op("quantize", y, c.scalar(0.05), number(3, I8)))
    return c.graph()


def quantised_convolution() -> Graph:
    c = CaseBuilder("quantised")
    y = c.op("conv", data(c, 1, 64, 10, 8), weights(c, 64, 64, 3, 3), **WINDOW)
    c.output(c.op("quantize", y, c.scalar(0.05), number(3, I8)))
    return c.graph()


CASES: dict[str, tuple[Callable[[], Graph], str, dict[int, str]]] = {
    "linear_fp16": (linear, "fp16", FLOATS),
    "linear_bf16": (linear, "bf16", FLOATS),
    "linear_tf32": (linear, "tf32", FLOATS),
    "convolution_fp16": (convolution, "fp16", FLOATS),
    "convolution_tf32": (convolution, "tf32", FLOATS),
    "grouped_fp16": (grouped, "fp16", FLOATS),
    "linear_int8": (quantised_linear, "fp32", BYTES),
    "convolution_int8": (quantised_convolution, "fp32", BYTES),
}


def product_of(graph: Graph, precision: str, architecture: int) -> Function:
    planned = GpuGraph(graph, TARGETS[f"cuda:sm_{architecture}"], precision=precision)
    [function] = [f for f in planned.functions if f.tiles.kind is Kind.PRODUCT]
    return function


def facts_of(function: Function, architecture: int) -> SassFacts:
    (image,) = compile_all([FunctionJob(function, architecture)])
    return sass_facts(image.data)


@needs_triton
@needs_disassembler
@pytest.mark.parametrize("architecture", FLOATS)
@pytest.mark.parametrize("name", CASES)
def test_contractions(name: str, architecture: int) -> None:
    build, precision, instructions = CASES[name]
    found = facts_of(product_of(build(), precision, architecture), architecture)
    assert found.tensor_core == (instructions[architecture],)
    assert found.async_copies
    assert found.wide("LDGSTS") == found.names["LDGSTS"]
    assert found.wide("STG") >= 0.75 * found.names["STG"]
    assert not found.spills


@needs_triton
@needs_disassembler
@pytest.mark.parametrize("architecture", FLOATS)
@pytest.mark.parametrize("precision", ["fp16", "bf16", "tf32"])
def test_attention(precision: str, architecture: int) -> None:
    """Of 64 queries or more, in blocks that the architecture's widest instructions multiply."""
    c = CaseBuilder("attention")
    c.output(c.op("attention", *(c.input(2, 128, 64) for _ in range(3)), scale=0.125))
    planned = GpuGraph(c.graph(), TARGETS[f"cuda:sm_{architecture}"], precision=precision)
    [function] = [f for f in planned.functions if f.tiles.kind is Kind.ATTENTION]
    found = facts_of(function, architecture)
    assert found.tensor_core == (FLOATS[architecture],)
    assert not found.spills


@needs_triton
@needs_disassembler
@pytest.mark.parametrize("architecture", FLOATS)
@pytest.mark.parametrize("bits", [4, 8])
def test_packed_weights(bits: int, architecture: int) -> None:
    """Numbers of few bits meet halves as halves."""
    c = CaseBuilder("packed")
    wide = c.op("cast", c.input(64, 256, dtype=F16), dtype=F32)
    packed = c.weight(64, 256 * bits // 8, dtype=U8, low=0, high=256)
    scales = c.weight(64, 8, low=0.01, high=0.1)
    zeros = c.weight(64, bits, dtype=U8, low=0, high=256)
    form = {"bits": bits, "block": 32, "depth": 256, "columns": 64, "signed": False, "zero": 0}
    c.output(c.op("quantised_matmul", wide, packed, scales, zeros, by_column=True, **form))
    found = facts_of(product_of(c.graph(), "fp32", architecture), architecture)
    assert found.tensor_core == (FLOATS[architecture],)
    assert not found.spills


@needs_triton
@needs_disassembler
def test_exact_floats_use_no_tensor_cores() -> None:
    found = facts_of(product_of(linear(), "fp32", 90), 90)
    assert not found.tensor_core
    assert found.names["FFMA"]
    assert not found.spills


def test_without_a_disassembler_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensmith.backends.cuda.sass.disassembler", lambda: None)
    with pytest.raises(UsageError, match="no cuobjdump"):
        sass_facts(b"")


@needs_triton
@needs_disassembler
def test_strides_that_only_a_run_knows() -> None:
    """Where they are multiples of 16 copies are wide, by a branch of the same function."""
    c = CaseBuilder("strides")
    depth, columns = symbol("k"), symbol("n")
    halves = c.input(64, depth, dtype=F16), c.input(depth, columns, dtype=F16)
    c.output(c.op("matmul", *halves, accumulate=F32))
    planned = GpuGraph(c.graph(), TARGETS["cuda:sm_90"])
    [function] = planned.functions
    assert "% 16 == 0" in function.source
    found = facts_of(function, 90)
    assert found.tensor_core == ("HGMMA",)
    assert found.wide("LDGSTS")
    assert not found.spills
    rng = np.random.default_rng(0)
    for k, n in ((48, 64), (37, 50), (32, 35)):
        a, b = rng.standard_normal((64, k)).astype("f2"), rng.standard_normal((k, n)).astype("f2")
        got = planned.run({"x0": a, "x1": b})["y0"]
        np.testing.assert_allclose(got, a.astype("f8") @ b.astype("f8"), rtol=1e-4, atol=1e-4)


def softmax_of_rows(c: CaseBuilder) -> None:
    c.output(c.op("softmax", c.input(N, S, dtype=F16), axis=1))


def biased_points(c: CaseBuilder) -> None:
    c.output(c.op("tanh", c.op("add", c.input(N, S, dtype=F16), c.input(S, dtype=F16))))


def masked_attention(c: CaseBuilder) -> None:
    heads = [c.input(N, S, 16, dtype=F16) for _ in range(3)]
    c.output(c.op("attention", *heads, c.input(N, S, S, dtype=F16), scale=0.25))


@needs_triton
@needs_disassembler
@pytest.mark.parametrize("build", [softmax_of_rows, biased_points, masked_attention])
def test_rows_that_only_a_run_measures(build: Callable[[CaseBuilder], None]) -> None:
    """Threads load and store 16 bytes at once where rows are multiples of 16 elements."""
    c = CaseBuilder("rows")
    build(c)
    planned = GpuGraph(c.graph(), TARGETS["cuda:sm_90"])
    function = planned.functions[0]
    assert "% 16 == 0" in function.source
    found = facts_of(function, 90)
    assert found.wide("LDG") + found.wide("LDGSTS") >= 2
    assert not found.spills
    rng = np.random.default_rng(0)
    for size in (48, 37):
        sizes = {"n": 3, "s": size}
        shapes = {v.name: [evaluate(dim, sizes) for dim in v.shape] for v in c.graph().inputs}
        inputs = {name: rng.standard_normal(s).astype("f2") for name, s in shapes.items()}
        want = run_graph(c.graph(), inputs)["y0"]
        got = planned.run(inputs)["y0"]
        np.testing.assert_allclose(got.astype("f4"), want.astype("f4"), rtol=3e-3, atol=3e-3)
