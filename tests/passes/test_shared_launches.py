"""Launches less on GPUs: pieces computed where they are copied, kernels of one shape as one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cuda_runs import GpuGraph, inputs_of, needs_triton
from rewriting import body, rewritten
from suites.case import F16, F32, CaseBuilder, N, S

from tensmith.backends.cuda.compiling import FunctionJob, compile_all
from tensmith.backends.cuda.targets import TARGETS
from tensmith.backends.cuda.vetting import DIVISION_STACK
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Node, Value
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.plan.in_place import may_share
from tensmith.compiler.kernel.schedule.tiles import Kind
from tensmith.passes.grouping.computed_pieces import ComputedPieces
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.grouping.shared_launches import MOST_RESULTS, SharedLaunches
from tensmith.passes.grouping.whole_concats import WholeConcats

X = "%x: f32[n, 4], %c: f32[n, 4]"


def fits(_: Node) -> bool:
    return True


PIECES = (Fusion(strided=True), ComputedPieces(fits))
SHARED = (Fusion(strided=True), WholeConcats(), SharedLaunches(fits))


def kernels(lines: list[str], passes: tuple[object, ...], inputs: str = X) -> list[set[str]]:
    """The operators of every kernel."""
    graph = rewritten(body(inputs, lines), *passes)  # type: ignore[arg-type]
    return [{n.op for n in node.regions[0].nodes} for node in graph.nodes if node.op == "fused"]


def test_a_piece_is_computed_where_the_other_one_is_copied() -> None:
    lines = ["%e: f32[n, 4] = exp(%x)", "%y: f32[2*n, 4] = concat(%c, %e) {axis = 0}"]
    assert kernels(lines, PIECES) == [{"exp", "concat"}]


@pytest.mark.parametrize(
    "lines",
    [
        ["%e: f32[n, 4] = exp(%x)", "%t: f32[n, 4] = tanh(%c)",
         "%y: f32[2*n, 4] = concat(%t, %e) {axis = 0}"],
        ["%e: f32[n, 4] = exp(%x)", "%s: f32[n, 1] = reduce_sum(%e) {axes = (1,), keepdims = true}",
         "%z: f32[n, 4] = add(%e, %s)", "%y: f32[2*n, 4] = concat(%c, %z) {axis = 0}"],
    ],
    ids=["all are made in place", "it is a sum"],
)  # fmt: skip
def test_what_is_made_in_place_or_reduced_stays_apart(lines: list[str]) -> None:
    assert {"concat"} in kernels(lines, PIECES)


def test_what_the_device_has_no_code_for_stays_apart() -> None:
    lines = ["%e: f32[n, 4] = exp(%x)", "%y: f32[2*n, 4] = concat(%c, %e) {axis = 0}"]

    def without_exp(node: Node) -> bool:
        return all(inner.op != "exp" for inner in node.regions[0].nodes)

    passes = Fusion(strided=True), ComputedPieces(without_exp), SharedLaunches(without_exp)
    assert kernels(lines, passes) == [{"exp"}, {"concat"}]
    lines = ["%e: f32[n, 4] = exp(%x)", "%t: f32[n, 4] = tanh(%c)",
             "%y: f32[n, 8] = concat(%e, %t) {axis = 1}"]  # fmt: skip
    assert {"exp", "tanh"} in kernels(lines, SHARED)
    assert {"exp"} in kernels(lines, passes)


def test_kernels_of_one_shape_are_one() -> None:
    lines = ["%e: f32[n, 4] = exp(%x)", "%t: f32[n, 4] = tanh(%c)",
             "%p: f32[4, 4] = matmul(%u, %e)", "%q: f32[4, 4] = matmul(%u, %t)",
             "%y: f32[4, 8] = concat(%p, %q) {axis = 1}"]  # fmt: skip
    found = kernels(lines, SHARED, f"{X}, %u: f32[4, n]")
    assert {"exp", "tanh"} in found


def test_what_follows_element_by_element_joins() -> None:
    """A concat that another graph's reader needs, too."""
    lines = ["%k: f32[2*n, 4] = concat(%x, %c) {axis = 0}", "%e: f32[2*n, 4] = exp(%k)",
             "%p: f32[4, 4] = matmul(%u, %e)", "%q: f32[4, 4] = matmul(%u, %k)",
             "%y: f32[4, 8] = concat(%p, %q) {axis = 1}"]  # fmt: skip
    found = kernels(lines, SHARED, f"{X}, %u: f32[4, 2*n]")
    assert any({"concat", "exp"} <= ops for ops in found)


def test_what_is_read_elsewhere_stays_before() -> None:
    lines = ["%k: f32[2*n, 4] = concat(%x, %c) {axis = 0}",
             "%r: f32[2*n, 4] = slice(%k) {starts = (0, 3), steps = (1, -1), stops = (2*n, -1)}",
             "%e: f32[2*n, 4] = exp(%r)",
             "%y: f32[2*n, 8] = concat(%e, %k) {axis = 1}"]  # fmt: skip
    assert not any({"concat", "exp"} <= ops for ops in kernels(lines, SHARED))


def test_what_is_needed_before_stays_before() -> None:
    lines = ["%e: f32[n, 4] = exp(%x)",
             "%s: f32[n, 1] = reduce_sum(%e) {axes = (1,), keepdims = true}",
             "%t: f32[n, 4] = mul(%c, %s)",
             "%y: f32[n, 8] = concat(%e, %t) {axis = 1}"]  # fmt: skip
    found = kernels(lines, SHARED)
    assert not any({"exp", "mul"} <= ops for ops in found)


