"""Products of lower precision as kernels of a GPU, in Triton's interpreter, against the reference.

The reference is the graph in that precision, evaluated in float64; what f32 sums differ by, and
roundings that fall to the other side for it, is within the tolerance of the type.
"""

from __future__ import annotations

import numpy as np
import pytest
from cuda_runs import TARGET, GpuGraph, needs_triton
from suites.case import BF16, BRAIN, F16, F32, HALF, U8, CaseBuilder, Tolerance
from suites.cases import ALL_CASES, compare

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import UsageError
from tensmith.compiler.ir import DType, Graph
from tensmith.compiler.kernel.schedule.tiles import Kind
from tensmith.driver.halves import InPrecision
from tensmith.driver.request import CompileRequest

CUT = Tolerance(8e-3, 8e-3)  # 10 bits behind the first are left of either factor
TOLERANCES = {"tf32": CUT, "fp16": HALF, "bf16": BRAIN}
NAMES = (
    "matmul_square", "matmul_odd", "matmul_one_row", "matmul_batch_shared", "matmul_symbolic_rows",
    "conv_3x3_pad_bias", "conv_3x3_stride", "conv_grouped", "conv_depthwise",
    "conv_transpose_2x2_stride", "conv_transpose_grouped", "attention_mask", "linear_residual",
    "squeeze_excite", "gates", "two_layers",
)  # fmt: skip
CASES = {case.name: case for case in ALL_CASES if case.name in NAMES}


def in_precision(graph: Graph, precision: str) -> Graph:
    InPrecision(precision, TARGET).rewrite(graph)
    return graph


@needs_triton
@pytest.mark.parametrize("precision", TOLERANCES)
def test_operator_cases(precision: str) -> None:
    assert len(CASES) == len(NAMES)
    wrong = []
    for case in CASES.values():
        inputs = case.inputs()
        want = run_graph(in_precision(case.graph(), precision), inputs)
        got = GpuGraph(case.graph(), precision=precision).run(inputs)
        try:
            for name, array in want.items():
                compare(name, got[name], array, TOLERANCES[precision])
        except AssertionError as error:
            wrong.append(f"{case.name}: {error}")
    assert not wrong, "\n".join(wrong)


def linear(rows: int) -> Graph:
    c = CaseBuilder("linear")
    product = c.op("matmul", c.input(rows, 48), c.weight(48, 40))
    c.output(c.op("add", product, c.weight(40)))
    return c.graph()


@needs_triton
def test_what_tf32_rounds() -> None:
    """Factors have 11 bits: an error that f32 does not have, and no more than theirs."""
    x = {"x0": np.random.default_rng(0).standard_normal((32, 48)).astype("f4")}
    exact = run_graph(linear(32), x)["y0"]
    errors = {}
    for precision in ("fp32", "tf32"):
        planned = GpuGraph(linear(32), precision=precision)
        assert [function.tiles.tf32 for function in planned.functions] == [precision == "tf32"]
        told = [(decision.name, decision.precision) for decision in planned.decisions]
        assert told == ([("matmul_0", "tf32")] if precision == "tf32" else [])
        errors[precision] = np.abs(planned.run(x)["y0"] - exact).max()
    assert errors["fp32"] < 1e-5 < errors["tf32"] < 48 * 2**-9
    few = GpuGraph(linear(1), precision="tf32").decisions
    assert [(told.precision, bool(told.reason)) for told in few] == [("fp32", True)]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_which_products_take_halves(precision: str) -> None:
    for name, made in {
        "linear_residual": [precision], "conv_grouped": [precision], "conv_depthwise": [precision],
        "matmul_square": [precision], "attention_mask": [precision],
        "conv_transpose_grouped": [precision],
    }.items():  # fmt: skip
        graph = CASES[name].graph()
        found = InPrecision(precision, TARGET).rewrite(graph)
        assert [told.precision for told in found] == made, name
        assert not any(told.reason for told in found)


def test_tf32_is_of_gpus() -> None:
    CompileRequest(target="cuda", precision="tf32").resolve()
    with pytest.raises(UsageError, match="the precision tf32 is not there for 'x86-64-v3'"):
        CompileRequest(target="x86-64-v3", precision="tf32").resolve()


@needs_triton
@pytest.mark.parametrize("rows", [1, 24])
@pytest.mark.parametrize("dtype", [F16, BF16, F32])
def test_packed_weights_meet_halves(rows: int, dtype: DType) -> None:
    """Numbers of 4 bits less zero points are exact as halves: what is multiplied by tensor cores is
    what the model says."""
    c = CaseBuilder("packed")
    x = c.input(rows, 128, dtype=dtype)
    wide = x if dtype is F32 else c.op("cast", x, dtype=F32)
    packed = c.weight(48, 64, dtype=U8, low=0, high=256)
    scales = c.weight(48, 4, low=0.01, high=0.1)
    zeros = c.weight(48, 2, dtype=U8, low=0, high=256)
    form = {"bits": 4, "block": 32, "depth": 128, "columns": 48, "signed": False, "zero": 0}
    c.output(c.op("quantised_matmul", wide, packed, scales, zeros, by_column=True, **form))
    drawn = np.random.default_rng(1).standard_normal((rows, 128)).astype(dtype.numpy)
    want = run_graph(c.graph(), {"x0": drawn})["y0"]
    planned = GpuGraph(c.graph())
    tiles = [f for f in planned.functions if "ts_digit" in f.source]
    assert [f.tiles.kind for f in tiles] == [Kind.ROWS if rows == 1 else Kind.PRODUCT]
    if rows > 1 and dtype is not F32:
        assert f"tl.{dtype.numpy}" in tiles[0].source
    np.testing.assert_allclose(planned.run({"x0": drawn})["y0"], want, rtol=1e-5, atol=1e-5)
