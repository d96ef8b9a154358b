"""Weights of few bits in front of products stay packed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tensmith.backends.reference.interpreter import run_graph
from tensmith.compiler.decisions import Decision
from tensmith.compiler.ir import DType, Graph, TensorType, Value, constant, symbol
from tensmith.compiler.ir.ops.packed import pack_digits
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.weight_products import WeightProducts

RNG = np.random.default_rng(0)
ROWS = symbol("rows")
NUMPY = {DType.I4: ml_dtypes.int4, DType.U4: ml_dtypes.uint4, DType.I8: np.int8, DType.U8: np.uint8}


def parameters(shape: tuple[int, ...], dtype: DType, zeros: bool) -> tuple[Value, Value]:
    """Scales, and zero points of a type."""
    scale = constant(RNG.uniform(0.1, 1, shape).astype(np.float32))
    numbers = RNG.integers(1, 7, shape) if zeros else np.zeros((), int)
    return scale, constant(numbers.astype(NUMPY[dtype]))


def stored(b: Builder, dtype: DType, shape: tuple[int, ...]) -> Value:
    """Random weights, packed where several lie in a byte."""
    bits = int(dtype.value[1:])
    numbers = RNG.integers(0, 1 << bits, shape)
    if bits == 8:
        return constant(numbers.astype(np.uint8).view(NUMPY[dtype]))
    packed = constant(pack_digits(numbers.reshape(-1), bits))
    return b.emit("unpack", [packed], {"dtype": dtype, "shape": shape})


def model(
    dtype: DType, shape: tuple[int, int], scales: tuple[int, ...], *,
    turned: bool = False, zeros: bool = True, data: str = "floats",
) -> Graph:  # fmt: skip
    """x times dequantised weights; scales of three axes split the weights' into blocks."""
    b = Builder([])
    q = stored(b, dtype, shape)
    depth = shape[1 if turned else 0]
    x = Value(TensorType(DType.U8 if data == "bytes" else DType.F32, (ROWS, depth)), "x")
    if len(scales) == 3:
        sizes = tuple(n if n > 1 else -1 for n in scales)
        place = sizes.index(-1)
        block = shape[place - 1] // scales[place - 1]
        q = b.emit("reshape", [q], {"shape": (*scales[:place], block, *scales[place + 1 :])})
    real = b.emit("dequantize", [q, *parameters(scales, dtype, zeros)])
    if len(scales) == 3:
        real = b.emit("reshape", [real], {"shape": shape})
    if turned:
        real = b.emit("transpose", [real], {"perm": (1, 0)})
    left: Value = x
    if data == "bytes":
        one = constant(np.float32(0.1))
        left = b.emit("dequantize", [x, one, constant(np.uint8(3))])
    y = b.emit("matmul", [left, real])
    y.name = "y"
    return Graph([x], [y], b.nodes, "g")


def check(graph: Graph, packed: bool = True) -> list[Decision]:
    """Run the pass: the graph computes the same, by a product whose weights are packed."""
    depth = graph.inputs[0].shape[1]
    drawn: Any = RNG.integers(0, 255, (5, depth)).astype(graph.inputs[0].dtype.numpy)
    if graph.inputs[0].dtype is DType.F32:
        drawn = RNG.standard_normal((5, depth)).astype(np.float32)
    want = run_graph(graph, {"x": drawn})["y"]
    told: list[Decision] = []
    run_passes(graph, (WeightProducts(told.append),))
    ops = [node.op for node in graph.nodes]
    assert ("quantised_matmul" in ops, "matmul" in ops) == (packed, not packed)
    got = run_graph(graph, {"x": drawn})["y"]
    np.testing.assert_allclose(got, want, 1e-5, 1e-5 * float(np.abs(want).max()))
    return told


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("turned", [False, True])
def test_blocks_along_the_sum(dtype: DType, turned: bool) -> None:
    shape, scales = ((160, 128), (4, 1, 128)) if not turned else ((160, 128), (160, 4, 1))
    told = check(model(dtype, shape, scales, turned=turned))
    assert [item.precision for item in told] == [f"int{dtype.value[1:]} weights"]


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize(
    ("shape", "scales", "turned"),
    [((130, 127), (1, 127), False), ((127, 130), (127, 1), True), ((130, 127), (), False)],
)
def test_one_scale_for_a_column(
    dtype: DType, shape: tuple[int, int], scales: tuple[int, ...], turned: bool
) -> None:
    """Sums that fill no words are filled up, rows that begin within a byte are taken apart."""
    check(model(dtype, shape, scales, turned=turned))
    check(model(dtype, shape, scales, turned=turned, zeros=False))


def test_scales_along_the_sum_stay() -> None:
    check(model(DType.I8, (128, 160), (128, 1)), packed=False)
    check(model(DType.U4, (128, 160), (128, 5, 1)), packed=False)


def test_few_weights_stay() -> None:
    check(model(DType.I8, (32, 32), (1, 32)), packed=False)