def test_a_kernel_has_few_results() -> None:
    names = "".join(f", %x{n}: f32[n, 4]" for n in range(MOST_RESULTS + 1))
    lines = [f"%e{n}: f32[n, 4] = exp(%x{n})" for n in range(MOST_RESULTS + 1)]
    all_of_them = ", ".join(f"%e{n}" for n in range(MOST_RESULTS + 1))
    lines += [f"%y: f32[n, {4 * (MOST_RESULTS + 1)}] = concat({all_of_them}) {{axis = 1}}"]
    found = kernels(lines, SHARED, X + names)
    assert found.count({"exp"}) == 2


def decoding(past: Dim, dtype: DType) -> Graph:
    """A step of a decoder: new keys, turned by angles, and values behind those of a cache."""
    c = CaseBuilder("decoding")
    x, angles = c.input(2, 1, 12, dtype=dtype), [c.input(1, 6, dtype=dtype) for _ in range(2)]
    keys, values = (c.input(2, 3, past, 6, dtype=dtype) for _ in range(2))

    def heads() -> Value:
        product = c.op("matmul", x, c.weight(12, 18, dtype=dtype))
        apart = c.op("reshape", product, shape=(2, 1, 3, 6))
        return c.op("transpose", apart, perm=(0, 2, 1, 3))

    def turned(h: Value) -> Value:
        ends = [(*h.shape[:3], stop) for stop in (3, 6)]
        first, last = (
            c.op("slice", h, starts=(0, 0, 0, start), stops=stops, steps=(1, 1, 1, 1))
            for start, stops in zip((0, 3), ends, strict=True)
        )
        other = c.op("concat", c.op("neg", last), first, axis=3)
        return c.op("add", c.op("mul", h, angles[0]), c.op("mul", other, angles[1]))

    q = turned(heads())
    k = c.op("concat", keys, turned(heads()), axis=2)
    v = c.op("concat", values, heads(), axis=2)
    c.output(c.op("attention", q, k, v, scale=0.5), k, v)
    return c.graph()


@needs_triton
@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("past", [7, S, 0], ids=str)
def test_a_step_of_a_decoder(past: Dim, dtype: DType) -> None:
    """Queries, keys and values are one product; queries are turned, the cache is copied, and
    attention is at most two launches."""
    check_decoding(past, dtype, "fp32", 1e-5 if dtype is F32 else 4e-3)


@needs_triton
@pytest.mark.parametrize(("precision", "bound"), [("fp16", 4e-3), ("bf16", 3e-2)])
def test_what_products_read_rounded_is_stored_beside(precision: str, bound: float) -> None:
    """Keys and values of the cache are f32, attention reads halves: no launch more for these."""
    check_decoding(7, F32, precision, bound)


def check_decoding(past: Dim, dtype: DType, precision: str, bound: float) -> None:
    planned = GpuGraph(decoding(past, dtype), precision=precision)
    assert len(planned.functions) <= 4
    inputs = inputs_of(decoding(past, dtype), s=9)
    want = run_graph(decoding(past, dtype), inputs)
    for name, got in planned.run(inputs).items():
        np.testing.assert_allclose(got.astype("f4"), want[name].astype("f4"), bound, bound)


def two_shapes(rows: Dim) -> Graph:
    """Functions of the elements of an input, in their order and in another one."""
    c = CaseBuilder("two shapes")
    e = c.input(rows, 8)
    back = c.op("transpose", c.op("reshape", e, shape=(rows, 2, 4)), perm=(0, 2, 1))
    first, last = c.op("neg", back), c.op("tanh", e)
    c.output(c.op("matmul", first, c.weight(2, 3)), c.op("matmul", last, c.weight(8, 3)))
    return c.graph()


@needs_triton
@pytest.mark.parametrize("rows", [1, 300, N], ids=str)
def test_kernels_of_several_shapes_are_one(rows: Dim) -> None:
    planned = GpuGraph(two_shapes(rows))
    together = [p.kernel for p in planned.plan.kernels if p.kernel.together]
    assert [len(kernel.stages) for kernel in together] == [2]
    for count in (1, 300, 0) if rows is N else (rows,):
        inputs = inputs_of(two_shapes(rows), n=int(count))
        want = run_graph(two_shapes(rows), inputs)
        for name, got in planned.run(inputs).items():
            np.testing.assert_allclose(got, want[name], 1e-5, 1e-5)


def test_what_one_of_them_reads_no_other_one_overwrites() -> None:
    """They may run at the same time; one behind the other the second one could."""
    (kernel,) = [p.kernel for p in GpuGraph(two_shapes(7)).plan.kernels if p.kernel.together]
    names = [buffer.name for buffer in kernel.params]
    operand, results = frozenset(names[:1]), names[len(names) - kernel.outputs :]
    apart = replace(kernel, together=False)
    assert any(may_share(apart, operand, result) for result in results)
    assert not any(may_share(kernel, operand, result) for result in results)


@needs_triton
@pytest.mark.parametrize("architecture", [80, 90, 100, 120])
def test_code_of_several_shapes(architecture: int) -> None:
    planned = GpuGraph(two_shapes(N), TARGETS[f"cuda:sm_{architecture}"])
    functions = [f for f in planned.functions if f.tiles.kind is Kind.POINTS]
    assert functions
    images = compile_all([FunctionJob(function, architecture) for function in functions])
    assert all(image.stack <= DIVISION_STACK for image in images)
