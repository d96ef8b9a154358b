"""What products are: rows, columns, batch and depth of the usual ones."""

from __future__ import annotations

import pytest
from kernels import fused_nodes
from suites.case import CaseBuilder, N

from tensmith.compiler.ir import DType
from tensmith.compiler.kernel.contraction import UNKNOWN_EXTENT, Contraction, contraction_of
from tensmith.compiler.kernel.forms.region import lower_region

WINDOW = {"strides": (1, 1), "pads": (1,) * 4, "dilations": (1, 1), "layout": "NHWC"}


def contraction(case: CaseBuilder) -> Contraction:
    """That of the only stage with reductions."""
    stages = [
        stage
        for node in fused_nodes(case.graph(), level=0)
        for stage in lower_region(node.regions[0]).kernel.stages
        if stage.reductions
    ]
    [stage] = stages
    return contraction_of(stage)


def extents(found: Contraction) -> tuple[list, list, list, int]:
    axes = (found.batch, found.rows, found.columns)
    return *([axis.extent for axis in part] for part in axes), found.depth  # type: ignore[return-value]


def product(*shapes: tuple) -> CaseBuilder:
    c = CaseBuilder("product")
    c.output(c.op("matmul", *(c.input(*shape) for shape in shapes)))
    return c


def convolution(groups: int, channels: int, outputs: int) -> CaseBuilder:
    c = CaseBuilder("convolution")
    weights = c.weight(3, 3, channels // groups, outputs)
    c.output(c.op("conv", c.input(1, 8, 9, channels), weights, **WINDOW, groups=groups))
    return c


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        (product((5, 7), (7, 11)), ([], [5], [11], 7)),
        (product((3, 5, 7), (3, 7, 11)), ([3], [5], [11], 7)),
        (product((3, 5, 7), (1, 7, 11)), ([], [15], [11], 7)),
        (product((5, N), (N, 11)), ([], [5], [11], UNKNOWN_EXTENT)),
        (convolution(1, 4, 16), ([], [8, 9], [16], 36)),
        (convolution(16, 16, 16), ([16], [8, 9], [], 9)),
    ],
    ids=["matrix", "batch", "shared", "symbolic", "convolution", "depthwise"],
)
def test_axes(case: CaseBuilder, expected: tuple[list, list, list, int]) -> None:
    found = contraction(case)
    batch, rows, columns, depth = extents(found)
    assert [n for n in batch if n != 1] == expected[0]
    assert [n for n in rows if n != 1] == expected[1]
    assert columns == expected[2]
    assert depth == expected[3]
    assert found.accumulate is DType.F32
    assert found.beside == 1


def test_what_rows_and_lanes_share() -> None:
    found = contraction(product((5, 7), (7, 11)))
    (row,), (column,) = found.rows, found.columns
    (right,) = found.common(column.name, row.name)
    (left,) = found.by_row(column.name, row.name)
    assert found.products[0] is not None
    assert (left, right) == (found.products[0].left, found.products[0].right)
    assert (right.stride(column.name), right.stride(row.name)) == (1, 0)
    assert found.common(row.name, column.name) == (left,)


def test_sums_are_no_products() -> None:
    c = CaseBuilder("sum")
    c.output(c.op("reduce_sum", c.op("mul", c.input(4, 6), c.scalar(2)), axes=(1,), keepdims=False))
    found = contraction(c)
    assert found.products == (None,)
    assert found.batch == found.rows == found.columns == ()
    assert len(found.operands) == 1
    assert found.depth == 6
