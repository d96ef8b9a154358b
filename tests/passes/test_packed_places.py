"""Places of extremes as maxima of integers: which element counts, and where it pays."""

from __future__ import annotations

import numpy as np
import pytest
from suites.case import CaseBuilder, N

from tensmith.backends.reference import run_graph
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.ir import Dim, DType, Graph
from tensmith.compiler.target import CpuTarget
from tensmith.passes.simplify.packed_places import PackedPlaces

ROWS = [
    [1.5, -2, 7, 7, -2, 0, 1e-40, 3],
    [-0.0, 0.0, 0.0, -0.0, 0, 0, 0, -0.0],
    [np.nan, -1, np.nan, -1, -3, np.nan, -3, -2],
    [np.nan] * 8,
    [np.nan, -np.inf, -np.inf, -np.nan, -np.inf, -np.inf, -np.inf, -np.inf],
    [np.nan, np.inf, np.inf, -np.nan, np.inf, np.inf, np.inf, np.inf],
    [-np.inf, np.inf, 3.4e38, -3.4e38, np.inf, -np.inf, 0, np.nan],
]
TYPES = [DType.F32, DType.BF16, DType.F16, DType.I32, DType.U32, DType.I8, DType.U16]


def target(name: str = "x86-64-v4") -> CpuTarget:
    found = resolve_target(name)[1]
    assert isinstance(found, CpuTarget)
    return found


def places(op: str, size: Dim, dtype: DType = DType.F32, axis: int = 1, **more: bool) -> Graph:
    c = CaseBuilder("places")
    shape = (N, size) if axis == 1 else (size, N)
    c.output(c.op(op, c.input(*shape, dtype=dtype, name="x"), axis=axis, **more))
    return c.graph()


def samples(dtype: DType, size: int) -> np.ndarray:
    """Rows of numbers, the least and the greatest of the type among them, many of them equal."""
    rng = np.random.default_rng(0)
    if dtype.is_float:
        chosen = rng.integers(0, 8, (64, size - 8))
        rows = np.array(ROWS, np.float32)[rng.integers(0, len(ROWS), 64)]
        more = np.take_along_axis(rows, chosen, axis=1)
        with np.errstate(over="ignore"):
            return np.concatenate([more, rows], axis=1).astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    some = np.array([limits.min, limits.min + 1, limits.max - 1, limits.max, 0, 1], dtype.numpy)
    return some[rng.integers(0, 6, (64, size))]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("op", ["argmax", "argmin"])
@pytest.mark.parametrize(("axis", "keepdims"), [(0, True), (1, False)])
def test_the_same_places(op: str, last: bool, dtype: DType, axis: int, keepdims: bool) -> None:
    x = samples(dtype, 19)
    x = x if axis == 1 else np.ascontiguousarray(x.T)
    graph = places(op, 19, dtype, axis, select_last=last, keepdims=keepdims)
    wanted = run_graph(graph, {"x": x})["y0"]
    assert PackedPlaces(target()).run(graph)
    assert op not in {node.op for node in graph.nodes}
    np.testing.assert_array_equal(run_graph(graph, {"x": x})["y0"], wanted)


@pytest.mark.parametrize(
    ("size", "dtype", "name"),
    [
        (N, DType.F32, "x86-64-v4"),
        (19, DType.F64, "x86-64-v4"),
        (19, DType.I64, "x86-64-v4"),
        (19, DType.F32, "aarch64:cortex-a76"),
        (19, DType.F32, "cortex-m55"),
    ],
)
def test_what_stays(size: Dim, dtype: DType, name: str) -> None:
    assert not PackedPlaces(target(name)).run(places("argmax", size, dtype))


@pytest.mark.parametrize(
    ("shape", "axis", "dtype", "name", "pays"),
    [
        ((N, 4), 1, DType.F32, "x86-64-v4", False),
        ((N, 15, 1), 1, DType.F32, "x86-64-v4", False),
        ((N, 64, 2), 1, DType.F32, "x86-64-v4", False),
        ((N, 64, 24), 1, DType.U8, "x86-64-v3", False),
        ((N, 64), 1, DType.F32, "x86-64-v3", True),
        ((N, 16, 1), 1, DType.F32, "x86-64-v4", True),
        ((N, 4, 24), 1, DType.U8, "x86-64-v4", True),
        ((N, 4, 64), 1, DType.U8, "x86-64-v3", True),
        ((4, N), 0, DType.F32, "x86-64-v3", True),
    ],
)
def test_where_rows_are_too_short(
    shape: tuple[Dim, ...], axis: int, dtype: DType, name: str, pays: bool
) -> None:
    c = CaseBuilder("argmax")
    c.output(c.op("argmax", c.input(*shape, dtype=dtype, name="x"), axis=axis))
    assert PackedPlaces(target(name)).run(c.graph()) == pays