def test_quantised_data_is_left_to_integers() -> None:
    """Weights of 4 bits stay packed all the same."""
    assert check(model(DType.I8, (128, 160), (1, 160), data="bytes"), packed=False) == []
    check(model(DType.I4, (128, 160), (1, 160), data="bytes"))


def moved(q: Value, b: Builder, after: Callable[[Value], Value] | None = None) -> Graph:
    """x times what is made of integers, whose floats are moved by `after`."""
    scale = constant(np.float32(0.1))
    real = b.emit("dequantize", [q, scale, constant(np.zeros((), NUMPY[q.dtype]))])
    real = after(real) if after else real
    x = Value(TensorType(DType.F32, (ROWS, real.shape[0])), "x")
    y = b.emit("matmul", [x, real])
    y.name = "y"
    return Graph([x], [y], b.nodes, "g")


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize(
    ("pads", "mode", "fill", "packed"),
    [
        ((0, 0, 2, 0), "constant", None, True),
        ((0, 0, 2, 3), "constant", 0, True),
        ((0, 0, 0, 2), "constant", 0, True),
        ((2, 0, 0, 0), "constant", None, False),
        ((0, 1, 0, 1), "constant", None, False),
        ((0, 0, -2, 0), "constant", None, False),
        ((0, 0, 2, 0), "constant", 3, False),
        ((0, 0, 2, 0), "edge", None, False),
        ((0, 0, 2, 0), "reflect", None, False),
    ],
)
def test_zeros_behind_weights(
    dtype: DType, pads: tuple[int, ...], mode: str, fill: int | None, packed: bool
) -> None:
    """Nothing else that surrounds weights is taken for them."""
    b = Builder([])
    operands = [stored(b, dtype, (130, 132))]
    if fill is not None:
        operands.append(constant(np.array(fill, NUMPY[dtype])))
    q = b.emit("pad", operands, {"pads": pads, "mode": mode})
    check(moved(q, b), packed=packed)


def test_zeros_within_weights_stay() -> None:
    """They are added to another view than the one that is multiplied, or twice."""
    b = Builder([])
    q = b.emit("reshape", [stored(b, DType.U4, (128, 130))], {"shape": (130, 128)})
    q = b.emit("pad", [q], {"pads": (0, 0, 0, 2), "mode": "constant"})
    check(moved(q, b), packed=False)
    b = Builder([])
    q = b.emit("pad", [stored(b, DType.I8, (128, 130))], {"pads": (0, 0, 0, 2)})
    check(moved(b.emit("pad", [q], {"pads": (0, 0, 0, 2)}), b), packed=False)


@pytest.mark.parametrize("dtype", NUMPY)
def test_weights_that_are_cut_anew_stay(dtype: DType) -> None:
    """Columns of a view are no columns of what is stored where it was transposed in between."""

    def anew(b: Builder, real: Value) -> Value:
        square = b.emit("reshape", [real], {"shape": (128, 128)})
        return b.emit("reshape", [transposed(b, square)], {"shape": (256, 64)})

    b = Builder([])
    check(moved(stored(b, dtype, (64, 256)), b, partial(anew, b)), packed=False)


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize(
    ("shape", "view"), [((128, 129), (64, 258)), ((64, 513), (513, 64)), ((86, 3, 65), (258, 65))]
)
def test_views_of_rows_that_begin_within_a_byte(
    dtype: DType, shape: tuple[int, ...], view: tuple[int, int]
) -> None:
    for turned in (False, True):
        b = Builder([])
        q = b.emit("reshape", [stored(b, dtype, shape)], {"shape": view})
        check(moved(q, b, partial(transposed, b) if turned else None))


def transposed(b: Builder, matrix: Value) -> Value:
    return b.emit("transpose", [matrix], {"perm": (1, 0)})


def test_quantised_data_that_no_bytes_multiply() -> None:
    """Integers take neither blocks along the sum nor data of 16 bits, or of many scales."""
    check(model(DType.U8, (160, 128), (4, 1, 128), data="bytes"))
    for dtype, scale in (
        (np.int16, constant(np.float32(0.1))),
        (np.uint8, constant(RNG.uniform(0.1, 1, (160,)).astype(np.float32))),
    ):
        b = Builder([])
        data = Value(TensorType(DType.of(np.dtype(dtype)), (ROWS, 160)), "x")
        left = b.emit("dequantize", [data, scale, constant(np.zeros((), dtype))])
        q, one = stored(b, DType.I8, (160, 128)), constant(np.float32(0.1))
        y = b.emit("matmul", [left, b.emit("dequantize", [q, one, constant(np.int8(0))])])
        y.name = "y"
        check(Graph([data], [y], b.nodes, "g"))


def test_packed_bytes_are_those_of_the_file() -> None:
    graph = model(DType.U4, (160, 128), (160, 4, 1), turned=True)
    packed = graph.nodes[0].inputs[0].data
    assert packed is not None
    check(graph)
    [product] = [node for node in graph.nodes if node.op == "quantised_matmul"]
    assert product.inputs[1].data is not None
    assert np.shares_memory(product.inputs[1].data, packed)
