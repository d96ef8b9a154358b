"""Two models as one: what comes out is what running them by hand gives, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.compiler.errors import BudgetError, UsageError
from tensmith.driver import cli
from tensmith.driver.budget.metrics import TABLE
from tensmith.driver.cascading.cascade import CascadeRequest, make_cascade
from tensmith.driver.cascading.thresholds import (
    JudgedSamples,
    check_useful,
    choose_thresholds,
    thresholds_of,
    told_of,
)
from tensmith.driver.request import CompileRequest
from tensmith.frontends.onnx.cascading.merging import CascadeStages, cascade_model
from tensmith.runtime.counting import Counters

pytestmark = needs_native
Array = np.ndarray[Any, Any]
ROWS, FEATURES, CLASSES = 37, 12, 5


def _dense(
    path: Path, seed: int, batch: int | str = "batch", softmax: bool = False, extra: bool = False
) -> tuple[Path, Callable[[Array], Array]]:
    """A model of one product, and the same in numpy."""
    weight = np.random.default_rng(seed).normal(size=(FEATURES, CLASSES)).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p" if softmax else "y"])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["p"], ["y"], axis=1))
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, CLASSES])]
    if extra:
        nodes.append(helper.make_node("ReduceMax", ["x"], ["sure"], axes=[1], keepdims=1))
        outputs.append(helper.make_tensor_value_info("sure", TensorProto.FLOAT, [batch, 1]))
    graph = helper.make_graph(
        nodes, "dense", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, FEATURES])],
        outputs, [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13 if extra else 17)])
    model.ir_version = 8
    onnx.save(model, path)
    return path, lambda x: _softmax(x @ weight) if softmax else x @ weight


def _softmax(scores: Array) -> Array:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(found / found.sum(axis=1, keepdims=True))


def _sure(kind: str, scores: Array, x: Array) -> Array:
    ordered = np.sort(_softmax(scores), axis=1)
    if kind == "max_softmax":
        return ordered[:, -1]
    if kind == "margin":
        return ordered[:, -1] - ordered[:, -2]
    if kind == "entropy":
        return 1 + np.sum(ordered * np.log(ordered), axis=1) / np.log(CLASSES)
    return x.max(axis=1)


def _compiled(stages: CascadeStages, threshold: float, folder: Path, **options: Any) -> Any:
    path = folder / "both.onnx"
    path.write_bytes(cascade_model(stages, threshold).SerializeToString())
    onnx.checker.check_model(onnx.load(path), full_check=True)
    return tensmith.compile(path, **options).load()


@pytest.mark.parametrize("kind", ["max_softmax", "margin", "entropy", "sure"])
def test_rows_are_deferred_one_by_one(tmp_path: Path, kind: str) -> None:
    small, run_small = _dense(tmp_path / "small.onnx", 1, extra=kind == "sure")
    large, run_large = _dense(tmp_path / "large.onnx", 2)
    x = np.random.default_rng(3).normal(size=(ROWS, FEATURES)).astype(np.float32)
    sure = _sure(kind, run_small(x), x)
    for quantile, least, most in ((0.4, 10, 20), (0.0, 0, 0), (1.0, ROWS, ROWS)):
        cut = float(np.quantile(sure, quantile)) + (1e-3 if quantile == 1.0 else -1e-5)
        module = _compiled(CascadeStages(small, large, kind), cut, tmp_path)
        told = module({"x": x})
        deferred = sure < cut
        assert least <= deferred.sum() <= most
        np.testing.assert_array_equal(told["deferred"], deferred)
        assert module.counters() == Counters(
            1, ROWS, deferred.sum(), (ROWS - deferred.sum(), deferred.sum())
        )
        wanted = np.where(deferred[:, None], run_large(x), run_small(x))
        np.testing.assert_allclose(told["y"], wanted, rtol=1e-4, atol=1e-5)
        for row in range(3):  # of another size, in the same instance
            one = module({"x": x[row : row + 1]})
            np.testing.assert_allclose(one["y"], wanted[row : row + 1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("batch", "single"), [(1, False), ("batch", True), (4, False)])
def test_fixed_batches(tmp_path: Path, batch: int | str, single: bool) -> None:
    small, run_small = _dense(tmp_path / "small.onnx", 1, batch, softmax=True)
    large, run_large = _dense(tmp_path / "large.onnx", 2, batch, softmax=True)
    rows = batch if isinstance(batch, int) else 1
    x = np.random.default_rng(3).normal(size=(8, rows, FEATURES)).astype(np.float32)
    scores = np.concatenate([run_small(own) for own in x])
    cut = float(np.median(scores.max(axis=1))) + 1e-5
    module = _compiled(CascadeStages(small, large, single=single), cut, tmp_path)
    for own in x:
        deferred = run_small(own).max(axis=1) < cut
        told = module({"x": own})
        np.testing.assert_array_equal(told["deferred"], deferred)
        wanted = np.where(deferred[:, None], run_large(own), run_small(own))
        np.testing.assert_allclose(told["y"], wanted, rtol=1e-4, atol=1e-5)


def test_a_router_decides(tmp_path: Path) -> None:
    small, run_small = _dense(tmp_path / "small.onnx", 1)
    large, run_large = _dense(tmp_path / "large.onnx", 2)
    graph = helper.make_graph(
        [helper.make_node("ReduceMin", ["x"], ["score"], axes=[1], keepdims=0)], "router",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", FEATURES])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["rows"])],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "router.onnx")
    stages = CascadeStages(small, large, router=tmp_path / "router.onnx")
    x = np.random.default_rng(3).normal(size=(ROWS, FEATURES)).astype(np.float32)
    told = _compiled(stages, -1.5, tmp_path)({"x": x})
    deferred = x.min(axis=1) < -1.5
    assert 5 < deferred.sum() < ROWS - 5
    np.testing.assert_array_equal(told["deferred"], deferred)
    wanted = np.where(deferred[:, None], run_large(x), run_small(x))
    np.testing.assert_allclose(told["y"], wanted, rtol=1e-4, atol=1e-5)


def test_one_arena_serves_both(tmp_path: Path) -> None:
    """The large model runs where the small one's results, but for its answer, have been."""
    small, _ = _dense(tmp_path / "small.onnx", 1, 4)
    large, _ = _dense(tmp_path / "large.onnx", 2, 4)
    path = tmp_path / "both.onnx"
    path.write_bytes(cascade_model(CascadeStages(small, large), 0.5).SerializeToString())
    both = tensmith.compile(path).manifest["memory"]["arena_bytes"]
    assert 0 < both < 4096


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("outputs", "give models of the same outputs"),
        ("inputs", "give models of the same inputs"),
        ("confidence", "has no output 'beauty'"),
    ],
)
def test_models_that_do_not_fit(tmp_path: Path, change: str, message: str) -> None:
    small, _ = _dense(tmp_path / "small.onnx", 1)
    large, _ = _dense(tmp_path / "large.onnx", 2)
    model = onnx.load(large)
    if change != "confidence":
        info = model.graph.output[0] if change == "outputs" else model.graph.input[0]
        info.type.tensor_type.shape.dim[1].dim_value = 99
        onnx.save(model, large)
    stages = CascadeStages(small, large, "beauty" if change == "confidence" else "margin")
    with pytest.raises(UsageError, match=message):
        cascade_model(stages, 0.5)


