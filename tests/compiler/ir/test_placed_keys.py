"""Keys of an element's order and its place: sorted like the elements, and never equal."""

from __future__ import annotations

import numpy as np
import pytest
from suites.case import CaseBuilder

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType, Value
from tensmith.compiler.ir.placed_keys import may_be_placed, order_in, placed_keys, places_in

TYPES = [DType.F32, DType.BF16, DType.F16, DType.I32, DType.U32, DType.I8, DType.U16]


def rows(dtype: DType) -> np.ndarray:
    rng = np.random.default_rng(0)
    if dtype.is_float:
        some = [0.0, -0.0, 1.5, -1.5, np.inf, -np.inf, np.nan, -np.nan, 3e4, -3e4]
        return np.array(some)[rng.integers(0, len(some), (8, 37))].astype(dtype.numpy)
    limits = np.iinfo(dtype.numpy)
    numbers = np.array([limits.min, limits.min + 1, 0, 1, limits.max - 1, limits.max])
    return numbers[rng.integers(0, len(numbers), (8, 37))].astype(dtype.numpy)


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_keys_are_sorted_like_elements(dtype: DType, backwards: bool) -> None:
    x = rows(dtype)
    c = CaseBuilder("keys")

    def emit(op: str, inputs: list[Value], attrs: dict[str, object] | None = None) -> Value:
        return c.op(op, *inputs, **(attrs or {}))

    keys = placed_keys(emit, c.input(8, 37, dtype=dtype, name="x"), 1, backwards=backwards)
    c.output(keys, places_in(emit, keys, 37, backwards=backwards), order_in(emit, keys))
    found = run_graph(c.graph(), {"x": x})
    places = np.broadcast_to(np.arange(37), x.shape)
    np.testing.assert_array_equal(found["y1"], places)
    numbers = x.astype(np.float64)  # NaN are sorted behind all numbers
    by_place = -places if backwards else places
    wanted = [np.lexsort(pair) for pair in zip(by_place, numbers, strict=True)]
    np.testing.assert_array_equal(np.argsort(found["y0"], axis=1), wanted)
    assert [len(set(row)) for row in found["y2"]] == [len(np.unique(row)) for row in numbers]


def test_what_keys_hold() -> None:
    assert may_be_placed(DType.F32, 5)
    assert not may_be_placed(DType.F64, 5)
    assert not may_be_placed(DType.F32, 1 << 31)
    assert not may_be_placed(DType.F32, 0)
