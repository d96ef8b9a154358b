"""Products of two quantised operands that the run makes."""

from __future__ import annotations

from typing import Any

import pytest
from quantised_graphs import MOVE, PASSES, TURN, data, number, passed, the
from rewriting import count
from suites.case import F32, I8, I32, U8, CaseBuilder, N

from tensmith.compiler.decisions import Decision
from tensmith.compiler.ir import DType
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.byte_products import ByteProducts
from tensmith.passes.precision.integer_products import IntegerProducts


@pytest.mark.parametrize("depth", [32, 37])
@pytest.mark.parametrize(
    ("left", "right", "sums"),
    [
        ((U8, 0), (U8, 128), 0),
        ((U8, 0), (I8, 0), 0),
        ((U8, 0), (U8, 90), 1),
        ((I8, -128), (I8, 7), 1),
        ((U8, 13), (I8, 0), 1),
        ((I8, 0), (U8, 200), 2),
    ],
)
def test_products_of_two_operands_that_the_run_makes(
    depth: int, left: tuple[DType, int], right: tuple[DType, int], sums: int
) -> None:
    """Zero points leave the sum; each that is not where its operand is signed, or 0, costs the sums
    of the other operand."""
    c = CaseBuilder("data")
    a = data(c, 2, 40, depth, dtype=left[0], zero=left[1])
    b = c.op("transpose", data(c, 2, 24, depth, dtype=right[0], zero=right[1]), perm=(0, 2, 1))
    graph = passed(c, c.op("matmul", a, b))
    product = the(graph, "matmul")
    assert product.attrs["product"] == "dot4"
    assert [v.dtype for v in product.inputs] == [I32, I32]
    assert count(graph)["reduce_sum"] == sums
    assert count(graph)["pad"] == (2 if depth % 4 else 0)


def test_products_of_data_end_in_bytes_as_others_do() -> None:
    c = CaseBuilder("requantised")
    total = c.op("matmul", data(c, 40, 64), data(c, 64, 24, zero=100))
    graph = passed(c, c.op("quantize", total, c.scalar(1 / 8), number(9, U8)))
    assert count(graph)["quotient"] == 2  # the inputs: a sum is scaled by one factor
    assert the(graph, "matmul").attrs["product"] == "dot4"


def test_products_of_data_by_scales_that_the_run_finds() -> None:
    c = CaseBuilder("dynamic")
    x = c.input(40, 64)
    scale = c.op(
        "mul", c.op("reduce_max", c.op("abs", x), axes=(0, 1), keepdims=False), c.scalar(1 / 128)
    )
    point = number(128, U8)
    quantised = c.op("dequantize", c.op("quantize", x, scale, point), scale, point)
    graph = passed(c, c.op("matmul", quantised, data(c, 64, 24)))
    assert the(graph, "matmul").attrs["product"] == "dot4"


def test_a_depth_that_only_one_operand_knows() -> None:
    c = CaseBuilder("one")
    c.output(c.op("matmul", data(c, 40, N), data(c, 64, 24)))
    graph = c.graph()
    run_passes(graph, PASSES)
    assert the(graph, "matmul").output.dtype is F32


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "reason"),
    [
        (40, N, 24, "how many products are added up is known to the run only"),
        (40, 8, 24, "its matrices are small"),
        (40, 64, 8, "its matrices are small"),
        (4, 64, 24, "few rows meet the operand that the run would have to pack"),
    ],
)
def test_products_of_data_that_stay_in_floats(
    rows: int, depth: Any, columns: int, reason: str
) -> None:
    c = CaseBuilder("floats")
    c.output(c.op("matmul", data(c, rows, depth), data(c, depth, columns)))
    told: list[Decision] = []
    graph = c.graph()
    run_passes(graph, (MOVE, IntegerProducts(told.append), TURN, ByteProducts(told.append)))
    assert [(d.precision, d.reason) for d in told] == [("fp32", reason)]
    assert the(graph, "matmul").output.dtype is F32
