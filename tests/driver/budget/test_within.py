"""From a model, data and a budget to a binary: what stays in floats, what is told, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.backends.reference import run_graph
from tensmith.compiler.errors import BudgetError, ModelWarning, UsageError
from tensmith.driver import api, journal
from tensmith.driver.artifacts import Artifact
from tensmith.driver.request import CompileRequest
from tensmith.driver.timing import Runs
from tensmith.frontends.onnx import load

pytestmark = needs_native
Array = np.ndarray[Any, Any]
SAMPLES = np.random.default_rng(7).standard_normal((8, 1, 3, 8, 8)).astype(np.float32)
JUDGED = np.random.default_rng(8).standard_normal((60, 1, 3, 8, 8)).astype(np.float32)


def weights(*shape: int, seed: int) -> Array:
    drawn = np.random.default_rng(seed).standard_normal(shape)
    return np.asarray(drawn / np.sqrt(np.prod(shape[1:])), np.float32)


def store(folder: Path) -> Path:
    """A classifier; the data of `bad` have channels that one scale cannot serve."""
    scale = np.geomspace(1, 3000, 8).astype(np.float32)
    constants = {
        "w": weights(8, 3, 3, 3, seed=0) * scale.reshape(8, 1, 1, 1),
        "b": weights(16, 8, 3, 3, seed=1) / scale.reshape(1, 8, 1, 1),
        "m": weights(5, 256, seed=2).T.copy(),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["c"], "good", pads=[1, 1, 1, 1]),
            helper.make_node("Conv", ["c", "b"], ["e"], "bad", strides=[2, 2], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["e"], ["f"]),
            helper.make_node("Flatten", ["f"], ["v"]),
            helper.make_node("MatMul", ["v", "m"], ["l"], "last"),
            helper.make_node("Softmax", ["l"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 5))],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(onnx.shape_inference.infer_shapes(model), folder / "net.onnx")
    return folder / "net.onnx"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store(tmp_path_factory.mktemp("net"))


@pytest.fixture(scope="module")
def labels(net: Path) -> Array:
    graph = load(net)
    return np.array([run_graph(graph, {"x": x})["y"].argmax() for x in JUDGED])


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Journals lie in a folder of the test; binaries are timed (by the clock of the request)."""
    monkeypatch.setattr(journal, "writable_cache", lambda: tmp_path)
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")
    return tmp_path


class Clock:
    """Seconds by name, whatever the machine does; what has none takes 3."""

    def __init__(self, **seconds: float) -> None:
        self.seconds = {"bytes": 0.1, **seconds}

    def __call__(self, runs: Runs) -> Mapping[str, list[float]]:
        return {name: [self.seconds.get(name, 3.0)] for name in runs}


def request(labels: Array | None, **given: Any) -> CompileRequest:
    judged = {"x": JUDGED} if labels is None else {"x": JUDGED, "labels": labels}
    wanted = {
        "precision": "int8",
        "calibration": {"x": SAMPLES},
        "eval": judged,
        "max_accuracy_drop": "5%",
        "timer": Clock(int8=1.0, fp32=2.0),
    }
    return CompileRequest(**{**wanted, **given})


def precisions(artifact: Artifact) -> dict[str, str]:
    return {row["name"]: row["precision"] for row in artifact.manifest["contractions"]}


def test_a_layer_that_quantises_badly_stays_in_floats(net: Path, labels: Array, kept: Path) -> None:
    artifact = api.compile_request(net, request(labels))
    report = artifact.budget
    assert report is not None
    assert report.drop is not None
    assert report.met
    assert (report.metric, report.given, report.limit) == ("top1", "5%", 0.05)
    assert precisions(artifact) == {"good": "int8", "bad": "fp32", "last": "int8"}
    module = artifact.load()

    def classes(x: Array) -> int:
        return int(module({"x": x})["y"].argmax())

    right = np.mean([c == y for c, y in zip(map(classes, JUDGED), labels, strict=True)])
    assert right == pytest.approx(report.drop.score)
    assert report.drop.exact == 1.0
    told = artifact.manifest["budget"]
    assert told["met"]
    assert not told["proved"]
    assert told["results_to_prove"] > 60
    by_name = {group["products"][0]: group for group in told["groups"]}
    assert by_name["bad"]["reason"] == "for the accuracy budget"
    assert by_name["bad"]["error"] > 10 * by_name["good"]["error"] > 0
    assert (by_name["last"]["fp32_seconds"], by_name["last"]["int8_seconds"]) == (2.0, 1.0)
    assert by_name["good"]["int8_seconds"] == 1.1  # bytes of an input are made besides
    json.dumps(artifact.manifest, allow_nan=False)
    lines = report.summary()
    assert lines[0].startswith("budget of 5% in top1: met, drop ")
    assert "too few to prove it" in lines[1]
    assert "2 of 3 groups of products in int8" in lines[2]


