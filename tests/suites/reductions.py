"""Cases of reductions, cumulative sums, softmax and layer norm."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .case import BOOL, EXACT, F16, F64, HALF, I8, I32, I64, SUM, Case, CaseBuilder, N, S, unary

_KINDS = ("reduce_sum", "reduce_prod", "reduce_max", "reduce_min", "reduce_mean")


def _reductions() -> Iterator[Case]:
    for op in _KINDS:
        yield unary(op, 5, 19, axes=(1,), tolerance=SUM, label="rows")
        yield unary(op, 5, 19, axes=(0,), keepdims=True, tolerance=SUM, label="columns")
        yield unary(op, 3, 4, 5, axes=(0, 2), tolerance=SUM, label="outer")
    for op in ("reduce_sum", "reduce_max"):
        yield unary(op, 2, 3, 7, 5, axes=(2, 3), tolerance=SUM, label="spatial")
        yield unary(op, 67, axes=(0,), tolerance=SUM, label="all")
        yield unary(op, N, S, axes=(1,), tolerance=SUM, sizes={"n": 3, "s": 37}, label="symbolic")
        yield unary(op, N, 6, axes=(0,), tolerance=SUM, sizes={"n": 9}, label="batch")
        yield unary(op, 4, 9, axes=(1,), dtype=I32, low=-9, high=9, tolerance=EXACT, label="rows")
    yield unary("reduce_sum", 4, 5, axes=(), tolerance=EXACT, label="none")
    yield unary("reduce_sum", 3, 0, axes=(1,), tolerance=EXACT, label="empty")
    yield unary("reduce_max", 3, 0, axes=(1,), tolerance=EXACT, label="empty")
    yield unary("reduce_prod", 3, 1, 4, axes=(1,), tolerance=EXACT, label="one")
    yield unary("reduce_min", 6, 7, axes=(1,), dtype=BOOL, tolerance=EXACT, label="rows")
    yield unary(
        "reduce_mean", 4, 9, axes=(1,), dtype=I64, low=-9, high=9, tolerance=EXACT, label="rows"
    )
    yield unary("reduce_sum", 4, 65, axes=(1,), dtype=F16, tolerance=HALF, label="rows")
    yield unary("reduce_sum", 4, 65, axes=(1,), dtype=F64, tolerance=SUM, label="rows")
    for op in ("argmax", "argmin"):
        yield unary(op, 5, 19, axis=1, tolerance=EXACT, label="rows")
        yield unary(op, 5, 6, 3, axis=1, keepdims=True, tolerance=EXACT, label="middle")
        yield unary(
            op,
            4,
            30,
            axis=1,
            select_last=True,
            dtype=I32,
            low=0,
            high=3,
            tolerance=EXACT,
            label="last",
        )


def _cumulative() -> Iterator[Case]:
    for exclusive in (False, True):
        for reverse in (False, True):
            yield unary(
                "cumsum",
                3,
                11,
                2,
                axis=1,
                exclusive=exclusive,
                reverse=reverse,
                tolerance=SUM,
                label=f"{'ex' if exclusive else 'in'}{'r' * reverse}",
            )
            for shape in ((3, 40, 2), (3, 40)):
                yield unary(
                    "cumsum",
                    *shape,
                    axis=1,
                    exclusive=exclusive,
                    reverse=reverse,
                    tolerance=SUM,
                    label=f"long_{len(shape)}_{'ex' if exclusive else 'in'}{'r' * reverse}",
                )
    yield unary("cumsum", 9, axis=0, dtype=I64, low=-9, high=9, tolerance=EXACT)
    yield unary("cumsum", N, S, axis=1, sizes={"n": 2, "s": 13}, tolerance=SUM, label="symbolic")
    yield unary("cumsum", 2, 90, axis=1, dtype=F16, low=0, high=1, tolerance=HALF, label="long")
    for shape in ((2, 20), (20, 2)):
        yield from _signs_of_zero(shape, int(np.argmax(shape)))
    for dtype in (I8, I32, I64):
        yield unary(
            "cumprod", 40, axis=0, dtype=dtype, low=1, high=4, tolerance=EXACT, label="long"
        )


def _signs_of_zero(shape: tuple[int, int], axis: int) -> Iterator[Case]:
    """Running sums and products of -0, as the infinities of their inverses."""
    x = np.full(shape, -0.0, np.float32)
    for op in ("cumsum_long", "cumprod_long"):
        for attrs in ({}, {"exclusive": True}, {"reverse": True}):

            def build(c: CaseBuilder, op: str = op, attrs: dict[str, Any] = attrs) -> None:
                found = c.op(op, c.input(*shape), axis=axis, **attrs)
                c.output(c.op("div", c.scalar(1), found))

            label = "".join(attrs) or "inclusive"
            yield Case(f"{op}_of_negative_zeros_{axis}_{label}", build, EXACT, given={"x0": x})


def _softmax() -> Iterator[Case]:
    yield unary("softmax", 5, 19, axis=1, label="rows")
    yield unary("softmax", 5, 19, axis=0, label="columns")
    yield unary("softmax", 2, 7, 3, axis=1, label="middle")
    yield unary("softmax", 1, 1, axis=1, label="one")
    yield unary("softmax", N, S, axis=1, sizes={"n": 2, "s": 13}, label="symbolic")
    yield unary("softmax", 3, 1000, axis=1, low=-50, high=50, label="wide", tolerance=SUM)
    yield unary("softmax", 3, 17, axis=1, dtype=F16, tolerance=HALF, label="rows")


def _layer_norm(name: str, bias: bool, axis: int, *shape: int) -> Case:
    def build(c: CaseBuilder) -> None:
        x = c.input(N, *shape)
        normal = (N, *shape)[axis:]
        more = [c.weight(*normal)] if bias else []  # type: ignore[arg-type]
        scale = c.weight(*normal, low=0.5, high=2)  # type: ignore[arg-type]
        c.output(c.op("layer_norm", x, scale, *more, axis=axis, epsilon=1e-5))

    return Case(name, build, SUM, {"n": 3})


CASES: list[Case] = [
    *_cumulative(),
    *_reductions(),
    *_softmax(),
    _layer_norm("layer_norm_rows", True, 1, 33),
    _layer_norm("layer_norm_no_bias", False, 2, 4, 17),
    _layer_norm("layer_norm_two_axes", True, 1, 3, 5),
]
