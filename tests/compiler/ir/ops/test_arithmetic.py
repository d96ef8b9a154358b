"""Corner cases of the arithmetic: wrapping, rounding, narrow types, empty tensors, NaN."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from suites.graphs import evaluate

from tensmith.compiler.ir import DType

LOW32 = -(1 << 31)


def test_integers_wrap() -> None:
    top = np.array([2**31 - 1], np.int32)
    assert evaluate("add", top, np.array([1], np.int32)) == LOW32
    assert evaluate("neg", np.array([LOW32], np.int32)) == LOW32
    assert evaluate("mul", np.array([200], np.uint8), np.array([2], np.uint8)) == 144
    assert evaluate("matmul", top[None], np.array([[3]], np.int32)) == 2**31 - 3
    assert evaluate("reduce_sum", np.array([100, 100], np.int8), axes=(0,)) == -56


def test_integer_division() -> None:
    a = np.array([7, -7, 7, -7, LOW32, 5], np.int32)
    b = np.array([2, 2, -2, -2, -1, 0], np.int32)
    np.testing.assert_array_equal(evaluate("div", a, b), [3, -3, -3, 3, LOW32, 0])
    np.testing.assert_array_equal(evaluate("mod", a[:4], b[:4]), [1, 1, -1, -1])
    np.testing.assert_array_equal(evaluate("fmod", a[:4], b[:4]), [1, -1, 1, -1])
    assert evaluate("mod", a[5:], b[5:]) == 0


def test_one_rounding_for_a_product_and_a_sum() -> None:
    a = np.array([1 + 2.0**-23, 3.0], np.float32)
    rest = evaluate("fma", a, a, -(a * a))
    np.testing.assert_array_equal(rest, [2.0**-46, 0])
    assert rest.dtype == np.float32


def test_integer_power() -> None:
    a, b = np.array([2, -3, 0, 1, -1, 5]), np.array([10, 3, 0, -4, -3, -1])
    np.testing.assert_array_equal(evaluate("pow", a, b), [1024, -27, 1, 1, -1, 0])


def test_shifts_beyond_the_width() -> None:
    a, b = np.array([-8, 8], np.int32), np.array([40, 32], np.int32)
    np.testing.assert_array_equal(evaluate("shr", a, b), [-1, 0])
    np.testing.assert_array_equal(evaluate("shl", a, b), [0, 0])


def test_round_half_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    np.testing.assert_array_equal(evaluate("round", x), [0, 2, 2, 0, -2])


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_compute_in_f32(dtype: type) -> None:
    x = np.linspace(-3, 3, 50).astype(dtype)
    wide = x.astype(np.float32)
    got = evaluate("exp", x)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, np.exp(wide).astype(dtype))
    np.testing.assert_array_equal(evaluate("mul", x, x), (wide * wide).astype(dtype))


def test_casts() -> None:
    x = np.array([-2.7, -0.5, 0.0, 0.3, 255.9], np.float32)
    np.testing.assert_array_equal(evaluate("cast", x, dtype=DType.I32), [-2, 0, 0, 0, 255])
    np.testing.assert_array_equal(
        evaluate("cast", x, dtype=DType.BOOL), [True, True, False, True, True]
    )
    assert evaluate("cast", np.array([300]), dtype=DType.U8) == 44
    assert evaluate("cast", np.array([np.nan], np.float32), dtype=DType.BOOL).all()
    assert math.isinf(evaluate("cast", np.array(1e6), dtype=DType.F16).item())
    assert evaluate("cast", np.array([True]), dtype=DType.F32).item() == 1.0


def test_sigmoid_does_not_overflow() -> None:
    x = np.array([-1e4, -80.0, 0.0, 80.0, np.inf, -np.inf], np.float32)
    np.testing.assert_allclose(
        evaluate("sigmoid", x), [0, np.exp(-80.0), 0.5, 1, 1, 0], rtol=1e-5, atol=0
    )


def test_nan_wins_over_numbers() -> None:
    a, b = np.array([np.nan, 1.0]), np.array([1.0, np.nan])
    assert np.isnan(evaluate("max", a, b)).all()
    assert np.isnan(evaluate("min", a, b)).all()
    assert np.isnan(evaluate("reduce_max", a, axes=(0,)))


def test_empty_reductions() -> None:
    x = np.zeros((2, 0), np.float32)
    np.testing.assert_array_equal(evaluate("reduce_sum", x, axes=(1,)), [0, 0])
    np.testing.assert_array_equal(evaluate("reduce_prod", x, axes=(1,)), [1, 1])
    np.testing.assert_array_equal(evaluate("reduce_max", x, axes=(1,)), [-np.inf] * 2)
    np.testing.assert_array_equal(evaluate("reduce_min", x.astype(np.int8), axes=(1,)), [127, 127])
    np.testing.assert_array_equal(evaluate("reduce_mean", x, axes=(1,)), [0, 0])


def test_integer_mean_truncates() -> None:
    x = np.array([[1, 2], [-1, -2]])
    np.testing.assert_array_equal(evaluate("reduce_mean", x, axes=(1,)), [1, -1])


def test_sums_of_f32_are_rounded_once() -> None:
    x = np.full(10_000, 0.1, np.float32)
    exact = np.float32(math.fsum(map(float, x)))
    assert evaluate("reduce_sum", x, axes=(0,)) == exact
    assert evaluate("matmul", x[None], np.ones((10_000, 1), np.float32)) == exact


def test_large_integer_products_stay_exact() -> None:
    a, b = np.array([[2**31 + 1]]), np.array([[2**31 - 1]])
    assert evaluate("matmul", a, b) == 2**62 - 1


def test_attention_by_hand() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.uniform(-1, 1, (2, n, 4)) for n in (3, 5, 5))
    mask = np.where(np.arange(5) < 3, 0.0, -np.inf)
    scores = q @ k[:, :3].swapaxes(1, 2) * 0.5
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    got = evaluate("attention", q, k, v, mask, scale=0.5)
    np.testing.assert_allclose(got, weights @ v[:, :3], rtol=1e-12)


def test_last_update_wins() -> None:
    x, index = np.zeros(3), np.array([1, 1, 1])
    got = evaluate("scatter_elements", x, index, np.array([1.0, 2.0, 3.0]), axis=0)
    np.testing.assert_array_equal(got, [0, 3, 0])