# ---------------------------------------------------------------------- thresholds


def _judged(count: int, seed: int = 0) -> JudgedSamples:
    """A small model that is right as often as it is sure, and a large one that is always right."""
    rng = np.random.default_rng(seed)
    sure = rng.random(count).astype(np.float32)
    small = [np.array([float(right)]) for right in rng.random(count) < 0.5 + sure / 2]
    return JudgedSamples(TABLE["top1"], [small, [np.ones(1)] * count], [sure])


def test_the_threshold_is_the_lowest_within_the_limit() -> None:
    samples = _judged(2000)
    found = choose_thresholds(samples, 0.05, (1, 10))
    own, (threshold,) = samples.part(0), found.thresholds
    assert own.drop((threshold,)).drop <= 0.05
    lower = max(t for t in thresholds_of(own.confidences[0]) if t < threshold - 1e-6)
    assert own.drop((lower,)).drop > 0.05
    assert found.answered == pytest.approx(found.chosen_answered, abs=0.05)
    assert found.deferred == pytest.approx(found.answered[1])
    assert found.drop.rows == 1000
    assert found.drop.drop == pytest.approx(0.05, abs=0.03)
    assert choose_thresholds(samples, 1.0, (1, 10)).deferred == 0.0


def test_nothing_can_be_left_to_a_small_model_that_is_always_wrong() -> None:
    count = 64
    wrong = JudgedSamples(
        TABLE["top1"], [[np.zeros(1)] * count, [np.ones(1)] * count], [np.linspace(0, 1, count)]
    )
    found = choose_thresholds(wrong, 0.01, (1, 10))
    assert found.chosen_answered == (0.0, 1.0)
    with pytest.raises(BudgetError, match="answers nothing by itself"):
        check_useful(found, 0.01)
    with pytest.raises(UsageError, match="too few"):
        choose_thresholds(_judged(8), 0.1, (1, 10))


