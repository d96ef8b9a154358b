"""Which values' rounding decides a discrete result."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from suites.case import F16, F32, I32, CaseBuilder, N

from tensmith.compiler.ir import DType, Value
from tensmith.compiler.ir.exactness import adds_exactly, exact_values

Use = Callable[[CaseBuilder, Value], Value]
DISCRETE: dict[str, Use] = {
    "floor": lambda c, y: c.op("floor", y),
    "round": lambda c, y: c.op("round", c.op("neg", y)),
    "cast": lambda c, y: c.op("cast", y, dtype=I32),
    "bool": lambda c, y: c.op("cast", y, dtype=DType.BOOL),
    "8-bit float": lambda c, y: c.op("cast", y, dtype=DType.F8E4M3FN),
    "half, then integer": lambda c, y: c.op("cast", c.op("cast", y, dtype=F16), dtype=I32),
    "comparison": lambda c, y: c.op("lt", y, c.scalar(1.5)),
    "both sides": lambda c, y: c.op("eq", c.op("abs", y), c.op("max", y, c.scalar(0))),
    "remainder": lambda c, y: c.op("mod", y, c.scalar(1)),
    "place": lambda c, y: c.op("argmax", y, axis=1),
    "order": lambda c, y: c.op("argsort", c.op("transpose", y, perm=(1, 0)), count=1),
    "extreme": lambda c, y: c.op(
        "ceil", c.op("reduce_max", c.op("reshape", y, shape=(8 * N,)), axes=(0,))
    ),
    "jump": lambda c, y: c.op("where", c.op("gt", y, c.scalar(1)), y, c.scalar(0)),
    "other choice": lambda c, y: c.op("where", c.op("gt", y, c.scalar(0)), c.input(N, 8), y),
}
SMOOTH: dict[str, Use] = {
    "alone": lambda c, y: y,
    "product": lambda c, y: c.op("floor", c.op("matmul", y, c.weight(8, 3))),
    "softmax": lambda c, y: c.op("argmax", c.op("softmax", y, axis=1), axis=1),
    "rectified": lambda c, y: c.op("max", y, c.scalar(0)),
    "leaky": lambda c, y: c.op(
        "where", c.op("lt", y, c.scalar(0)), c.op("mul", y, c.scalar(0.1)), y
    ),
    "slopes": lambda c, y: c.op(
        "where", c.op("lt", y, c.scalar(0)), c.op("mul", y, c.weight(8)), y
    ),
    "exponential": lambda c, y: c.op(
        "where", c.op("lt", y, c.scalar(0)), c.op("sub", c.op("exp", y), c.scalar(1)), y
    ),
    "half": lambda c, y: c.op("cast", y, dtype=F16),
}


def scaled(use: Use) -> tuple[Value, set[Value]]:
    c = CaseBuilder("scaled")
    y = c.op("div", c.input(N, 8), c.scalar(3))
    c.output(use(c, y))
    return y, exact_values(c.graph())


@pytest.mark.parametrize("use", DISCRETE)
def test_a_discrete_result_hangs_on_it(use: str) -> None:
    y, exact = scaled(DISCRETE[use])
    assert y in exact


@pytest.mark.parametrize("use", SMOOTH)
def test_nothing_discrete_hangs_on_it(use: str) -> None:
    y, exact = scaled(SMOOTH[use])
    assert y not in exact


def test_the_result_of_a_product_counts_and_its_operands_do_not() -> None:
    c = CaseBuilder("layer")
    x = c.op("mul", c.input(N, 8), c.scalar(3))
    y = c.op("matmul", x, c.weight(8, 3))
    c.output(c.op("floor", c.op("max", y, c.scalar(0))))
    exact = exact_values(c.graph())
    assert y in exact
    assert x not in exact


def test_through_regions() -> None:
    c = CaseBuilder("rounds")
    x = c.op("mul", c.input(N, 8), c.scalar(3))
    outside = c.op("mul", c.input(N, 8), c.scalar(7))
    body = c.region("body")
    step, going, state = body.input(dtype=DType.I64), body.input(dtype=DType.BOOL), body.input(N, 8)
    moved = body.op("add", state, outside)
    body.results = [going, moved]
    trip = c.scalar(3, DType.I64)
    loop = c.node("loop", [trip, c.scalar(1, DType.BOOL), x], {"bound": ()}, [body.graph()])
    c.output(c.op("floor", loop.output))
    assert step.dtype is not F32
    assert {x, outside, moved} <= exact_values(c.graph())


@pytest.mark.parametrize(
    ("weights", "exactly"),
    [
        ([3, -2, 0, 1024], True),
        ([0.375, -2.5], True),
        ([2.0**-20, 3 * 2.0**-22], True),
        ([0.1, 0.3], False),
        ([4097, 1], False),
        ([0, 0], True),
    ],
)
def test_sums_that_do_not_round(weights: list[float], exactly: bool) -> None:
    assert adds_exactly(np.array(weights, np.float32)) is exactly