def test_an_impossible_budget(net: Path, kept: Path, call: Any) -> None:
    """The best is written and named; Python gets it with the error."""
    asked = request(None, max_accuracy_drop="90dB", metric="snr")
    artifact = api.compile_request(net, asked)
    assert artifact.budget is not None
    assert not artifact.budget.met
    assert "int8" in precisions(artifact).values()
    assert artifact.choice is not None
    assert artifact.choice.reason == "not timed: the budget is not met"
    np.savez(kept / "c.npz", x=SAMPLES)
    np.savez(kept / "e.npz", x=JUDGED)
    code, out, err = call(
        "compile", net, "-o", kept / "net.so", "--precision", "int8", "--calibration",
        kept / "c.npz", "--eval", kept / "e.npz", "--max-accuracy-drop", "90dB", "--metric", "snr",
        "--no-verify",
    )  # fmt: skip
    assert code == 5
    assert "the budget of 90 dB in snr is not met: the best that was found loses" in err
    assert "--precision auto" in err
    assert "NOT met" in out
    assert "Groups of products" in out
    module = tensmith.load(kept / "net.so")
    assert module.manifest["budget"]["met"] is False
    given = {"calibration": {"x": SAMPLES}, "eval": {"x": JUDGED}, "metric": "snr"}
    with pytest.raises(BudgetError, match="is not met") as caught:
        tensmith.compile(net, precision="int8", max_accuracy_drop="90dB", **given)
    best = caught.value.best.budget  # not the same groups: these are timed by the clock
    assert not best.met
    assert best.drop.drop > 0
    assert "int8" in precisions(caught.value.best).values()


def test_an_interrupted_search_goes_on(net: Path, labels: Array, kept: Path) -> None:
    seen: list[str] = []

    def until(text: str) -> Callable[[str], None]:
        def progress(told: str) -> None:
            seen.append(told)
            if text and text in told:
                raise KeyboardInterrupt

        return progress

    with pytest.raises(KeyboardInterrupt):
        api.compile_request(net, request(labels, progress=until("groups alone (3")))
    assert "calibrating (1)" in seen
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        api.compile_request(net, request(labels, progress=until("evaluating 3 of 3 groups")))
    assert "calibrating (1)" not in seen
    assert [text for text in seen if "alone" in text] == ["measuring groups alone (1 of 1)"]
    seen.clear()
    third = api.compile_request(net, request(labels, progress=until("")))
    assert not any("alone" in text for text in seen)
    assert any("groups in int8" in text for text in seen)
    seen.clear()
    fourth = api.compile_request(net, request(labels, progress=until("")))
    assert not any("evaluating" in text or "switches" in text for text in seen)
    assert third.budget is not None
    assert fourth.budget is not None
    assert fourth.budget.kept > third.budget.kept
    assert fourth.budget.groups == third.budget.groups
    assert fourth.budget.drop == third.budget.drop
    api.compile_request(net, request(labels, progress=until(""), fresh=True))
    assert "calibrating (1)" in seen


def test_where_integers_are_slower(net: Path, labels: Array, kept: Path) -> None:
    slow = request(labels, timer=Clock(int8=2.0, fp32=1.0))
    with pytest.warns(ModelWarning, match="nothing that is within the budget is faster"):
        artifact = api.compile_request(net, slow)
    assert artifact.manifest["precision"] == "fp32"
    assert artifact.manifest["precision_choice"]["kept"] == "fp32"
    assert artifact.budget is not None
    assert (artifact.budget.met, artifact.budget.drop) == (True, None)
    assert {group.reason for group in artifact.budget.groups} == {"int8 is no faster"}
    assert artifact.budget.summary()[0].endswith("met, nothing is in lower precision")


