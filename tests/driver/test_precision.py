"""What `tensmith check` says of precision."""

from __future__ import annotations

import numpy as np
from suites.case import BF16, BOOL, F16, F32, F64, I32, I64, U8, CaseBuilder, N

from tensmith.compiler.ir import Graph, constant
from tensmith.driver.precision import LONG_SUM, Risk, precision_risks


def risks(graph: Graph) -> dict[str, Risk]:
    return {risk.kind: risk for risk in precision_risks(graph)}


def test_a_plain_model_has_none() -> None:
    c = CaseBuilder("graph")
    x = c.input(N, 8)
    c.output(c.op("softmax", c.op("matmul", x, c.weight(8, 4)), axis=1))
    assert risks(c.graph()) == {}


def test_half_floats_and_casts() -> None:
    c = CaseBuilder("graph")
    x, y = c.input(N, dtype=F16), c.input(N, dtype=F64)
    small = c.op("cast", y, dtype=F32)
    c.output(c.op("add", x, x), c.op("cast", small, dtype=BF16), c.op("cast", small, dtype=F64))
    found = risks(c.graph())
    assert found["half"].nodes == ["add_1"]
    assert found["narrowing"].nodes == ["cast_0", "cast_2"]
    assert "16 bits where they are stored: 'add_1' (1)" in str(found["half"])


def test_integers_from_floats_unless_they_are_bounded() -> None:
    c = CaseBuilder("graph")
    x = c.input(N)
    clipped = c.op("min", c.op("max", c.op("round", x), c.scalar(0)), c.scalar(255))
    flag = c.op("cast", c.op("cast", c.op("gt", x, c.scalar(0)), dtype=F32), dtype=I32)
    c.output(c.op("cast", x, dtype=I64), c.op("cast", clipped, dtype=U8), flag)
    found = risks(c.graph())
    assert found["integer_cast"].nodes == ["cast_6"]
    assert found["rounding"].count == 1


def test_long_sums_also_in_regions_and_only_some_examples() -> None:
    c = CaseBuilder("graph")
    cond, x = c.input(dtype=BOOL), c.input(2, LONG_SUM)
    one, other = c.region("then"), c.region("else")
    one.output(one.op("reduce_sum", x, axes=(1,)))
    other.output(other.op("reduce_max", x, axes=(1,), keepdims=False))
    c.output(c.node("if", [cond], {}, [one.graph(), other.graph()]).output)
    for _ in range(7):
        c.output(c.op("matmul", x, c.op("transpose", x, perm=(1, 0))))
    found = risks(c.graph())["long_sum"]
    assert found.count == 8
    assert len(found.nodes) == 5
    assert str(found).endswith(", ... (8)")


def test_constants() -> None:
    c = CaseBuilder("graph")
    x = c.input(2)
    mask = constant(np.float32([0, -np.inf]), "mask")
    tiny = constant(np.float32([1e-40, 1]), "tiny")
    c.output(c.op("add", c.op("mul", x, tiny), mask))
    found = risks(c.graph())
    assert {kind: risk.nodes for kind, risk in found.items()} == {
        "infinite": ["mask"],
        "subnormal": ["tiny"],
    }