def test_what_a_threshold_does_takes_two_samples() -> None:
    assert told_of(_judged(2), (0.5,)).drop.rows == 1
    with pytest.raises(UsageError, match="one sample cannot tell"):
        told_of(_judged(1), (0.5,))


# ---------------------------------------------------------------------- the whole


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A large model whose answers are the labels, and a small one that is nearly it."""
    large, run_large = _dense(tmp_path / "large.onnx", 2)
    model = onnx.load(large)
    weight = numpy_helper.to_array(model.graph.initializer[0])
    noise = np.random.default_rng(5).normal(scale=0.5, size=weight.shape).astype(np.float32)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight + noise, "w"))
    onnx.save(model, tmp_path / "small.onnx")
    x = np.random.default_rng(3).normal(size=(400, FEATURES)).astype(np.float32)
    labels = run_large(x).argmax(axis=1)
    np.savez(tmp_path / "eval.npz", x=x, labels=labels)
    words = [
        "cascade", str(tmp_path / "small.onnx"), str(large), "--eval", str(tmp_path / "eval.npz"),
        "--max-accuracy-drop", "1%", "-o", str(tmp_path / "both.so"), "--json",
    ]  # fmt: skip
    assert cli.main(words) == 0
    out = json.loads(capsys.readouterr().out)
    told, report = out["manifest"]["cascade"], out["report"]
    choice = told["report"]["choice"]
    assert 0.02 < choice["deferred"] < 0.9
    small, last = choice["scores"]
    assert small < 0.97
    assert last == 1.0
    predicted = told["report"]["predicted"]
    assert {own["kind"] for own in predicted.values()} == {"modelled"}
    assert 0 < predicted["expected"]["value"] < predicted["p99"]["value"]
    assert "measured" not in told["report"]
    measured = report["measured"]
    assert {own["kind"] for own in measured.values()} == {"measured"}
    assert measured["p99"]["value"] > 0
    module = tensmith.load(tmp_path / "both.so")
    out = module({"x": x})
    assert module.manifest["cascade"] == told
    assert (out["y"].argmax(axis=1) == labels).mean() > small
    deferred = (choice["answered"][1] + choice["chosen_answered"][1]) / 2
    assert out["deferred"].mean() == pytest.approx(deferred, abs=0.01)


def test_a_given_threshold_needs_no_data(tmp_path: Path) -> None:
    small, _ = _dense(tmp_path / "small.onnx", 1)
    large, _ = _dense(tmp_path / "large.onnx", 2)
    stages = CascadeStages(small, large)
    found = make_cascade(CascadeRequest(stages, CompileRequest(), "0.5"), tmp_path)
    assert found.report is None
    assert found.artifact.manifest["cascade"]["thresholds"] == [0.5]
    with pytest.raises(UsageError, match="give --eval, or a number"):
        CascadeRequest(stages, CompileRequest())
    with pytest.raises(UsageError, match="the threshold is 'some'"):
        CascadeRequest(stages, CompileRequest(), "some")