def test_functions_are_metrics(net: Path, labels: Array, kept: Path) -> None:
    """And other machines' binaries are chosen by the work that integers take over."""

    def loss(outputs: dict[str, Array], labels: Array) -> float:
        rows = np.arange(len(labels))
        return float(-np.log(outputs["y"][rows, labels]).mean())

    asked = request(labels, metric=loss, metric_direction="lower", target="aarch64:cortex-a76")
    artifact = api.compile_request(net, asked)
    report = artifact.budget
    assert report is not None
    assert report.drop is not None
    assert report.metric == "loss"
    assert report.met
    assert report.limit == pytest.approx(0.05 * report.drop.exact)
    assert report.drop.low < report.drop.drop < report.drop.high
    assert precisions(artifact)["bad"] == "fp32"
    assert all(group.int8_seconds is None for group in report.groups)
    assert artifact.choice is not None
    assert "another machine" in artifact.choice.reason


def test_the_fastest_within_the_budget(net: Path, labels: Array, kept: Path) -> None:
    def chosen(**seconds: float) -> Artifact:
        clock = Clock(fp32=2.0, **seconds)
        asked = request(labels, precision="auto", max_accuracy_drop=None, timer=clock)
        return api.compile_request(net, asked)

    integer = chosen(int8=1.0)
    assert integer.choice is not None
    assert (integer.choice.asked, integer.choice.kept) == ("auto", "int8")
    assert integer.budget is not None
    assert integer.budget.given == "1%"
    plain = chosen(int8=5.0)
    assert plain.choice is not None
    assert plain.choice.kept == "fp32"
    assert plain.manifest["precision"] == "fp32"
    assert plain.budget is not None
    assert plain.budget.met


def test_without_calibration_weights_alone_are_tried(kept: Path) -> None:
    draw = np.random.default_rng(2).standard_normal
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "m"], ["y"], "product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 128))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 256))],
        [numpy_helper.from_array(draw((128, 256)).astype(np.float32), "m")],
    )
    opsets = [helper.make_opsetid("", 17)]
    path = kept / "product.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    judged = {"x": draw((6, 1, 128)).astype(np.float32)}
    clock = Clock(**{"fp32": 2.0, "int8-weights": 1.0})
    asked = CompileRequest(precision="auto", eval=judged, metric="snr", timer=clock)
    artifact = api.compile_request(path, asked)
    assert artifact.choice is not None
    assert artifact.choice.kept == "int8-weights"
    assert "int8 needs calibration data" in artifact.choice.reason
    assert artifact.budget is not None
    assert artifact.budget.met
    assert precisions(artifact) == {"product": "int8 weights"}


def test_other_machines_have_no_fastest(net: Path, labels: Array, kept: Path) -> None:
    asked = request(labels, precision="auto", target="aarch64:cortex-a76")
    with pytest.raises(UsageError, match="by times that are measured"):
        api.compile_request(net, asked)


def test_halves_have_budgets_too(net: Path, labels: Array, kept: Path) -> None:
    """What they lose is measured by their binary; nothing is searched."""
    asked = request(labels, precision="bf16", calibration=None, timer=Clock(bf16=1.0, fp32=2.0))
    artifact = api.compile_request(net, asked)
    assert artifact.choice is not None
    if artifact.choice.seconds:  # the target has what multiplies bf16
        assert artifact.budget is not None
        assert artifact.budget.drop is not None
        assert artifact.budget.groups == ()
    elsewhere = request(labels, precision="bf16", calibration=None, target="aarch64:cortex-a76")
    with pytest.raises(UsageError, match="another machine's"):
        api.compile_request(net, elsewhere)


def test_verify_wants_one_precision(net: Path, call: Any) -> None:
    code, _, err = call("verify", net, "--precision", "auto", "--calibration", "c.npz")
    assert code == 2
    assert "name a precision" in err


