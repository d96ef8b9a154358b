"""Operator cases as kernels of a GPU, in Triton's interpreter, against the reference.

Memory holds NaN and -1 where nothing was written. What has no device code runs as the host would.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cuda_runs import GpuGraph, needs_triton
from suites.case import CaseBuilder, N
from suites.cases import ALL_CASES, Case, compare

from tensmith.backends.cuda.addressing import LIMIT
from tensmith.backends.reference import run_graph
from tensmith.compiler.ir.assumptions import AT_MOST
from tensmith.compiler.ir.dims import Dim
from tensmith.compiler.kernel.plan.plan import Require

CHUNK = 30
SLOW = {  # for an interpreter: above three seconds each
    "integer_conv_wide_strided", "integer_conv_wide", "integer_matmul_tall", "conv_symbolic_size",
    "integer_matmul_deep", "integer_matmul_tall_of_data", "max_pool_symbolic",
    "avg_pool_symbolic", "integer_matmul_short_groups", "half_matmul_deep",
    "integer_conv_strided", "integer_conv_three", "integer_conv_size_of_data",
    "integer_conv_volume", "integer_conv_grouped", "integer_conv_dilated", "self_attention",
    "integer_conv_wide_border", "joined_channels", "conv_few_channels", "dense_block",
    "integer_conv_pointwise", "integer_matmul_few_rows", "gates_deep", "integer_matmul_groups",
    "attention_symbolic", "cache", "integer_conv_depthwise",
}  # fmt: skip


def fused_already(case: Case) -> bool:
    return any(node.op == "fused" for node in case.graph().nodes)


def chunks() -> Iterator[Any]:
    """Every other case that is quick; the rest where there is time."""
    cases = [c for c in ALL_CASES if not fused_already(c)]
    quick = [case for case in cases if case.name not in SLOW]
    for half, marks in ((quick[::2], ()), (quick[1::2], (pytest.mark.slow,))):
        for start in range(0, len(half), CHUNK):
            part = half[start : start + CHUNK]
            yield pytest.param(part, id=f"{part[0].name}..{part[-1].name}", marks=marks)
    for case in cases:
        if case.name in SLOW:
            yield pytest.param([case], id=case.name, marks=pytest.mark.slow)


@needs_triton
@pytest.mark.parametrize("cases", list(chunks()))
def test_operator_cases(cases: list[Case]) -> None:
    wrong = []
    for case in cases:
        inputs = case.inputs()
        want = run_graph(case.graph(), inputs)
        try:
            got = GpuGraph(case.graph()).run(inputs)
            assert sorted(got) == sorted(want)
            for name, array in want.items():
                compare(name, got[name], array, case.tolerance)
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


def test_what_stays_on_the_host() -> None:
    kept: dict[str, set[str]] = {}
    for case in ALL_CASES:
        if not fused_already(case):
            for reason in GpuGraph(case.graph()).reasons.values():
                kept.setdefault(reason, set()).add(case.name)
    in_order = kept.pop("elements are written one after the other, in order")
    assert all(name.startswith("scatter") for name in in_order)
    others = {name for names in kept.values() for name in names}
    few_bits = (
        "cast_",
        "quantize",
        "dequantize",
        "unpack",
        "digit",
        "requantize",
        "dot2",
        "quantised",
    )
    assert all(name.startswith((*few_bits, "matmul_pairs")) for name in others), others
    assert len(others) <= 40


@needs_triton
@pytest.mark.parametrize("shape", [(3, 5000), (2, 40000), (1, 17)])
@pytest.mark.parametrize("op", ["softmax", "layer_norm", "argmax", "reduce_max"])
def test_rows_of_any_length(op: str, shape: tuple[int, int]) -> None:
    """Rows that fit into registers, and rows that stages go through in several steps."""
    c = CaseBuilder(f"{op}_{shape}")
    x = c.input(*shape)
    if op == "layer_norm":
        ones = c.weight(shape[1]), c.weight(shape[1])
        c.output(c.op(op, x, *ones, axis=1, epsilon=1e-5))
    elif op == "reduce_max":
        c.output(c.op(op, x, axes=(1,), keepdims=False))
    else:
        c.output(c.op(op, x, axis=1))
    case = Case(c.name, lambda b: None)
    graph = c.graph()
    rng_inputs = {"x0": c.rng.standard_normal(shape).astype("float32")}
    want = run_graph(graph, rng_inputs)["y0"]
    got = GpuGraph(graph).run(rng_inputs)["y0"]
    compare("y0", got, want, case.tolerance)


def test_offsets_are_as_wide_as_tensors_ask_for() -> None:
    def sources(*shape: Dim) -> set[str]:
        c = CaseBuilder("wide")
        c.output(c.op("neg", c.op("exp", c.input(*shape))))
        return {function.source for function in GpuGraph(c.graph()).functions}

    assert not any("int64" in source for source in sources(1 << 20))
    assert all("int64" in source for source in sources(1 << 20, 1 << 10))
    c = CaseBuilder("symbolic")
    c.output(c.op("neg", c.input(N, 1 << 20)))
    limits = [step for step in GpuGraph(c.graph()).plan.steps if isinstance(step, Require)]
    assert {(step.relation, step.right) for step in limits} == {(AT_MOST, LIMIT)}
    assert limits[0].left == N * (4 << 20)
