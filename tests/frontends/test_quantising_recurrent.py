"""LSTM layers of floats become those of bytes; others keep their weights as bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.quantisable import Quantisable
from tensmith.frontends.onnx.quantising.recipe import Recipe
from tensmith.frontends.onnx.quantising.switching import switch_of
from tensmith.frontends.onnx.quantising.writing import twin

Array = np.ndarray[Any, Any]
STEPS, BATCH, SIZE, HIDDEN = 6, 2, 16, 24
X = np.random.default_rng(9).standard_normal((STEPS, BATCH, SIZE)).astype(np.float32)


def drawn(*shape: int, seed: int) -> Array:
    numbers = np.random.default_rng(seed).standard_normal(shape) / np.sqrt(shape[-1])
    return np.asarray(numbers, np.float32)


def net(
    folder: Path,
    op: str = "LSTM",
    gates: int = 4,
    *,
    hidden: int = HIDDEN,
    columns: int = 3,
    **attributes: Any,
) -> Path:
    """A bidirectional layer whose last state a matrix product reads."""
    constants = {
        "w": drawn(2, gates * hidden, SIZE, seed=1),
        "r": drawn(2, gates * hidden, hidden, seed=2),
        "b": drawn(2, 2 * gates * hidden, seed=3),
        "h0": drawn(2, BATCH, hidden, seed=4),
        "m": drawn(hidden, columns, seed=5),
    }
    inputs = ["x", "w", "r", "b", "", "h0"]
    made = helper.make_node(
        op, inputs, ["y", "h"], "layer", hidden_size=hidden, direction="bidirectional", **attributes
    )
    graph = helper.make_graph(
        [made, helper.make_node("MatMul", ["h", "m"], ["z"], "last")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("y", "z")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "net.onnx"
    onnx.save_model(model, path)
    return path


def recipe_of(source: Quantisable) -> Recipe:
    keys = frozenset(product.key for product in source.products if product.by_run)
    return Recipe(integer=keys, dynamic=keys)


def test_what_is_written_computes_nearly_the_same(tmp_path: Path) -> None:
    path = net(tmp_path, clip=2.0)
    source = Quantisable(path)
    told = [(p.name, p.op, p.terms, p.reason) for p in source.products]
    assert told == [("layer", "LSTM", 4 * (SIZE + HIDDEN), ""), ("last", "MatMul", HIDDEN, "")]
    out = tmp_path / "quantised.onnx"
    source.save(recipe_of(source), out)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(out).graph.initializer}
    assert {"w", "r"}.isdisjoint(stored)
    assert stored["w_int8"].shape == (2, SIZE, 4 * HIDDEN)
    assert stored["w_int8"].dtype == np.int8
    exact, got = (run_graph(load(p), {"x": X}) for p in (path, out))
    for name, array in exact.items():
        assert 0 < np.abs(got[name] - array).max() < 0.02


def test_onnx_runtime_runs_it(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    out = tmp_path / "quantised.onnx"
    source = Quantisable(net(tmp_path))
    source.save(recipe_of(source), out)
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    wanted = run_graph(load(out), {"x": X})
    for name, got in zip(("y", "z"), session.run(["y", "z"], {"x": X}), strict=True):
        np.testing.assert_allclose(got, wanted[name], atol=1e-2)


def test_beside_the_layer_of_floats(tmp_path: Path) -> None:
    source = Quantisable(net(tmp_path))
    graph = source.beside(recipe_of(source))
    assert [value.name for value in graph.outputs] == ["y", twin("y")]
    real, rounded = run_graph(graph, {"x": X}).values()
    assert 0 < np.abs(real - rounded).max() < 0.02


@pytest.mark.parametrize(("op", "gates"), [("GRU", 3), ("RNN", 1)])
def test_others_have_weights_of_bytes(tmp_path: Path, op: str, gates: int) -> None:
    path = net(tmp_path, op, gates, hidden=128)
    source = Quantisable(path)
    assert [p.reason for p in source.products] == ["", ""]
    assert [p.weights_only for p in source.products] == [True, False]
    out = tmp_path / "quantised.onnx"
    source.save(recipe_of(source), out)
    model = onnx.load(out)
    assert [n.op_type for n in model.graph.node] == [*["DequantizeLinear"] * 2, op, "MatMul"]
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert stored["r_int8"].shape == (2, gates * 128, 128)
    exact, got = (run_graph(load(p), {"x": X}) for p in (path, out))
    for name, array in exact.items():
        assert 0 < np.abs(got[name] - array).max() < 0.05
    pair = run_graph(source.beside(recipe_of(source)), {"x": X})
    np.testing.assert_array_equal(pair[twin("y")], got["y"])


@needs_native
def test_bytes_of_a_gru_are_what_its_products_read(tmp_path: Path) -> None:
    """Where there are enough of them: few weights are floats, and the manifest says so."""
    for hidden, told in ((128, "int8 weights"), (8, "fp32")):
        path = net(tmp_path, "GRU", 3, hidden=hidden)
        model = tensmith.compile(path, precision="int8", force_precision=True)
        rows = {row["name"]: row for row in model.manifest["contractions"]}
        assert rows["layer"]["precision"] == told
        assert ("fewer than 16384 weights" in rows["layer"]["reason"]) == (hidden == 8)
        assert ("in part fp32" in rows["layer"]["reason"]) == (hidden == 128)  # of the input
        exact = run_graph(load(path), {"x": X})
        assert np.abs(model.load()({"x": X})["y"] - exact["y"]).max() < 0.02


@needs_native
@pytest.mark.parametrize("data", [True, False])
def test_a_model_with_one_is_compiled(tmp_path: Path, data: bool) -> None:
    """Beside a product that is too much of the work to stay in floats for its noise."""
    calibration = {"x": np.stack([X, X / 2, -X, X * 1.5])} if data else None
    path = net(tmp_path, columns=160)
    model = tensmith.compile(path, precision="int8", calibration=calibration, force_precision=True)
    rows = {row["name"]: (row["precision"], row["low"]) for row in model.manifest["contractions"]}
    assert rows["layer"] == ("dynamic int8", None)
    assert rows["last"][0] == ("int8" if data else "dynamic int8")
    exact = run_graph(load(path), {"x": X})
    assert 0 < np.abs(model.load()({"x": X})["z"] - exact["z"]).max() < 0.02


def test_all_results_of_a_layer_are_switched(tmp_path: Path) -> None:
    source = Quantisable(net(tmp_path))
    recipe = recipe_of(source)
    graph = source.switched(recipe, [["y"]], ["y", "z"])
    exact = run_graph(source.floats(["y", "z"]), {"x": X})
    real = run_graph(source.quantised(recipe, ["y", "z"]), {"x": X})
    for integer, wanted in ((False, exact), (True, real)):
        found = run_graph(graph, {"x": X, switch_of(0): np.array(integer)})
        for name in ("y", "z"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=1e-6, atol=1e-6)
    assert np.abs(exact["z"] - real["z"]).max() > 1e-4


def test_a_layer_alone_keeps_its_places(tmp_path: Path) -> None:
    source = Quantisable(net(tmp_path))
    plain, integer = source.product_alone("y", [X.shape], recipe_of(source))
    exact = run_graph(source.floats(["y"]), {"x": X})["y"]
    np.testing.assert_allclose(run_graph(plain, {"x": X})["y"], exact, rtol=1e-6, atol=1e-6)
    found = run_graph(integer, {"x": X})["y"]
    assert 1e-4 < np.abs(found - exact).max() < 0.05
