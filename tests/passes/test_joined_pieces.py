"""Concats of what is moved, read element by element: part of the kernel that reads them, or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_runs import GpuGraph, inputs_of, needs_triton
from rewriting import body, rewritten
from suites.case import BOOL, F16, F32, I64, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Graph, Value
from tensmith.passes.grouping.fusion import Fusion
from tensmith.passes.grouping.joined_pieces import MOST_PIECES

X = "%x: f32[n, 4]"
WHOLE = Fusion(strided=True)
ROTATED = (
    "%a: f32[n, 2] = slice(%x) {starts = (0, 0), steps = (1, 1), stops = (n, 2)}",
    "%b: f32[n, 2] = slice(%x) {starts = (0, 2), steps = (1, 1), stops = (n, 4)}",
    "%m: f32[n, 2] = neg(%b)",
    "%r: f32[n, 4] = concat(%m, %a) {axis = 1}",
    "%s: f32[n, 4] = mul(%r, %x)",
)


def kernels(lines: tuple[str, ...], fusion: Fusion = WHOLE, inputs: str = X) -> list[list[str]]:
    """The operators of every kernel."""
    graph = rewritten(body(inputs, list(lines)), fusion)
    return [[n.op for n in node.regions[0].nodes] for node in graph.nodes if node.op == "fused"]


def read_by(*last: str) -> tuple[str, ...]:
    return (*ROTATED, *last)


def test_a_rotation_is_one_kernel() -> None:
    assert kernels(read_by("%y: f32[n, 4] = add(%s, %x)")) == [
        ["slice", "neg", "slice", "concat", "mul", "add"]
    ]


def test_only_where_launches_cost_more_than_loads() -> None:
    for fusion in (Fusion(), Fusion(strided=True, epilogues=False)):
        assert len(kernels(read_by("%y: f32[n, 4] = add(%s, %x)"), fusion)) > 2


@pytest.mark.parametrize(
    "last",
    [
        ("%t: f32[n, 4] = exp(%r)", "%y: f32[n, 4] = add(%s, %t)"),
        ("%t: f32[n, 1] = reduce_sum(%r) {axes = (1,), keepdims = true}",
         "%y: f32[n, 4] = add(%s, %t)"),
        ("%t: f32[n, 2] = exp(%m)", "%u: f32[n, 2] = add(%t, %m)",
         "%v: f32[n, 1] = reduce_sum(%u) {axes = (1,), keepdims = true}",
         "%y: f32[n, 4] = add(%s, %v)"),
    ],
    ids=["twice", "by a reduction", "a piece"],
)  # fmt: skip
def test_what_others_read_lies_in_memory(last: tuple[str, ...]) -> None:
    assert not [ops for ops in kernels(read_by(*last)) if "concat" in ops and "mul" in ops]


def test_what_a_product_makes_is_written_in_its_place() -> None:
    lines = (
        "%p: f32[n, 2] = matmul(%x, %w)",
        "%m: f32[n, 2] = neg(%p)",
        "%a: f32[n, 2] = slice(%x) {starts = (0, 0), steps = (1, 1), stops = (n, 2)}",
        "%r: f32[n, 4] = concat(%m, %a) {axis = 1}",
        "%y: f32[n, 4] = mul(%r, %x)",
    )
    assert ["matmul", "neg"] in kernels(lines, inputs=f"{X}, %w: f32[4, 2]")


def rotary(dtype: DType, sizes: tuple[Any, ...]) -> Graph:
    """Positions by angles, of heads that a product makes, in halves that lie apart."""
    c = CaseBuilder("rotary")
    heads = c.op("reshape", c.op("matmul", c.input(*sizes, 12, dtype=dtype),
                                 c.weight(12, 24, dtype=dtype)), shape=(*sizes, 4, 6))  # fmt: skip
    x = c.op("transpose", heads, perm=(0, 2, 1, 3))
    ends = [(*x.shape[:3], stop) for stop in (3, 6)]
    first, last = (
        c.op("slice", x, starts=(0, 0, 0, start), stops=stops, steps=(1, 1, 1, 1))
        for start, stops in zip((0, 3), ends, strict=True)
    )
    turned = c.op("concat", c.op("neg", last), first, axis=3)
    angles: list[Value] = [c.input(sizes[1], 6, dtype=dtype) for _ in range(2)]
    c.output(c.op("add", c.op("mul", x, angles[0]), c.op("mul", turned, angles[1])))
    return c.graph()


@needs_triton
@pytest.mark.parametrize("dtype", [F32, F16], ids=str)
@pytest.mark.parametrize("sizes", [(2, 7), (N, 5)], ids=str)
def test_rotations_on_a_gpu(sizes: tuple[Any, ...], dtype: DType) -> None:
    """Two launches, the product's and the rotation's, and the numbers of the reference."""
    planned = GpuGraph(rotary(dtype, sizes))
    assert len(planned.functions) == 2
    inputs = inputs_of(rotary(dtype, sizes), n=3)
    want = run_graph(rotary(dtype, sizes), inputs)
    for name, got in planned.run(inputs).items():
        bound = 1e-5 if dtype is F32 else 4e-3
        np.testing.assert_allclose(got.astype("f4"), want[name].astype("f4"), bound, bound)


def joined(pieces: int, sizes: tuple[Any, ...], dtype: DType) -> Graph:
    """Of inputs of other sizes each, which the graph's caller has made, and one that is moved."""
    c = CaseBuilder("joined")
    given = [c.input(2, *sizes, 3 + n, dtype=dtype) for n in range(pieces)]
    given[0] = c.op("transpose", given[0], perm=(1, 0, 2))
    given[1:] = [c.op("reshape", one, shape=(*sizes, 2, one.shape[-1])) for one in given[1:]]
    c.output(c.op("concat", *given, axis=2))
    return c.graph()


@needs_triton
@pytest.mark.parametrize("dtype", [F32, BOOL, I64], ids=str)
@pytest.mark.parametrize(("pieces", "launches"), [(2, 1), (MOST_PIECES, 1), (MOST_PIECES + 1, 5)])
@pytest.mark.parametrize("sizes", [(7,), (N,)], ids=str)
def test_a_copied_concat_is_one_launch(
    sizes: tuple[Any, ...], pieces: int, launches: int, dtype: DType
) -> None:
    """Where its pieces are few."""
    planned = GpuGraph(joined(pieces, sizes, dtype))
    assert len(planned.functions) == launches
    inputs = inputs_of(joined(pieces, sizes, dtype), n=5)
    want = run_graph(joined(pieces, sizes, dtype), inputs)
    for name, got in planned.run(inputs).items():
        np.testing.assert_array_equal(got, want[name])
