"""Another engine checks the reference: agreement, dispute, and when nobody is asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from tensmith.compiler.errors import UsageError, VerificationError
from tensmith.driver import api, cli
from tensmith.driver.engines import EngineSpec, open_engine
from tensmith.driver.model_build import import_model
from tensmith.driver.samples import Sampler
from tensmith.driver.second_opinion import engines_to_ask, second_opinion
from tensmith.driver.verify import Verification
from tensmith.driver.verify_report import PASSED, VerifyReport

ENGINES = ("onnxruntime", "onnx")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each engine in turn, as the one that the knob names."""
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    monkeypatch.setenv("TENSMITH_SECOND_OPINION", request.param)
    return str(request.param)


def _asked(path: Path, **settings: float) -> VerifyReport | None:
    """The opinion on a model whose reference is taken to have agreed."""
    library = api.compile(path).save(path.with_suffix(".so"))[0]
    job = Verification(EngineSpec("tensmith", library), path, **settings)
    agreed = VerifyReport(PASSED, "reference", draws=[({"batch": 3}, 0), ({"batch": 1}, 1)])
    agreed.opinion = second_opinion(job, agreed, Sampler(import_model(path, {})))
    return agreed if agreed.opinion else None


def test_confirmed(fake, model_path: Path, engine: str) -> None:
    report = api.compile(model_path).verify()
    assert report.opinion is not None
    assert report.opinion.status == "passed"
    assert report.summary().startswith(f"verified against reference and {engine}: 2 input sets")
    assert not report.disputed


def test_dispute_is_told_and_is_no_success(fake, model_path: Path, engine: str) -> None:
    fake.factor = "1.99f"
    report = _asked(model_path)
    assert report is not None
    assert report.disputed
    assert report.summary().startswith(f"DISPUTED: agrees with the reference, but {engine} says")
    error = report.error()
    assert isinstance(error, VerificationError)
    assert engine in error.what
    assert "SECOND_OPINION=off" in error.remedy
    report.raise_if_failed()  # neither side is preferred


def test_compile_warns_and_verify_fails_on_a_dispute(
    fake, model_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    disputed = VerifyReport("failed", "onnxruntime", "output 'y' differs")
    module = "tensmith.driver.second_opinion"
    monkeypatch.setattr(f"{module}.second_opinion", lambda *arguments: disputed)
    output = model_path.with_suffix(".so")
    assert cli.main(["compile", str(model_path), "-o", str(output)]) == 0
    assert "warning: DISPUTED" in capsys.readouterr().err
    assert output.is_file()
    assert cli.main(["compile", str(model_path), "-o", str(output), "--verify"]) == 4
    capsys.readouterr()
    assert cli.main(["verify", str(model_path), "--json"]) == 4
    answer = json.loads(capsys.readouterr().out)
    assert answer["opinion"]["reason"] == "output 'y' differs"
    with pytest.warns(UserWarning, match="DISPUTED"):
        api.compile(model_path, verify=True)


def test_nobody_is_asked_without_time_or_by_the_knob(
    fake, model_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _asked(model_path) is None  # the suite's setting
    monkeypatch.setenv("TENSMITH_SECOND_OPINION", "onnx")
    assert _asked(model_path, time_limit=0.5) is None
    assert _asked(model_path, time_limit=60.0) is not None


def test_random_numbers_are_each_engine_s_own(fake, save_model, engine: str) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"]),
        helper.make_node("Sub", ["noise", "noise"], ["zero"]),
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Add", ["twice", "zero"], ["y"]),
    ]
    report = api.compile(save_model(nodes, ["batch", 4])).verify()
    assert report.status == "passed"
    assert report.opinion is not None
    assert report.opinion.status == "incomplete"
    assert "random numbers" in report.opinion.reason
    assert "and" not in report.summary()


def test_engines_that_do_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSMITH_SECOND_OPINION", "everybody")
    with pytest.raises(UsageError, match="everybody"):
        engines_to_ask()


def test_what_is_installed_is_asked_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TENSMITH_SECOND_OPINION")
    monkeypatch.setattr(
        "tensmith.driver.second_opinion.find_spec", lambda name: name == "onnx" or None
    )
    assert engines_to_ask() == ("onnx",)


def test_sequences_are_compared_element_by_element(tmp_path: Path, engine: str) -> None:
    """Inputs and outputs that are sequences have a name for each element, on either side."""
    of_rows = helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 3])
    infos = [
        helper.make_value_info(name, helper.make_sequence_type_proto(of_rows)) for name in "xy"
    ]
    one = helper.make_tensor("one", TensorProto.FLOAT, [1, 3], [1, 2, 3])
    nodes = [helper.make_node("SequenceInsert", ["x", "one"], ["y"])]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [one])
    opset = [helper.make_opsetid("", 17)]
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    shapes = {"x_0": ("a", 3), "x_1": ("b", 3)}
    feed = {f"x_{i}": np.full((i + 1, 3), i, np.float32) for i in range(2)}
    ours, theirs = (
        open_engine(EngineSpec(kind, path, shapes=shapes))(feed) for kind in ("reference", engine)
    )
    assert list(ours) == list(theirs) == ["y_0", "y_1", "y_2"]
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name])
