"""Tolerances and the comparison of outputs."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from tensmith.driver.compare import Tolerance, compare_outputs


def _one(actual, expected, tolerance: Tolerance | None = None):
    return compare_outputs({"y": actual}, {"y": expected}, tolerance or Tolerance())[0]


def test_equal() -> None:
    array = np.linspace(-1, 1, 9, dtype=np.float32)
    found = _one(array, array.copy())
    assert found.agrees
    assert found.max_abs == 0


def test_default_limit_is_relative_to_the_peak() -> None:
    expected = np.array([1000.0, 0.0], np.float32)
    assert _one(np.array([1000.0, 0.09], np.float32), expected).agrees
    assert not _one(np.array([1000.0, 0.11], np.float32), expected).agrees


def test_floor_of_the_default_limit() -> None:
    expected = np.array([6e-8, 0], np.float32)
    assert _one(np.array([1.4e-7, 0], np.float32), expected).agrees
    assert not _one(np.array([1.4e-7, 0], np.float32), expected).informative
    assert not _one(np.array([1e-6, 0], np.float32), expected).agrees


@pytest.mark.parametrize(
    ("precision", "share"), [("fp32", 1e-4), ("fp16", 2e-3), ("bf16", 2e-2), ("int8", 1e-4)]
)
def test_models_in_halves_differ_as_halves_do(precision: str, share: float) -> None:
    expected = np.array([1000.0, 0.0], np.float32)
    tolerance = Tolerance().of("reference", precision)
    for factor, agrees in ((0.9, True), (1.1, False)):
        actual = np.array([1000.0, 1000 * share * factor], np.float32)
        assert _one(actual, expected, tolerance).agrees == agrees
    assert Tolerance(atol=1.0, rtol=0.0).of("reference", precision).limits(expected) == (0.0, 1.0)


def test_message_names_the_worst_element() -> None:
    expected = np.zeros((2, 3), np.float32)
    actual = expected.copy()
    actual[0, 1], actual[1, 2] = 1, 5
    found = _one(actual, expected)
    assert found.message == "2 of 6 elements differ; worst at [1, 2]: 5.0, expected 0.0"


def test_given_tolerance_replaces_the_default() -> None:
    expected = np.array([1.0, 1e-3], np.float32)
    actual = np.array([1.0, 1.05e-3], np.float32)
    assert _one(actual, expected).agrees
    assert not _one(actual, expected, Tolerance(rtol=1e-3, atol=0.0)).agrees
    assert _one(actual, expected, Tolerance(rtol=0.1, atol=0.0)).agrees


def test_non_finite_values_must_match() -> None:
    inf, nan = np.inf, np.nan
    expected = np.array([inf, -inf, nan, 1], np.float32)
    assert _one(expected.copy(), expected).agrees
    for index, value in enumerate([nan, inf, 0, nan]):
        actual = expected.copy()
        actual[index] = value
        assert not _one(actual, expected).agrees


def test_all_nan_is_not_informative() -> None:
    array = np.full(3, np.nan, np.float32)
    assert not _one(array, array.copy()).informative


@pytest.mark.parametrize(
    ("dtype", "gap", "agrees"),
    [("int64", 1, False), ("int32", 1, False), ("uint8", 1, True), ("int8", 2, False)],
)
def test_integers(dtype: str, gap: int, agrees: bool) -> None:
    expected = np.array([5, 100], dtype)
    assert _one(expected + np.array(gap, dtype), expected).agrees is agrees


def test_large_integers_are_compared_exactly() -> None:
    expected = np.array([2**62], np.int64)
    assert not _one(expected + 1, expected).agrees


def test_bools() -> None:
    expected = np.array([True, False])
    assert _one(expected.copy(), expected).agrees
    assert not _one(~expected, expected).agrees


def test_bfloat16() -> None:
    expected = np.array([1.0, 2.0], ml_dtypes.bfloat16)
    assert _one(np.array([1.0, 2.02], ml_dtypes.bfloat16), expected).agrees
    assert not _one(np.array([1.0, 2.5], ml_dtypes.bfloat16), expected).agrees


def test_shape_type_and_absence() -> None:
    expected = np.zeros(3, np.float32)
    assert "shape" in _one(np.zeros(4, np.float32), expected).message
    assert "type" in _one(np.zeros(3), expected).message
    assert compare_outputs({}, {"y": expected}, Tolerance())[0].message == "the output is missing"


def test_quantised_networks_may_differ_by_steps() -> None:
    expected = np.array([1.0, 0.5], np.float32)
    actual = np.array([1.0, 0.51], np.float32)
    assert not _one(actual, expected).agrees
    assert _one(actual, expected, Tolerance(quantised=True)).agrees


def test_empty_output() -> None:
    assert _one(np.zeros((0, 3), np.float32), np.zeros((0, 3), np.float32)).agrees


def test_sizes_that_onnx_runtime_does_not_know() -> None:
    """Of what has no elements, and only where it gives 0."""
    peer = Tolerance().of("onnxruntime")
    none = np.zeros((0, 3), np.float32)
    assert _one(none, np.zeros((0, 0), np.float32), peer).agrees
    assert _one(none, none, peer).agrees
    for shape in ((0, 2), (0,), (0, 3, 0), (1, 0), (1, 3)):
        assert not _one(none, np.zeros(shape, np.float32), peer).agrees
    assert not _one(np.zeros((2, 3), np.float32), np.zeros((0, 0), np.float32), peer).agrees
    assert not _one(none, np.zeros((0, 0), np.float32), Tolerance()).agrees
