"""Corrections of biases make good for what rounding the weights takes off, on average."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx.quantising.quantisable import Quantisable
from tensmith.frontends.onnx.quantising.recipe import Limits, Recipe

from .float_models import Array, normal, store

WHOLE = Limits(0, 255)  # by steps of 1: whole numbers are not rounded


def errors(path: Path, x: Array, means: Array) -> tuple[float, float]:
    """The greatest error of y without and with the correction."""
    source = Quantisable(path)
    recipe = Recipe({"x": WHOLE}, frozenset({"y"}))
    biases = source.corrections({"y"}, {"x": means})
    exact = run_graph(source.floats(["y"]), {"x": x})["y"]
    plain = run_graph(source.quantised(recipe, ["y"]), {"x": x})["y"]
    better = run_graph(source.quantised(replace(recipe, biases=biases), ["y"]), {"x": x})["y"]
    return float(np.abs(plain - exact).max()), float(np.abs(better - exact).max())


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_of_data_that_are_their_means_all_is_made_good(groups: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y"], group=groups)]
    weights = {"w": normal(8, 4 // groups, 3, 3), "b": normal(8)}
    path = store(tmp_path, nodes, weights, shape=(1, 4, 6, 6))
    means = np.array([3, 40, 200, 255], np.float32)
    x = np.broadcast_to(means.reshape(1, 4, 1, 1), (1, 4, 6, 6)).copy()
    before, after = errors(path, x, means)
    assert before > 0.1
    assert after < 0.005 * before


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(transposed: int, tmp_path: Path) -> None:
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], alpha=0.5, transB=transposed)]
    weights = {"w": normal(*((5, 16) if transposed else (16, 5))), "b": normal(5)}
    path = store(tmp_path, nodes, weights, shape=(2, 16))
    means = np.arange(16).astype(np.float32) * 16
    before, after = errors(path, np.stack([means, means]), means)
    assert before > 0.1
    assert after < 0.005 * before


def test_matmul_of_no_bias(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    path = store(tmp_path, nodes, {"w": normal(16, 5)}, shape=(3, 2, 16))
    means = np.arange(16).astype(np.float32) * 16
    before, after = errors(path, np.broadcast_to(means, (3, 2, 16)).copy(), means)
    assert before > 0.1
    assert after < 0.005 * before


def test_means_along_another_axis_are_not_used(tmp_path: Path) -> None:
    """A tensor whose channels lie along axis 1 for one product, along the last for another."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("MatMul", ["x", "m"], ["y"]),
    ]
    weights = {"w": normal(8, 6, 3, 3), "m": normal(6, 5)}
    source = Quantisable(store(tmp_path, nodes, weights, ("c", "y"), shape=(1, 6, 6, 6)))
    assert source.axes == {"x": 1}
    assert list(source.corrections({"c", "y"}, {"x": np.ones(6, np.float32)})) == ["c"]
