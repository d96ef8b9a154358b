"""Weights of fewer steps within an accuracy budget, of models for an Ethos-U."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tosa_runs import needs_vela

from tensmith.compiler.errors import BudgetError, UsageError
from tensmith.driver import api, journal
from tensmith.driver.budget.coarse_weights import CoarseWeights, _hull, _Move, _Point, _steps
from tensmith.driver.request import CompileRequest
from tensmith.driver.tuning.tune import TuneOptions, TuneWatch, tune_request

TARGET = "ethos-u55-128"
SIZES = (96, 192, 160, 4)
pytestmark = [
    pytest.mark.filterwarnings("ignore:kernels run in an interpreter"),
    pytest.mark.filterwarnings("ignore:weights of|all weights have"),
]


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    """Dense layers, which wait for their weights."""
    rng = np.random.default_rng(0)
    nodes, weights = [], []
    for number, (inner, made) in enumerate(pairwise(SIZES)):
        data = rng.normal(size=(inner, made)) * (2 / inner) ** 0.5
        weights.append(numpy_helper.from_array(data.astype(np.float32), f"w{number}"))
        nodes.append(helper.make_node("MatMul", [f"x{number}", f"w{number}"], [f"d{number}"],
                                      name=f"dense{number}"))  # fmt: skip
        nodes.append(helper.make_node("Relu", [f"d{number}"], [f"x{number + 1}"]))
    nodes.pop()
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [1, SIZES[0]])],
        [helper.make_tensor_value_info("d2", TensorProto.FLOAT, [1, SIZES[-1]])], weights,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("net") / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def _samples(seed: int, count: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x0": rng.normal(size=(count, 1, SIZES[0])).astype(np.float32)}


@pytest.fixture
def budgeted(net, tmp_path, monkeypatch):
    """Compiles within a budget in decibels, with a journal of its own."""
    monkeypatch.setattr(journal, "writable_cache", lambda: tmp_path)

    def compile_(drop: str, **more):
        return api.compile(
            net, target=TARGET, calibration=_samples(1), eval=_samples(2), metric="snr",
            max_accuracy_drop=drop, **more,
        )  # fmt: skip

    return compile_


@needs_vela
def test_cycles_fall_within_the_budget(net, budgeted):
    plain = api.compile(net, target=TARGET, calibration=_samples(1))
    coarse = budgeted("20dB")
    before, after = (a.manifest["npu"]["estimated_cycles"] for a in (plain, coarse))
    assert after < 0.8 * before
    told = coarse.manifest["weight_steps"]
    assert (told["estimated_cycles_before"], told["estimated_cycles"]) == (before, after)
    assert coarse.budget.met
    assert coarse.budget.drop.drop <= 0.01
    assert set(told["steps"]) <= {f"steps of dense{n}" for n in range(3)}
    assert coarse.manifest["npu"]["share"] == 1
    assert any("fewer steps" in note for note in coarse.notes)
    assert coarse.verify().status == "passed"
    assert max(d.max_abs for trial in coarse.report.trials for d in trial) == 0


@needs_vela
def test_the_drop_is_that_of_the_stream(net, budgeted):
    """In the simulator, by hand."""
    coarse = budgeted("20dB")
    weights = [numpy_helper.to_array(w) for w in onnx.load(net).graph.initializer]
    module, noise, signal = coarse.load(), 0.0, 0.0
    for sample in _samples(2)["x0"]:
        wanted = sample
        for weight in weights[:-1]:
            wanted = np.maximum(wanted @ weight, 0)
        wanted = wanted @ weights[-1]
        (found,) = module({"x0": sample}).values()
        noise, signal = noise + np.square(found - wanted).sum(), signal + np.square(wanted).sum()
    assert noise / signal == pytest.approx(coarse.budget.drop.drop, rel=1e-3)


@needs_vela
def test_a_search_is_kept(budgeted, monkeypatch):
    first = budgeted("20dB")

    def again(*_):
        raise UsageError("searched anew")

    monkeypatch.setattr("tensmith.driver.budget.coarse_weights._Search._search", again)
    second = budgeted("20dB")
    assert second.manifest["weight_steps"] == first.manifest["weight_steps"]
    with pytest.raises(UsageError, match="anew"):
        budgeted("20dB", fresh=True)
    with pytest.raises(UsageError, match="anew"):  # other streams come of it
        budgeted("20dB", opt_level=0)
    vela = "tensmith.backends.ethosu.vela_package.metadata.version"
    monkeypatch.setattr(vela, lambda _: "5.2.99")
    with pytest.raises(UsageError, match="anew"):  # other estimates
        budgeted("20dB")


@needs_vela
def test_tuning_goes_on_from_there(net, tmp_path, budgeted):
    coarse = budgeted("20dB")
    request = CompileRequest(
        target=TARGET, calibration=_samples(1), eval=_samples(2), metric="snr",
        max_accuracy_drop="20dB",
    )  # fmt: skip
    options = TuneOptions(records=tmp_path / "records.db", trials=4)
    result = tune_request(net, request, options, TuneWatch())
    assert result.artifact.manifest["weight_steps"] == coarse.manifest["weight_steps"]
    cycles = [a.manifest["npu"]["estimated_cycles"] for a in (result.artifact, coarse)]
    assert cycles[0] <= cycles[1]


@needs_vela
def test_a_budget_that_bytes_alone_exceed(budgeted):
    with pytest.raises(BudgetError, match="is not met") as caught:
        budgeted("80dB")
    assert caught.value.best.manifest["weight_steps"]["steps"] == {}


def test_points_that_no_mixture_betters():
    points = [_Point(0.0, 100, 0), _Point(1.0, 90, 90), _Point(2.0, 60, 31), _Point(4.0, 60, 22),
              _Point(9.0, 50, 7), _Point(20.0, 55, 5)]  # fmt: skip
    assert [p.steps for p in _hull(points)] == [0, 31, 7]
    assert [p.steps for p in _hull(points[:1])] == [0]


def test_the_last_of_a_products_moves_counts():
    moves = [_Move("a", 31), _Move("b", 63), _Move("a", 7)]
    assert _steps(moves, frozenset({0, 2})) == {"a": 7}
    assert _steps(moves, frozenset({0, 1})) == {"a": 31, "b": 63}
    assert not _steps(moves, frozenset())


def test_what_a_journal_holds_is_read_back():
    from dataclasses import asdict

    from tensmith.driver.budget.drops import Drop
    from tensmith.driver.budget.report import BudgetReport

    report = BudgetReport("snr", "20 dB", 0.01, Drop(0.5, 0.4, 0.6, 0.5, 0.0, 9), met=False,
                          evaluations=3)  # fmt: skip
    found = CoarseWeights("key", {"steps of a": 7}, 2, 90, 100, "estimated", report)
    assert CoarseWeights.from_json(asdict(found)) == found
