"""Quantised data and weights: products of bytes, and the same results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from quantised_graphs import MOVE, PASSES, TURN, WINDOW, data, number, passed, the, weights
from rewriting import count
from suites.case import F32, I8, I32, U8, CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.decisions import Decision
from tensmith.compiler.ir import DType, constant
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.byte_products import ByteProducts
from tensmith.passes.precision.integer_products import IntegerProducts


@pytest.mark.parametrize(("dtype", "zero"), [(U8, 0), (U8, 200), (I8, 0), (I8, -128), (I8, 5)])
def test_convolution(dtype: DType, zero: int) -> None:
    c = CaseBuilder("convolution")
    x = data(c, 1, 8, 6, 7, dtype=dtype, zero=zero)
    graph = passed(c, c.op("conv", x, weights(c, 12, 8, 3, 3), **WINDOW))
    conv = the(graph, "conv")
    assert [v.dtype for v in (*conv.inputs, conv.output)] == [U8, I8, I32]
    assert conv.attrs["pad_value"] == (zero if dtype is U8 else zero + 128)
    assert count(graph)["pad"] == count(graph)["bitxor"] == 0


@pytest.mark.parametrize(
    ("channels", "groups", "kernel", "pads"),
    [(8, 1, (3, 3), (1, 0, 1, 2)), (1, 1, (1, 6), (0, 0, 0, 0)), (6, 6, (3, 2), (0, 1, 2, 0)),
     (8, 2, (2, 2), (0, 0, 0, 0))],
)  # fmt: skip
def test_channels_last(
    channels: int, groups: int, kernel: tuple[int, int], pads: tuple[int, ...]
) -> None:
    c = CaseBuilder("channels_last")
    x = c.input(1, 7, 9, channels, dtype=I8, low=-128, high=128)
    wide = c.op("add", c.op("cast", x, dtype=I32), number(3, I32))
    w = c.weight(*kernel, channels // groups, 12, dtype=I32, low=-127, high=128)
    attrs = {**WINDOW, "pads": pads, "strides": (1, 2), "groups": groups}
    c.output(c.op("conv", wide, w, layout="NHWC", **attrs))
    graph = c.graph()
    inputs = {"x0": np.random.default_rng(0).integers(-128, 128, (1, 7, 9, channels), np.int8)}
    wanted = run_graph(graph, inputs)
    run_passes(graph, (ByteProducts(),))
    assert the(graph, "conv").inputs[0].dtype is U8
    np.testing.assert_array_equal(run_graph(graph, inputs)["y0"], wanted["y0"])


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


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_convolutions_of_integers_with_a_bias_are_of_bytes(layout: str) -> None:
    """As QLinearConv is read: the bias is of the sums' type."""
    c = CaseBuilder("biased")
    last = layout == "NHWC"
    x = c.input(*((1, 6, 7, 8) if last else (1, 8, 6, 7)), dtype=U8, low=0, high=256)
    wide = c.op("sub", c.op("cast", x, dtype=I32), number(9, I32))
    w = c.weight(*((3, 3, 8, 12) if last else (12, 8, 3, 3)), dtype=I32, low=-127, high=128)
    bias = c.weight(12, dtype=I32, low=-900, high=900)
    c.output(c.op("conv", wide, w, bias, layout=layout, **WINDOW))
    graph = c.graph()
    inputs = {"x0": np.random.default_rng(0).integers(0, 256, x.shape, np.uint8)}
    wanted = run_graph(graph, inputs)
    run_passes(graph, (ByteProducts(),))
    assert the(graph, "conv").inputs[0].dtype is U8
    np.testing.assert_array_equal(run_graph(graph, inputs)["y0"], wanted["y0"])


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
    for zero, products in ((128, 1), (3, 2), (0, 2)):
        c = CaseBuilder("unsigned")
        w = weights(c, 16, 12, axis=-1, dtype=U8, zero=zero)
        graph = passed(c, c.op("matmul", data(c, N, 16), w))
        assert count(graph)["matmul"] == products, zero
        assert all(n.inputs[1].dtype is I8 for n in graph.nodes if n.op == "matmul")


@pytest.mark.parametrize("dtype", [DType.I4, DType.U4, DType.I2])
@pytest.mark.parametrize("scales", [1, 12])
def test_weights_of_few_bits_meet_bytes_as_bytes(dtype: DType, scales: int) -> None:
    """Convolutions, and matrix products whose weights the model has the other way round."""
    for shape, kind in (((12, 8, 3, 3), "conv"), ((12, 16), "matmul")):
        c = CaseBuilder("few_bits")
        count = int(np.prod(shape)) * int(dtype.value[1:]) // 8
        packed = c.weight(count, dtype=U8, low=0, high=256)
        q = c.op("unpack", packed, dtype=dtype, shape=shape)
        scale = c.weight(scales, *(1,) * (len(shape) - 1), low=0.001, high=0.01)
        w = c.op("dequantize", q, scale, constant(np.array(1).astype(dtype.numpy)))
        if kind == "conv":
            graph = passed(c, c.op("conv", data(c, 1, 8, 6, 7), w, **WINDOW))
        else:
            turned = c.op("transpose", w, perm=(1, 0))
            graph = passed(c, c.op("matmul", data(c, 5, 16), turned))
        product = the(graph, kind)
        assert [v.dtype for v in (*product.inputs, product.output)] == [U8, I8, I32]


@pytest.mark.parametrize(("op", "groups"), [("matmul", 1), ("conv", 1), ("conv", 2), ("conv", 8)])
def test_columns_may_have_zero_points_of_their_own(op: str, groups: int) -> None:
    """Those of the weights of one column are within 8 bits, and those of all are not."""
    c = CaseBuilder("columns")
    shape = (16, 8) if op == "matmul" else (8, 8 // groups, 3, 3)
    steps = [n if n == 8 and at == (op == "matmul") else 1 for at, n in enumerate(shape)]
    zero = constant(np.arange(0, 256, 36, dtype=np.uint8).reshape(steps))
    p = c.weight(*shape, dtype=U8, low=0, high=256)
    w = c.op("dequantize", p, c.weight(*steps, low=0.001, high=0.01), zero)
    x = data(c, 5, 16) if op == "matmul" else data(c, 1, 8, 6, 7)
    graph = passed(c, c.op(op, x, w, **({} if op == "matmul" else {**WINDOW, "groups": groups})))
    products = [n for n in graph.nodes if n.op == op]
    assert len(products) == 2  # with the weights, and with ones
    assert all(n.attrs["accumulate"] for n in products)


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


@pytest.mark.parametrize(("step", "bias"), [(0.0, 1.0), (1e-30, 1.0), (0.02, 1e38)])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_no_step_holds_warns_nobody(step: float, bias: float) -> None:
    c = CaseBuilder("huge")
    y = c.op("matmul", data(c, 3, 16), weights(c, 16, 12, axis=1))
    y = c.op("max", c.op("add", y, c.op("mul", c.weight(12), c.scalar(bias))), c.scalar(-1.5))
    c.output(c.op("quantize", y, c.scalar(step), number(100, U8)))
    graph = c.graph()
    run_passes(graph, PASSES)
    assert the(graph, "matmul").output.dtype is I32
