"""Rows of tables of few bits are looked up before they are made floats."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tensmith.backends.reference.interpreter import run_graph
from tensmith.compiler.ir import DType, Graph, TensorType, Value, constant, symbol
from tensmith.compiler.ir.ops.packed import pack_digits
from tensmith.compiler.ir.ops.registry import Builder
from tensmith.compiler.pass_manager import run_passes
from tensmith.passes.precision.packed_tables import PackedTables
from tensmith.passes.simplify.dce import DeadCodeElimination

RNG = np.random.default_rng(0)
NUMPY = {
    DType.I4: ml_dtypes.int4, DType.U4: ml_dtypes.uint4, DType.U2: ml_dtypes.uint2,
    DType.I8: np.int8, DType.U8: np.uint8,
}  # fmt: skip
SHAPE = (256, 128)


def table(b: Builder, dtype: DType, shape: tuple[int, int] = SHAPE) -> Value:
    bits = int(dtype.value[1:])
    numbers = RNG.integers(0, 1 << bits, shape)
    if bits == 8:
        return constant(numbers.astype(np.uint8).view(NUMPY[dtype]))
    packed = constant(pack_digits(numbers.reshape(-1), bits))
    return b.emit("unpack", [packed], {"dtype": dtype, "shape": shape})


def looked_up(b: Builder, value: Value, axis: int = 0) -> Graph:
    index = Value(TensorType(DType.I64, (2, symbol("n"))), "i")
    y = b.emit("gather", [value, index], {"axis": axis})
    if y.dtype.is_narrow:
        y = b.emit("cast", [y], {"dtype": DType.I32})
    y.name = "y"
    return Graph([index], [y], b.nodes, "g")


def check(graph: Graph) -> None:
    """The graph computes the same, and makes nothing of the whole table's size."""
    index = np.array([[3, -1, 0], [255, 7, 7]])
    want = run_graph(graph, {"i": index})["y"]
    run_passes(graph, (PackedTables(), DeadCodeElimination()))
    assert "gather" in [node.op for node in graph.nodes]
    size = SHAPE[0] * SHAPE[1]
    assert not [node.op for node in graph.nodes if node.output.type.elements == size]
    np.testing.assert_array_equal(run_graph(graph, {"i": index})["y"], want)


@pytest.mark.parametrize("dtype", NUMPY)
@pytest.mark.parametrize("scales", [(), (1, 128), (256, 1), (256, 4, 1), (1, 4, 1)])
def test_dequantised_tables(dtype: DType, scales: tuple[int, ...]) -> None:
    b = Builder([])
    q = table(b, dtype)
    if len(scales) == 3:
        q = b.emit("reshape", [q], {"shape": (256, 4, 32)})
    scale = constant(RNG.uniform(0.1, 1, scales).astype(np.float32))
    zero = constant(RNG.integers(0, 2, scales).astype(NUMPY[dtype]))
    real = b.emit("dequantize", [q, scale, zero])
    if len(scales) == 3:
        real = b.emit("reshape", [real], {"shape": SHAPE})
    check(looked_up(b, real))


@pytest.mark.parametrize("dtype", [DType.I4, DType.U4, DType.U2])
def test_packed_tables(dtype: DType) -> None:
    b = Builder([])
    check(looked_up(b, table(b, dtype)))


def test_other_lookups_stay() -> None:
    for shape, axis in (((256, 128), 1), ((16, 16), 0)):
        b = Builder([])
        graph = looked_up(b, table(b, DType.I4, shape), axis)
        assert not PackedTables().run(graph)
