"""Quantising products of two operands that the run makes: attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.driver import calibrated_search, data_products
from tensmith.driver.budget import product_times
from tensmith.driver.budget.product_times import ProductTimes
from tensmith.driver.quantisation import Quantisation, quantise
from tensmith.driver.request import CompileRequest
from tensmith.driver.timing import Runs
from tensmith.frontends.onnx import load
from tensmith.frontends.onnx.quantising.quantisable import NothingToQuantise, Quantisable
from tensmith.frontends.onnx.quantising.recipe import Limits, Recipe
from tensmith.frontends.onnx.quantising.switching import switch_of

Array = np.ndarray[Any, Any]
TOKENS, WIDTH = 40, 32
SAMPLES = np.random.default_rng(3).standard_normal((6, 1, TOKENS, WIDTH)).astype(np.float32)
ATTENTION = ("scores", "weighted")


def timer(integers: float) -> Any:
    """Times that are given: of the model with integer attention, where it is asked for."""
    return lambda runs: {name: [integers if name == "integers" else 1.0] for name in runs}


def store(
    folder: Path, *, tokens: int = TOKENS, peak: float = 1.0, kind: type = np.float32
) -> Path:
    """Attention of one head. peak: by which one channel of its keys is larger."""
    rng = np.random.default_rng(0)
    constants = {
        n: rng.standard_normal((WIDTH, WIDTH)) / np.sqrt(WIDTH) for n in ("wq", "wk", "wv")
    }
    constants["wk"][:, 3] *= peak
    constants["wo"] = rng.standard_normal((WIDTH, 64)) / np.sqrt(WIDTH)
    constants["scale"] = np.array(1 / np.sqrt(WIDTH))
    nodes = [
        helper.make_node("MatMul", ["x", "wq"], ["q"], "queries"),
        helper.make_node("MatMul", ["x", "wk"], ["k"], "keys"),
        helper.make_node("MatMul", ["x", "wv"], ["v"], "values"),
        helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "kt"], ["s"], "scores"),
        helper.make_node("Mul", ["s", "scale"], ["m"]),
        helper.make_node("Softmax", ["m"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["c"], "weighted"),
        helper.make_node("Add", ["c", "x"], ["r"]),
        helper.make_node("MatMul", ["r", "wo"], ["y"], "last"),
    ]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", element, (1, tokens, WIDTH))],
        [helper.make_tensor_value_info("y", element, (1, tokens, 64))],
        [numpy_helper.from_array(array.astype(kind), name) for name, array in constants.items()],
    )
    path = folder / "attention.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path)
    return path


def quantised(
    net: Path, monkeypatch: pytest.MonkeyPatch, integers: float, samples: Array = SAMPLES
) -> Quantisation:
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")
    folder = net.parent / "work"
    folder.mkdir()
    request = CompileRequest(precision="int8", calibration={"x": samples}, timer=timer(integers))
    return quantise(net, net.parent / "q.onnx", request, folder)


def reasons(found: Quantisation) -> dict[str, str]:
    return {p.name: p.reason for p in found.products if p.precision == "fp32"}


@needs_native
def test_both_operands_are_quantised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probabilities from 0 on, without a zero point; the file is what other engines run, too."""
    net = store(tmp_path)
    found = quantised(net, monkeypatch, 0.5)
    assert reasons(found) == {}
    assert list(found.tried)[-1] == "products of data"
    model = onnx.load(found.path)
    onnx.checker.check_model(model, full_check=True)
    initial = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    (of_p,) = [n for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "p"]
    assert (initial[of_p.input[2]].dtype, int(initial[of_p.input[2]])) == (np.uint8, 0)
    truth, exact = load(found.path), load(net)
    session = onnxruntime.InferenceSession(found.path, providers=["CPUExecutionProvider"])
    compiled = tensmith.compile(
        net,
        precision="int8",
        calibration={"x": SAMPLES},
        timer=timer(0.5),
        force_precision=True,
    )
    module = compiled.load()
    assert {row["precision"] for row in compiled.manifest["contractions"]} == {"int8"}
    for x in SAMPLES:
        wanted = run_graph(truth, {"x": x})["y"]
        np.testing.assert_allclose(module({"x": x})["y"], wanted, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(session.run(None, {"x": x})[0], wanted, rtol=0.02, atol=0.02)
        floats = run_graph(exact, {"x": x})["y"]
        assert 0 < np.abs(wanted - floats).max() < 0.05 * np.abs(floats).max()


@needs_native
def test_they_stay_in_floats_where_that_is_as_fast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = quantised(store(tmp_path), monkeypatch, 1.0)
    told = "the model is no faster with its operands in integers"
    assert reasons(found) == dict.fromkeys(ATTENTION, told)
    assert max(found.decibels.values()) > found.tried["products of data"]


@needs_native
def test_they_stay_in_floats_where_they_lose_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One channel of the keys takes the steps of all others."""
    monkeypatch.setattr(calibrated_search, "ENOUGH", 100.0)
    found = quantised(store(tmp_path, peak=30.0), monkeypatch, 0.5)
    told = "its operands would lose more than the whole model may by them"
    assert reasons(found) == dict.fromkeys(ATTENTION, told)


@needs_native
def test_without_a_clock_the_error_decides(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    request = CompileRequest(precision="int8", calibration={"x": SAMPLES}, timer=timer(2.0))
    assert reasons(quantise(store(tmp_path), tmp_path / "q.onnx", request, folder)) == {}


@needs_native
def test_what_the_compiler_keeps_in_floats_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = store(tmp_path, tokens=12)
    found = quantised(net, monkeypatch, 0.5, SAMPLES[:, :, :12])
    assert set(reasons(found)) == {*ATTENTION}
    assert "small" in reasons(found)["scores"]
    assert "products of data" not in found.tried


def test_halves_are_not_quantised(tmp_path: Path) -> None:
    source = Quantisable(store(tmp_path, kind=np.float16))
    data_products.settle(source)
    told = {p.name: p.reason for p in source.products}
    assert told["scores"] == told["weighted"] == "its operands are f16"


def test_without_data_they_stay_in_floats(tmp_path: Path) -> None:
    found = quantise(
        store(tmp_path), tmp_path / "q.onnx", CompileRequest(precision="int8"), tmp_path
    )
    assert set(reasons(found)) == {*ATTENTION}


def test_they_have_no_weights_to_store(tmp_path: Path) -> None:
    with pytest.raises(NothingToQuantise, match="no weights of the model"):
        tensmith.compile(scores_alone(tmp_path), precision="int8-weights")


def scores_alone(folder: Path) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "z"], ["y"], "scores")],
        "net",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, TOKENS, WIDTH)),
            helper.make_tensor_value_info("z", TensorProto.FLOAT, (2, WIDTH, TOKENS)),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, TOKENS, TOKENS))],
    )
    path = folder / "scores.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, path)
    return path


@needs_native
def test_a_model_of_such_products_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = {
        "x": rng.standard_normal((4, 2, TOKENS, WIDTH)).astype(np.float32),
        "z": rng.standard_normal((4, 2, WIDTH, TOKENS)).astype(np.float32),
    }
    model = tensmith.compile(scores_alone(tmp_path), precision="int8", calibration=data)
    assert [row["precision"] for row in model.manifest["contractions"]] == ["int8"]
    got = model.load()({"x": data["x"][0], "z": data["z"][0]})["y"]
    exact = data["x"][0] @ data["z"][0]
    assert 0 < np.abs(got - exact).max() < 0.02 * np.abs(exact).max()


def recipe_of(source: Quantisable, x: Array) -> Recipe:
    points = [name for product in source.products for name in product.operands]
    found = run_graph(source.floats(points), {"x": x})
    ranges = {name: Limits(float(a.min()), float(a.max())) for name, a in found.items()}
    return Recipe(ranges, frozenset(p.key for p in source.products))


def test_a_switch_turns_such_a_product(tmp_path: Path) -> None:
    source = Quantisable(store(tmp_path))
    recipe = recipe_of(source, SAMPLES[0])
    groups = [[p.key] for p in source.products]
    graph = source.switched(recipe, groups, ["y"])
    off = {switch_of(n): np.array(False) for n in range(len(groups))}
    exact = run_graph(source.floats(["y"]), {"x": SAMPLES[0]})["y"]
    np.testing.assert_allclose(run_graph(graph, {"x": SAMPLES[0], **off})["y"], exact, rtol=1e-5)
    scores = next(n for n, keys in enumerate(groups) if keys == ["s"])
    alone = Recipe(recipe.ranges, frozenset({"s"}))
    wanted = run_graph(source.quantised(alone, ["y"]), {"x": SAMPLES[0]})["y"]
    got = run_graph(graph, {"x": SAMPLES[0], **off, switch_of(scores): np.array(True)})["y"]
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    assert np.abs(got - exact).max() > 1e-4


@pytest.mark.parametrize(
    ("target", "threads", "clock"),
    [
        ("native", 1, "thread_time"),
        ("native", 2, "perf_counter"),
        ("cuda:sm_90", 1, "perf_counter"),
    ],
)
def test_times_are_kept_by_the_clock_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, threads: int, clock: str
) -> None:
    """Processor time and the clock's are not compared with each other."""
    source = Quantisable(store(tmp_path))
    recipe = recipe_of(source, SAMPLES[0])
    keys: list[str] = []

    def journal(*parts: str, **given: Any) -> None:
        keys.extend(parts)

    monkeypatch.setattr(product_times, "journal_of", journal)
    times = ProductTimes(source, recipe, tmp_path, target, threads, lambda text: None)
    monkeypatch.setattr(ProductTimes, "_timed", lambda times, graphs: [1.0] * len(graphs))
    assert times.of_bytes((1, 4)) == 1.0
    assert {"thread_time", "perf_counter"} & {*keys} == {clock}


@needs_native
def test_it_is_timed_with_both_operands_as_bytes(tmp_path: Path) -> None:
    source = Quantisable(store(tmp_path))
    recipe = recipe_of(source, SAMPLES[0])
    shapes = [(1, TOKENS, WIDTH), (1, WIDTH, TOKENS)]
    _, integer = source.product_alone("s", shapes, recipe)
    assert [value.dtype.value for value in integer.inputs] == ["u8", "u8"]
    asked = list[str]()

    def timed(runs: Runs) -> Mapping[str, list[float]]:
        asked.extend(runs)
        for run in runs.values():
            run()
        return {"fp32": [2.0], "int8": [1.0]}

    times = ProductTimes(source, recipe, tmp_path, "native", 1, lambda text: None, timed)
    assert times.of("s", shapes) == (2.0, 1.0)
    assert asked == ["fp32", "int8"]
