"""Operands of matrix products are rotated: the products stay, outliers cost less."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx.quantising.quantisable import Quantisable
from tensmith.frontends.onnx.quantising.recipe import Limits, Recipe
from tensmith.frontends.onnx.quantising.rotation import block_of, hadamard, rotated_rows

from .float_models import normal, small_net, store


def attention_like(folder: Path) -> Path:
    """Four matrix products, two of the same data, one of 192 terms, a Gemm, and one of 7."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["q"]),
        helper.make_node("MatMul", ["x", "b"], ["k"]),
        helper.make_node("Add", ["q", "k"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("MatMul", ["r", "c"], ["t"]),
        helper.make_node("Reshape", ["t", "dims"], ["u"]),
        helper.make_node("Gemm", ["u", "d", "e"], ["v"], transB=1),
        helper.make_node("MatMul", ["v", "f"], ["y"]),
    ]
    weights = {
        "a": normal(128, 192),
        "b": normal(128, 192) + 1,
        "c": normal(192, 32),
        "dims": np.array([6, 32]),
        "d": normal(7, 32),
        "e": normal(7),
        "f": normal(7, 5),
    }
    return store(folder, nodes, weights, shape=(2, 3, 128))


def test_rotated_operands_give_the_same_products(tmp_path: Path) -> None:
    source = Quantisable(attention_like(tmp_path))
    rotated = source.rotated()
    assert rotated is not None
    assert [p.data for p in rotated.products] == [
        "x_rotated", "x_rotated", "r_rotated", "u_rotated", "v",
    ]  # fmt: skip
    assert [(p.key, p.terms) for p in rotated.products] == [
        (p.key, p.terms) for p in source.products
    ]
    x = normal(2, 3, 128)
    x[..., 5] *= 50
    names = [*(p.key for p in source.products), "x", "x_rotated"]
    found = run_graph(rotated.floats(names), {"x": x})
    exact = run_graph(source.floats(names[:-1]), {"x": x})
    for name in names[:-1]:
        peak = np.abs(exact[name]).max()
        np.testing.assert_allclose(found[name], exact[name], rtol=0, atol=1e-5 * peak)
    assert np.abs(found["x_rotated"]).max() < 0.3 * np.abs(x).max()
    norms = np.linalg.norm(x, axis=-1)
    np.testing.assert_allclose(np.linalg.norm(found["x_rotated"], axis=-1), norms, rtol=1e-5)


def test_outliers_cost_less_where_operands_are_rotated(tmp_path: Path) -> None:
    source = Quantisable(attention_like(tmp_path))
    rotated = source.rotated()
    assert rotated is not None
    x = normal(2, 3, 128)
    x[..., 5] *= 50
    errors = []
    for model in (source, rotated):
        (point,) = {p.data for p in model.products if p.key in ("q", "k")}
        seen = run_graph(model.floats([point, "q"]), {"x": x})
        limits = Limits(float(seen[point].min()), float(seen[point].max()))
        recipe = Recipe({point: limits}, frozenset({"q", "k"}))
        found = run_graph(model.quantised(recipe, ["q"]), {"x": x})
        errors.append(float(np.square(found["q"] - seen["q"]).mean()))
    assert errors[1] < errors[0] / 4


def test_models_of_few_matrix_products_are_not_rotated(tmp_path: Path) -> None:
    assert Quantisable(small_net(tmp_path)).rotated() is None


@pytest.mark.parametrize(("terms", "block"), [(384, 128), (192, 64), (96, 32), (48, 0), (7, 0)])
def test_blocks_are_powers_of_two_that_fit(terms: int, block: int) -> None:
    assert block_of(terms) == block


def test_hadamard_matrices_are_orthogonal_and_symmetric() -> None:
    for size in (1, 2, 8, 128):
        matrix = hadamard(size)
        np.testing.assert_allclose(matrix @ matrix, np.eye(size), atol=1e-12)
        assert (matrix == matrix.T).all()
    np.testing.assert_allclose(np.kron(hadamard(8), hadamard(16)), hadamard(128), atol=1e-15)


@pytest.mark.parametrize("size", [32, 128])
def test_rows_are_multiplied_by_the_matrix(size: int) -> None:
    rows = np.random.default_rng(2).standard_normal((3 * size, 7))
    wanted = hadamard(size) @ rows.reshape(3, size, 7)
    np.testing.assert_allclose(rotated_rows(rows, size), wanted.reshape(rows.shape), atol=1e-13)
