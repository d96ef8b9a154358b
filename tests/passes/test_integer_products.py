"""Quantised data and weights: products of bytes, and the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from rewriting import count, same_results
from suites.case import F32, I8, I32, U8, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Decision
from tensmith.compiler.ir import DType, Graph, Node, Value, constant
from tensmith.compiler.pass_manager import Fixpoint, run_passes
from tensmith.passes.pipeline import SIMPLIFY
from tensmith.passes.precision.byte_products import ByteProducts
from tensmith.passes.precision.integer_products import IntegerProducts
from tensmith.passes.precision.lower_quantisation import LowerQuantisation
from tensmith.passes.precision.quantised_movement import QuantisedMovement
from tensmith.passes.precision.unsigned_bytes import UnsignedBytes

MOVE = Fixpoint((UnsignedBytes(), QuantisedMovement(), *SIMPLIFY))
TURN = Fixpoint((UnsignedBytes(), *SIMPLIFY))
PASSES = (MOVE, IntegerProducts(), TURN, ByteProducts(), Fixpoint(SIMPLIFY))
WINDOW = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}


def number(value: int, dtype: DType) -> Value:
    return constant(np.array(value, dtype.numpy))


def data(c: CaseBuilder, *shape: Any, dtype: DType = U8, zero: int = 13) -> Value:
    """An input that is quantised to bytes, and back."""
    x = c.input(*shape)
    scale, point = c.scalar(1 / 64), number(zero, dtype)
    return c.op("dequantize", c.op("quantize", x, scale, point), scale, point)


def weights(c: CaseBuilder, *shape: int, axis: int = 0, dtype: DType = I8, zero: int = 0) -> Value:
    """Constant bytes with a scale for each step of an axis (-1: one), dequantised."""
    low, high = (0, 256) if dtype is U8 else (-128, 128)
    p = c.weight(*shape, dtype=dtype, low=low, high=high)
    steps = [n if at == axis else 1 for at, n in enumerate(shape)] if axis >= 0 else []
    return c.op("dequantize", p, c.weight(*steps, low=0.001, high=0.01), number(zero, dtype))


def passed(c: CaseBuilder, result: Value) -> Graph:
    """The graph after the passes, found to compute the same floats, or bytes but for ties."""
    c.output(result)
    graph = c.graph()
    rng = np.random.default_rng(3)
    inputs = {
        value.name: rng.uniform(-2, 2, [n if isinstance(n, int) else 3 for n in value.shape])
        .astype(np.float32) for value in graph.inputs
    }  # fmt: skip
    want = run_graph(graph, inputs)
    run_passes(graph, PASSES)
    got = run_graph(graph, inputs)
    if result.dtype is F32:
        same_results(want, got, rtol=1e-5, atol=1e-5)
    else:
        steps = np.abs(got["y0"].astype(int) - want["y0"].astype(int))
        assert steps.max() <= 1
        assert (steps > 0).mean() < 0.002
    run_passes(graph, (LowerQuantisation(), Fixpoint(SIMPLIFY)))
    lowered = run_graph(graph, inputs)
    if result.dtype is F32:
        same_results(got, lowered, rtol=1e-6, atol=1e-6)
    else:
        np.testing.assert_array_equal(got["y0"], lowered["y0"])
    return graph


def the(graph: Graph, op: str) -> Node:
    [node] = [node for node in graph.nodes if node.op == op]
    return node


@pytest.mark.parametrize(("dtype", "zero"), [(U8, 0), (U8, 200), (I8, 0), (I8, -128), (I8, 5)])
def test_convolution(dtype: DType, zero: int) -> None:
    c = CaseBuilder("convolution")
    x = data(c, 1, 8, 6, 7, dtype=dtype, zero=zero)
    graph = passed(c, c.op("conv", x, weights(c, 12, 8, 3, 3), **WINDOW))
    conv = the(graph, "conv")
    assert [v.dtype for v in (*conv.inputs, conv.output)] == [U8, I8, I32]
    assert conv.attrs["pad_value"] == (zero if dtype is U8 else zero + 128)
    assert count(graph)["pad"] == count(graph)["bitxor"] == 0


def test_a_bias_by_the_scale_of_the_sums_joins_them() -> None:
    for same in (True, False):
        c = CaseBuilder("bias")
        x, w = data(c, 1, 8, 6, 7), weights(c, 12, 8, 3, 3)
        assert w.producer is not None
        scale = w.producer.inputs[1].data
        assert scale is not None
        own = constant((scale.reshape(-1) / 64 * (1 if same else 1.5)).astype(np.float32))
        bias = c.weight(12, dtype=I32, low=-900, high=900)
        bias = c.op("dequantize", bias, own, number(0, I32))
        graph = passed(c, c.op("conv", x, w, bias, **WINDOW))
        floats = [n for n in graph.nodes if n.op == "add" and n.output.dtype is F32]
        assert len(floats) == (0 if same else 1)


def test_a_bias_of_floats_is_added_to_floats() -> None:
    c = CaseBuilder("bias")
    x, w = data(c, N, 16), weights(c, 16, 12, axis=1)
    graph = passed(c, c.op("add", c.op("matmul", x, w), c.weight(12)))
    assert the(graph, "matmul").output.dtype is I32


@pytest.mark.parametrize("clip", [(), ("max", 0.0), ("min", 1.5)])
def test_sums_are_requantised_within_their_range(clip: tuple[Any, ...]) -> None:
    c = CaseBuilder("requantised")
    y = c.op("conv", data(c, 1, 8, 6, 7), weights(c, 12, 8, 3, 3), **WINDOW)
    y = c.op(clip[0], y, c.scalar(clip[1])) if clip else y
    graph = passed(c, c.op("quantize", y, c.scalar(0.02), number(100, U8)))
    ops = count(graph)
    assert ops["rint"] == 2
    assert ops["quotient"] == 1, "one factor scales and divides; the data is divided once"


def test_several_readers_get_the_floats() -> None:
    c = CaseBuilder("readers")
    y = c.op("matmul", data(c, N, 16), weights(c, 16, 12, axis=1))
    q = c.op("quantize", y, c.scalar(0.02), number(100, U8))
    c.output(q)
    graph = passed(c, c.op("sigmoid", y))
    assert the(graph, "matmul").output.dtype is I32


def test_depthwise_convolutions_add_up_in_floats() -> None:
    c = CaseBuilder("depthwise")
    x = data(c, 1, 6, 5, 5, zero=77)
    w = weights(c, 6, 1, 3, 3)
    y = c.op("conv", x, w, **WINDOW, groups=6)
    graph = passed(c, c.op("quantize", y, c.scalar(0.02), number(100, U8)))
    conv = the(graph, "conv")
    assert [v.dtype for v in (*conv.inputs, conv.output)] == [U8, F32, F32]
    assert conv.attrs["pad_value"] == 77
    casts = [n for n in graph.nodes if n.op == "cast" and n.inputs[0].dtype is I32]
    assert all(n.output.dtype is not F32 for n in casts), "sums need not be converted"


def test_weights_with_scales_are_transposed_as_bytes() -> None:
    c = CaseBuilder("transposed")
    w = c.op("transpose", weights(c, 12, 16, axis=0), perm=(1, 0))
    graph = passed(c, c.op("matmul", data(c, 5, 16), w))
    assert the(graph, "matmul").output.dtype is I32


def test_scales_of_channels_are_folded_into_depthwise_convolutions() -> None:
    c = CaseBuilder("depthwise")
    scale, zero = c.weight(6, 1, 1, low=0.01, high=0.1), number(128, U8)
    x = c.op("dequantize", c.op("quantize", c.input(1, 6, 5, 5), scale, zero), scale, zero)
    graph = passed(c, c.op("conv", x, weights(c, 6, 1, 3, 3), **WINDOW, groups=6))
    assert the(graph, "conv").inputs[0].dtype is U8


@pytest.mark.parametrize(("channels", "kind"), [(1, F32), (2, F32), (3, I32), (6, I32), (7, I32)])
def test_channels_that_make_no_groups(channels: int, kind: DType) -> None:
    c = CaseBuilder("few")
    x = data(c, 1, channels, 6, 7, zero=99)
    graph = passed(c, c.op("conv", x, weights(c, 8, channels, 3, 3), **WINDOW))
    assert the(graph, "conv").output.dtype is kind


def test_unsigned_weights_are_moved_to_signed_ones() -> None:
    for zero, products in ((128, 1), (3, 2)):
        c = CaseBuilder("unsigned")
        w = weights(c, 16, 12, axis=-1, dtype=U8, zero=zero)
        graph = passed(c, c.op("matmul", data(c, N, 16), w))
        assert count(graph)["matmul"] == products, zero
        assert all(n.inputs[1].dtype is I8 for n in graph.nodes if n.op == "matmul")


def test_asymmetric_weights_of_a_padded_convolution() -> None:
    c = CaseBuilder("asymmetric")
    w = weights(c, 12, 8, 3, 3, axis=-1, dtype=U8, zero=3)
    graph = passed(c, c.op("conv", data(c, 1, 8, 6, 7), w, **WINDOW))
    assert count(graph)["conv"] == 2


def test_a_scale_that_a_run_computes() -> None:
    """Data that is quantised by its own range, each row by its own or all by one."""
    for shape in ((), (3, 1)):
        c = CaseBuilder("dynamic")
        scale, zero = c.input(*shape, low=1, high=2), number(128, U8)
        x = c.op("dequantize", c.op("quantize", c.input(3, 16), scale, zero), scale, zero)
        graph = passed(c, c.op("matmul", x, weights(c, 16, 12, axis=1)))
        assert the(graph, "matmul").output.dtype is I32


def test_what_stays_in_floats() -> None:
    """Scales that change along the sum, and weights that a run makes."""
    c = CaseBuilder("floats")
    w = weights(c, 16, 12, axis=0)
    graph = passed(c, c.op("matmul", data(c, N, 16), w))
    assert the(graph, "matmul").output.dtype is F32
    c = CaseBuilder("floats")
    graph = passed(c, c.op("matmul", data(c, 5, 16), data(c, 16, 7)))
    assert the(graph, "matmul").output.dtype is F32


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


@pytest.mark.parametrize("by_channel", [False, True])
@pytest.mark.parametrize("clipped", [None, (0.0, 6.0)])
def test_what_is_quantised_with_a_bias_of_floats_is_one_step(
    by_channel: bool, clipped: tuple[float, float] | None
) -> None:
    c = CaseBuilder("bias")
    total = c.op("conv", data(c, 1, 8, 6, 6), weights(c, 12, 8, 3, 3), c.weight(12), **WINDOW)
    if clipped:
        total = c.op("min", c.op("max", total, c.scalar(clipped[0])), c.scalar(clipped[1]))
    shape = (12, 1, 1) if by_channel else ()
    step = c.weight(*shape, low=0.01, high=6 / 255)
    zero = constant(np.full(shape, 0 if clipped else 120, np.uint8))
    graph = passed(c, c.op("quantize", total, step, zero))
    assert count(graph)["fma"] == 1
    assert count(graph)["quotient"] == 1  # the input
    assert count(graph)["max"] == count(graph)["min"] == 0


def test_depthwise_data_by_channel_have_one_zero_point_if_all_are_equal() -> None:
    """Exporters write a zero point for every channel, all of them 0."""
    c = CaseBuilder("depthwise")
    scale, zero = c.weight(12, 1, 1, low=0.01, high=0.02), constant(np.zeros((12, 1, 1), np.uint8))
    x = c.op("dequantize", c.op("quantize", c.input(1, 12, 6, 6), scale, zero), scale, zero)
    graph = passed(c, c.op("conv", x, weights(c, 12, 1, 3, 3), groups=12, **WINDOW))
    assert the(graph, "conv").attrs["accumulate"] is not None


def test_ranges_that_differ_by_channel_are_clipped_before() -> None:
    c = CaseBuilder("ranges")
    total = c.op("conv", data(c, 1, 8, 6, 6), weights(c, 12, 8, 3, 3), **WINDOW)
    total = c.op("min", total, c.scalar(1.0))
    step = constant(np.linspace(0.004, 0.02, 12, dtype=np.float32).reshape(12, 1, 1))
    zero = constant(np.zeros((12, 1, 1), np.uint8))
    graph = passed(c, c.op("quantize", total, step, zero))
    assert count(graph)["min"] == 1
    assert count(graph)["quotient"] == 2


def test_decisions_are_told_with_the_reason() -> None:
    c = CaseBuilder("told")
    x, w = data(c, 5, 16), weights(c, 16, 12, axis=1)
    c.output(
        c.op("matmul", x, w),
        c.op("matmul", c.input(5, 16), w),
        c.op("matmul", x, c.weight(16, 12)),
        c.op("matmul", x, weights(c, 16, 12, axis=0)),
        c.op("matmul", x, data(c, 16, 7)),
        c.op("matmul", data(c, 2, 5, 16), weights(c, 2, 16, 12, axis=2)),
        c.op("matmul", c.input(5, 16), c.weight(16, 12)),
        c.op("matmul", c.input(5, 16, dtype=I32), c.weight(16, 12, dtype=I32)),
        c.op(
            "matmul", c.op("cast", c.input(5, 16, dtype=U8), dtype=I32), c.input(16, 12, dtype=I32)
        ),
    )
    told: list[Decision] = []
    turn = (TURN, ByteProducts(told.append))
    run_passes(c.graph(), (MOVE, IntegerProducts(told.append), *turn))
    assert [(d.precision, d.reason) for d in told] == [
        ("fp32", "its data is not quantised"),
        ("fp32", "its weights are floats"),
        ("fp32", "the scale of an operand changes along the sum"),
        ("fp32", "its matrices are small"),
        ("fp32", "its weights are several matrices"),
        ("int8", ""),
        ("int32", "its matrices are small"),
    ]


def moved(c: CaseBuilder, result: Value) -> Graph:
    c.output(result)
    graph = c.graph()
    rng = np.random.default_rng(3)
    inputs = {v.name: rng.uniform(-2, 2, v.type.static_shape).astype(np.float32)
              for v in graph.inputs}  # fmt: skip
    want = run_graph(graph, inputs)
    run_passes(graph, [MOVE])
    same_results(want, run_graph(graph, inputs), rtol=0, atol=0)
    return graph


def test_bytes_are_moved_not_floats() -> None:
    c = CaseBuilder("moved")
    x = data(c, 2, 6, 4, 4)
    y = c.op("transpose", x, perm=(0, 2, 3, 1))
    y = c.op("pad", c.op("reshape", y, shape=(2, 16, 6)), pads=(0, 1, 0, 0, 1, 0), mode="constant")
    y = c.op("slice", c.op("max", y, c.scalar(0)), starts=(0, 0, 1), stops=(2, 18, 5),
             steps=(1, 1, 1))  # fmt: skip
    graph = moved(c, y)
    assert graph.nodes[-1].op == "dequantize"
    assert all(node.output.dtype is U8 for node in graph.nodes[:-1])


def test_pooling_and_concat_by_one_scale() -> None:
    c = CaseBuilder("pooled")
    window = {"kernel": (2, 2), "strides": (2, 2), "pads": (0, 0, 1, 1), "dilations": (1, 1),
              "ceil_mode": False}  # fmt: skip
    parts = [c.op("max_pool", data(c, 1, 3, 5, 5), **window) for _ in range(2)]
    graph = moved(c, c.op("concat", *parts, axis=1))
    assert graph.nodes[-1].op == "dequantize"
    assert count(graph)["dequantize"] == 1


def test_quantising_again_by_the_same_scale_goes() -> None:
    c = CaseBuilder("again")
    y = c.op("transpose", data(c, 3, 4), perm=(1, 0))
    graph = moved(c, c.op("quantize", y, c.scalar(1 / 64), number(13, U8)))
    assert count(graph) == {"quantize": 1, "transpose": 1}
    c = CaseBuilder("other")
    y = c.op("transpose", data(c, 3, 4), perm=(1, 0))
    graph = moved(c, c.op("quantize", y, c.scalar(1 / 32), number(13, U8)))
    assert count(graph)["quantize"] == 2


def test_quantising_rises_above_movement() -> None:
    c = CaseBuilder("risen")
    y = c.op("transpose", c.op("sigmoid", c.input(3, 4)), perm=(1, 0))
    graph = moved(c, c.op("quantize", y, c.scalar(1 / 255), number(0, U8)))
    assert [node.op for node in graph.nodes] == ["sigmoid", "quantize", "transpose"]


def test_signed_bytes_are_made_unsigned() -> None:
    """Also where others read them, moved, or as they are."""
    c = CaseBuilder("signed")
    q = c.op("quantize", c.input(2, 8, 6, 6), c.scalar(1 / 64), number(-3, I8))
    x = c.op("dequantize", q, c.scalar(1 / 64), number(-3, I8))
    y = c.op("conv", x, weights(c, 8, 8, 3, 3), **WINDOW)
    graph = passed(c, c.op("add", y, x))
    assert all(v.dtype is not I8 for node in graph.nodes for v in node.outputs)
    c = CaseBuilder("output")
    q = c.op("quantize", c.input(2, 3), c.scalar(1 / 64), number(-3, I8))
    graph = moved(c, c.op("transpose", q, perm=(1, 0)))
    assert [node.op for node in graph.nodes] == ["quantize", "transpose", "bitxor", "bitcast"]