@pytest.mark.parametrize(
    ("judged", "given", "what"),
    [
        ({"x": JUDGED, "labels": np.arange(7)}, {}, "60 samples, and labels of shape [7]"),
        ({"x": JUDGED, "a": np.arange(60), "b": np.arange(60)}, {}, "arrays for no input: b"),
        ({"y": JUDGED}, {}, "no value for the input(s) x"),
        ({"x": JUDGED * np.float32("nan")}, {}, "NaN or infinite"),
        ({"x": JUDGED.astype(np.float64)}, {}, "'x' is float64, and the input is float32"),
        ({"x": JUDGED}, {"metric": "top1"}, "needs labels, and the data have none"),
        ({"x": JUDGED, "labels": np.full(60, 0.5)}, {"metric": "top1"}, "needs numbers of classes"),
        ({"x": JUDGED}, {"max_accuracy_drop": "9dB", "metric": "cosine"}, "one of the metric snr"),
        ([{"x": JUDGED[0], "labels": 1}, {"x": JUDGED[1]}], {}, "some records have labels"),
        ("none.npz", {}, "there is no evaluation data 'none.npz'"),
    ],
)  # fmt: skip
def test_malformed_data(net: Path, kept: Path, judged: Any, given: Any, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        api.compile_request(net, request(None, eval=judged, **given))
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"precision": "fp32", "max_accuracy_drop": 0.1}, "fp32 loses nothing"),
        ({"precision": "int8", "max_accuracy_drop": 0.1}, "needs calibration data"),
        ({"precision": "bf16", "max_accuracy_drop": 0.1}, "needs data to measure with"),
        ({"precision": "auto"}, "needs data to measure with"),
        ({"precision": "bf16", "eval": {}}, "change nothing without a budget"),
        ({"precision": "auto", "eval": {}, "metric": "best"}, "there is no metric 'best'"),
        ({"precision": "auto", "eval": {}, "max_accuracy_drop": "x"}, "is not an accuracy drop"),
    ],
)
def test_requests_that_cannot_be(given: Any, what: str) -> None:
    with pytest.raises(UsageError) as caught:
        CompileRequest(**given)
    assert what in str(caught.value)


class Judge:
    """A metric with a state."""

    def __init__(self, share: float) -> None:
        self.share = share

    def judge(self, outputs: dict[str, Array], labels: Array) -> float:
        return self.share * float(np.mean(outputs["y"].argmax(1) == labels))


def test_figures_of_functions_are_known_by_what_is_in_their_source(
    net: Path, labels: Array, kept: Path
) -> None:
    """One that takes a variable from around it is found anew, whatever that is."""

    def metric(share: float) -> Callable[..., float]:
        return lambda outputs, labels: share * float(np.mean(outputs["y"].argmax(1) == labels))

    def plain(outputs: dict[str, Array], labels: Array) -> float:
        return float(np.mean(outputs["y"].argmax(1) == labels))

    cases = (
        (metric(1.0), True, 1.0),
        (metric(0.5), True, 0.5),
        (Judge(1.0).judge, True, 1.0),
        (Judge(0.5).judge, True, 0.5),
        (plain, True, 1.0),
        (plain, False, 1.0),
    )
    for function, anew, exact in cases:
        seen: list[str] = []
        asked = request(labels, metric=function, max_accuracy_drop="90%", progress=seen.append)
        report = api.compile_request(net, asked).budget
        assert any("evaluating" in text for text in seen) == anew
        assert report is not None
        assert report.drop is not None
        assert report.drop.exact == exact


def test_a_budget_of_nothing_is_searched_as_one(net: Path, labels: Array, kept: Path) -> None:
    wrong = np.array([*labels[:30], *((labels[30:] + 1) % 5)])
    report = api.compile_request(net, request(wrong, max_accuracy_drop=0)).budget
    assert report is not None
    assert (report.given, report.limit) == ("0", 0.0)


def test_a_full_disk_is_told(net: Path, labels: Array, kept: Path) -> None:
    (kept / journal.FOLDER).write_text("no folder")
    with pytest.warns(ModelWarning, match="results of the search are not kept"):
        artifact = api.compile_request(net, request(labels))
    assert artifact.budget is not None
    assert artifact.budget.met
