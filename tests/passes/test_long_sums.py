"""Running sums: which are kernels, and which are functions of the runtime."""

from __future__ import annotations

import pytest
from suites.case import CaseBuilder, N

from tensmith.compiler.ir import Dim, DType
from tensmith.passes.simplify.long_sums import SHORT, LongSums


@pytest.mark.parametrize("op", ["cumsum", "cumprod"])
@pytest.mark.parametrize(("length", "long"), [(SHORT, False), (SHORT + 1, True), (N, True)])
def test_only_long_axes_are_summed_by_the_runtime(op: str, length: Dim, long: bool) -> None:
    c = CaseBuilder("sums")
    c.output(c.op(op, c.input(length, 4), axis=0, reverse=True))
    graph = c.graph()
    assert LongSums().run(graph) is long
    assert [node.op for node in graph.nodes] == [f"{op}_long" if long else op]
    assert graph.nodes[0].attrs["reverse"]


@pytest.mark.parametrize(("dtype", "wide"), [(DType.BF16, DType.F32), (DType.U8, DType.I32)])
def test_narrow_elements_are_summed_in_32_bits(dtype: DType, wide: DType) -> None:
    c = CaseBuilder("sums")
    c.output(c.op("cumsum", c.input(3, 40, dtype=dtype), axis=1))
    graph = c.graph()
    assert LongSums().run(graph)
    assert [node.output.dtype for node in graph.nodes] == [wide, wide, dtype]
