"""Models of floats are read, changed and written as quantised ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, version_converter

from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import UsageError
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.quantisable import Quantisable, check_quantisable
from tensmith.frontends.onnx.quantising.recipe import Limits, Recipe, quantised_weights
from tensmith.frontends.onnx.quantising.writing import twin

from .float_models import normal, small_net, store

Array = np.ndarray[Any, Any]


def everything(source: Quantisable, low: float = -3.0, high: float = 3.0) -> Recipe:
    fit = [product for product in source.products if not product.reason]
    return Recipe(
        {product.data: Limits(low, high) for product in fit}, frozenset(p.key for p in fit)
    )


def test_products_and_what_is_scored(tmp_path: Path) -> None:
    source = Quantisable(small_net(tmp_path))
    told = [(p.name, p.op, p.data, p.terms, p.last, p.reason) for p in source.products]
    assert told == [
        ("first", "Conv", "x", 27, False, ""),
        ("depthwise", "Conv", "r", 9, False, ""),
        ("last", "Gemm", "f", 64, True, ""),
    ]
    assert source.scores() == ["l"]
    assert source.notes == []


def test_batch_normalisation_is_folded(tmp_path: Path) -> None:
    path = small_net(tmp_path)
    x = normal(1, 3, 6, 6)
    wanted = run_graph(load(path), {"x": x})["y"]
    graph = Quantisable(path).floats(["y"])
    np.testing.assert_allclose(run_graph(graph, {"x": x})["y"], wanted, rtol=1e-5)
    assert Quantisable(path).products[0].key == "n"


def test_what_is_written_is_what_the_standard_says(tmp_path: Path) -> None:
    """Rounded operands, by hand, give the same as the file."""
    w = normal(4, 3, 3, 3)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    source = Quantisable(store(tmp_path, nodes, {"w": w}))
    out = tmp_path / "quantised.onnx"
    source.save(everything(source), out)
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "Conv",
    ]  # fmt: skip
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    assert {str(array.dtype) for array in stored.values()} == {"int8", "uint8", "float32"}
    assert "w" not in stored
    x = normal(1, 3, 6, 6)
    scale, zero = Limits(-3, 3).u8()
    rounded = (np.clip(np.rint(x / scale) + zero, 0, 255) - zero).astype(np.float32) * scale
    steps, scales = quantised_weights(w, 0)
    weights = steps * scales.reshape(-1, 1, 1, 1)
    plain = store(tmp_path, nodes, {"w": weights.astype(np.float32)})
    wanted = run_graph(load(plain), {"x": rounded})["y"]
    np.testing.assert_allclose(run_graph(load(out), {"x": x})["y"], wanted, rtol=1e-5, atol=1e-5)


def test_weights_take_the_whole_range_of_each_channel() -> None:
    w = normal(4, 7)
    w[2] = 0
    steps, scales = quantised_weights(w, 0)
    assert (np.abs(steps).max(1) == [127, 127, 0, 127]).all()
    assert scales.dtype == np.float32
    assert (np.abs(steps * scales[:, None] - w) <= scales[:, None] / 2 + 1e-7).all()


@pytest.mark.parametrize(
    ("limits", "zero"), [((0, 2), 0), ((-2, 0), 255), ((1, 4), 0), ((-1, 3), 64), ((0, 0), 0)]
)
def test_zero_is_a_step_of_every_range(limits: tuple[float, float], zero: int) -> None:
    scale, point = Limits(*limits).u8()
    assert point == zero
    assert scale > 0


def test_a_gemm_of_transposed_weights(tmp_path: Path) -> None:
    path = small_net(tmp_path)
    source = Quantisable(path)
    x = normal(1, 3, 6, 6)
    exact = run_graph(source.floats(["l"]), {"x": x})["l"]
    peak = {"x": 4.0, "r": 12.0, "f": 40.0}
    fit = Recipe(
        {name: Limits(-limit, limit) for name, limit in peak.items()},
        frozenset(p.key for p in source.products),
    )
    real = run_graph(source.quantised(fit, ["l"]), {"x": x})["l"]
    error = np.abs(real - exact).max() / np.abs(exact).max()
    assert 0 < error < 0.05


def test_shared_data_and_weights_are_written_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["x", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    source = Quantisable(store(tmp_path, nodes, {"w": normal(4, 3, 3, 3)}, ("a", "b", "y")))
    source.save(everything(source), tmp_path / "q.onnx")
    graph = onnx.load(tmp_path / "q.onnx").graph
    assert [node.op_type for node in graph.node].count("QuantizeLinear") == 1
    assert len(graph.initializer) == 5
    assert next(node for node in graph.node if node.op_type == "Relu").input[0] == "x"


def test_products_stay_beside_quantised_ones(tmp_path: Path) -> None:
    source = Quantisable(small_net(tmp_path))
    graph = source.beside(everything(source))
    keys = [product.key for product in source.products]
    assert [value.name for value in graph.outputs] == [n for key in keys for n in (key, twin(key))]
    x = normal(1, 3, 6, 6)
    found = run_graph(graph, {"x": x})
    exact = run_graph(source.floats(keys), {"x": x})
    assert all((found[key] == exact[key]).all() for key in keys)
    assert all((found[key] != found[twin(key)]).any() for key in keys)


def test_corrections_join_biases_or_are_added(tmp_path: Path) -> None:
    source = Quantisable(small_net(tmp_path))
    recipe = everything(source)
    shifts = {"n": normal(4), "e": normal(4), "l": normal(5)}
    x = normal(1, 3, 6, 6)
    for key, shift in shifts.items():
        moved = Recipe(recipe.ranges, recipe.integer, biases={key: shift})
        plain = run_graph(source.quantised(recipe, [key]), {"x": x})[key]
        found = run_graph(source.quantised(moved, [key]), {"x": x})[key]
        wanted = plain + shift.reshape(-1, *(1,) * (plain.ndim - 2))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_without_ranges_runs_find_them(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "one"),
        helper.make_node("Gemm", ["a", "g", "h"], ["y"], "two", transB=1, alpha=0.5, beta=2.0),
    ]
    weights = {"w": normal(6, 8), "g": normal(4, 8), "h": normal(4)}
    source = Quantisable(store(tmp_path, nodes, weights, shape=(3, 6)))
    keys = frozenset(product.key for product in source.products)
    source.save(Recipe(integer=keys, dynamic=keys), tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(model, full_check=True)
    x = normal(3, 6)
    exact = run_graph(source.floats(["y"]), {"x": x})["y"]
    real = run_graph(load(tmp_path / "q.onnx"), {"x": x})["y"]
    assert 0 < np.abs(real - exact).max() < 0.05 * np.abs(exact).max()


def test_what_stays_in_floats_and_why(tmp_path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["i"], "inner")],
        "then", [], [helper.make_tensor_value_info("i", TensorProto.FLOAT, None)],
    )  # fmt: skip
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["j"])],
        "else", [], [helper.make_tensor_value_info("j", TensorProto.FLOAT, None)],
    )  # fmt: skip
    nodes = [
        helper.make_node("Transpose", ["x"], ["xt"]),
        helper.make_node("MatMul", ["x", "xt"], ["a"], "scores"),
        helper.make_node("MatMul", ["x", "batched"], ["b"], "batches"),
        helper.make_node("Gemm", ["x", "w"], ["c"], "turned", transA=1),
        helper.make_node("MatMul", ["w", "x"], ["d"], "left"),
        helper.make_node("Cast", ["w"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["x"], ["xh"], to=TensorProto.FLOAT16),
        helper.make_node("MatMul", ["xh", "half"], ["e"], "narrow"),
        helper.make_node("QuantizeLinear", ["x", "s"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s"], ["xd"]),
        helper.make_node("MatMul", ["xd", "w"], ["f"], "done"),
        helper.make_node("If", ["flag"], ["g"], "if", then_branch=branch, else_branch=other),
        helper.make_node("MatMul", ["x", "w"], ["y"], "fine"),
    ]
    weights = {
        "w": normal(4, 4),
        "batched": normal(2, 4, 4),
        "s": np.array(0.1, np.float32),
        "flag": np.array(True),
    }
    path = store(tmp_path, nodes, weights, ("a", "b", "c", "d", "f", "g", "y"), shape=(4, 4))
    products = Quantisable(path).products
    assert [p.operands for p in products if p.other] == [("x", "xt")]
    found = {product.name: product.reason for product in products}
    assert found == {
        "scores": "",
        "batches": "its weights have 3 axes",
        "turned": "its data are transposed",
        "left": "its data are constant",
        "narrow": "its weights are float16",
        "done": "the model says itself how it is quantised",
        "inner": "it is in a branch or loop",
        "fine": "",
    }


def test_constants_that_are_rearranged(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Reshape", ["flat", "dims"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"flat": normal(24), "dims": np.array([6, 4])}
    source = Quantisable(store(tmp_path, nodes, weights, shape=(3, 6)))
    source.save(everything(source), tmp_path / "q.onnx")
    assert [n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul",
    ]  # fmt: skip


def test_old_opsets_are_converted_and_weights_are_no_inputs(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = store(tmp_path, nodes, {"w": normal(4, 3, 3, 3)}, opset=9, listed=True)
    source = Quantisable(path)
    source.save(everything(source), tmp_path / "q.onnx")
    model = onnx.load(tmp_path / "q.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 13
    assert [info.name for info in model.graph.input] == ["x"]


def test_what_cannot_be_converted_takes_operators_of_onnx_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("no adapter\nfor this")

    monkeypatch.setattr(version_converter, "convert_version", fail)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    path = store(tmp_path, nodes, {"w": normal(4, 3, 3, 3)}, opset=9)
    source = Quantisable(path)
    assert "opset 9 cannot be converted to 13 (no adapter)" in source.notes[0]
    source.save(everything(source), tmp_path / "q.onnx")
    written = onnx.load(tmp_path / "q.onnx")
    assert {n.domain for n in written.graph.node if "Linear" in n.op_type} == {"com.microsoft"}
    x = normal(1, 3, 6, 6)
    exact = run_graph(load(path), {"x": x})["y"]
    real = run_graph(load(tmp_path / "q.onnx"), {"x": x})["y"]
    assert 0 < np.abs(real - exact).max() < 0.05 * np.abs(exact).max()


def test_models_without_products_are_refused(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    source = Quantisable(store(tmp_path, nodes, {}))
    with pytest.raises(UsageError, match="nothing in the model") as caught:
        check_quantisable(source.products)
    assert "no convolution" in caught.value.why
    assert "--precision fp32" in caught.value.remedy


def test_metadata_stay(tmp_path: Path) -> None:
    path = small_net(tmp_path)
    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "classes", "cat,dog"
    onnx.save_model(model, path)
    source = Quantisable(path)
    source.save(everything(source), tmp_path / "q.onnx")
    assert onnx.load(tmp_path / "q.onnx").metadata_props[0].value == "cat,dog"
