"""One graph whose runs say which products are integer; parts of models that are timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType
from tensmith.frontends.onnx.quantising.quantisable import (
    NothingToQuantise,
    Quantisable,
    check_quantisable,
)
from tensmith.frontends.onnx.quantising.recipe import Limits, Recipe
from tensmith.frontends.onnx.quantising.switching import switch_of

Array = np.ndarray[Any, Any]
X = np.random.default_rng(5).random((1, 3, 6, 6), np.float32)


def draw(*shape: int, seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def store(folder: Path, last: str = "Softmax") -> Path:
    """Two convolutions of one tensor, a Gemm with transposed weights, and a product."""
    constants = {
        "w": draw(4, 3, 3, 3, seed=0),
        "u": draw(4, 3, 3, 3, seed=1),
        "g": draw(8, 64, seed=2),
        "h": draw(8, seed=3),
        "m": draw(8, 5, seed=4),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], "one"),
        helper.make_node("Conv", ["x", "u"], ["b"], "other"),
        helper.make_node("Add", ["a", "b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("Gemm", ["f", "g", "h"], ["d"], "gemm", transB=1),
        helper.make_node("MatMul", ["d", "m"], ["p"], "product"),
        helper.make_node(last, ["p"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 6, 6))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), folder / "m.onnx")
    return folder / "m.onnx"


GROUPS = [["a", "b"], ["d"], ["p"]]


@pytest.fixture
def source(tmp_path: Path) -> Quantisable:
    return Quantisable(store(tmp_path))


def recipe(source: Quantisable) -> Recipe:
    graph = source.floats(["x", "f", "d"])
    found = run_graph(graph, {"x": X})
    ranges = {name: Limits(float(a.min()), float(a.max())) for name, a in found.items()}
    keys = frozenset(key for keys in GROUPS for key in keys)
    return Recipe(ranges, keys, biases={"p": np.full(5, 0.25), "a": np.full(4, -0.125)})


@pytest.mark.parametrize("chosen", [(), (0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_a_run_says_what_is_integer(source: Quantisable, chosen: tuple[int, ...]) -> None:
    """It gives what the model gives that is quantised so."""
    whole = recipe(source)
    graph = source.switched(whole, GROUPS, ["y", "p"])
    switches = {switch_of(n): np.array(n in chosen) for n in range(len(GROUPS))}
    found = run_graph(graph, {"x": X, **switches})
    integer = frozenset(key for n in chosen for key in GROUPS[n])
    alone = Recipe(whole.ranges, integer, biases=whole.biases)
    wanted = run_graph(source.quantised(alone, ["y", "p"]), {"x": X})
    for name, array in wanted.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6, atol=1e-6)
    exact = run_graph(source.floats(["p"]), {"x": X})["p"]
    assert (np.abs(found["p"] - exact).max() > 1e-3) == bool(chosen)


@pytest.mark.parametrize(("key", "shape"), [("a", (1, 3, 6, 6)), ("d", (2, 64)), ("p", (7, 8))])
def test_products_alone(source: Quantisable, key: str, shape: tuple[int, ...]) -> None:
    """One of floats, one of bytes that stand for the same numbers."""
    plain, integer = source.product_alone(key, [shape], recipe(source))
    (data,), (steps,) = plain.inputs, integer.inputs
    assert (data.dtype, steps.dtype) == (DType.F32, DType.U8)
    assert data.type.static_shape == steps.type.static_shape == shape
    drawn = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    scale, zero = recipe(source).ranges[data.name].u8()
    real = (drawn.astype(np.float32) - zero) * scale
    exact = run_graph(plain, {data.name: real})[key]
    found = run_graph(integer, {steps.name: drawn})[key]
    added = np.asarray(recipe(source).biases.get(key, 0.0), np.float32)
    added = added.reshape(-1, 1, 1) if key == "a" else added
    assert np.abs(found - exact - added).max() < 0.02 * np.abs(exact).max()


def test_what_is_timed_apart(source: Quantisable) -> None:
    assert source.read_as_floats("x", {"a", "b"})  # an input
    assert not source.read_as_floats("d", {"p"})
    assert source.read_as_floats("c", set())
    assert source.described("a") == source.described("b") != source.described("d")
    graph = source.bytes_alone((2, 3))
    found = run_graph(graph, {"data": np.array([[0, 1, 0.75], [2, -1, 0.25]], np.float32)})
    assert found["bytes"].tolist() == [[0, 255, 191], [255, 0, 64]]


@pytest.mark.parametrize(("last", "told"), [("Softmax", True), ("Identity", True), ("Tanh", False)])
def test_what_classifies(last: str, told: bool, tmp_path: Path) -> None:
    assert Quantisable(store(tmp_path, last)).classifies is told


def test_digests_are_of_what_is_computed(tmp_path: Path) -> None:
    path = store(tmp_path)
    first = Quantisable(path).digest()
    assert Quantisable(path).digest() == first
    model = onnx.load(path)
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[0, 0, 0, 0] += 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "w"))
    onnx.save_model(model, path)
    assert Quantisable(path).digest() != first
    assert Quantisable(store(tmp_path, "Tanh")).digest() != first
    model = onnx.load(store(tmp_path))
    assert Quantisable(path).digest() == first
    model.opset_import[0].version += 1
    onnx.save_model(model, path)
    assert Quantisable(path).digest() != first


def test_nothing_to_quantise_is_an_error_of_its_own() -> None:
    with pytest.raises(NothingToQuantise, match="nothing in the model"):
        check_quantisable([])


@pytest.mark.parametrize("scaled", [False, True])
def test_runs_of_an_open_model_say_ranges_and_corrections(
    source: Quantisable, scaled: bool
) -> None:
    """One graph computes what models of any ranges and corrections do."""
    whole = recipe(source)
    others = {name: Limits(r.low / 2, r.high / 3) for name, r in whole.ranges.items()}
    trials = [replace(whole, biases={}), replace(whole, ranges=others), whole]
    if scaled:
        channels = np.array([1, 0.5, 0.25], np.float32)
        trials = [replace(trial, scales={"x": channels}) for trial in trials]
    for trial in trials:
        graph = source.open(trials[0], ["y", "p"])
        found = run_graph(graph, {"x": X, **source.parameters(trial)})
        wanted = run_graph(source.quantised(trial, ["y", "p"]), {"x": X})
        for name, array in wanted.items():
            np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-5)
