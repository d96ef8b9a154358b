"""Models that fail are made small, and fail as before."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.compiler.errors import InternalError, UsageError
from tensmith.driver import api, engines, reduce, trial
from tensmith.driver.cli import main
from tensmith.driver.reduce import reduce_model
from tensmith.driver.trial import (
    COMPILE,
    CRASH,
    DIFFERS,
    EXCEPTION,
    FAILS,
    FINE,
    HANG,
    INTERNAL,
    PEER,
    REFERENCE,
    REFUSED,
    WRONG,
    ModelTrial,
    Outcome,
)

Reached = Callable[[str], None]


def _model(folder: Path, *, op: str = "Celu", domain: str = "") -> Path:
    """A network whose one branch of an If, in the middle, has the operator."""

    def branch(name: str, nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
        result = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
        return helper.make_graph(nodes, name, [], [result])

    def node(op: str, inputs: str, output: str, **more: object) -> onnx.NodeProto:
        return helper.make_node(op, inputs.split(), [output], name=f"secret/{output}", **more)

    then = branch("then", [node("Tanh", "h", "t1"), node(op, "t1", "t2", domain=domain, alpha=0.5)])
    nodes = [
        node("MatMul", "x weight", "a"),
        node("Add", "a bias", "b"),
        node("Relu", "b", "h"),
        node(
            "If", "flag", "i", then_branch=then, else_branch=branch("e", [node("Neg", "h", "e1")])
        ),
        node("Mul", "i h", "m"),
        node("ReduceMean", "m", "y", axes=[1]),
        node("Sigmoid", "b", "z"),
    ]
    info = helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    weights = {"weight": rng.standard_normal((200, 160)), "bias": rng.standard_normal(160)}
    graph = helper.make_graph(
        nodes,
        "secret",
        [info("x", TensorProto.FLOAT, ["n", 200]), info("flag", TensorProto.BOOL, [])],
        [info("y", TensorProto.FLOAT, None), info("z", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(array), name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("of.mine", 1)]
    path = folder / "model.onnx"
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="secret")
    helper.set_model_props(model, {"author": "secret"})
    onnx.save(model, path)
    return path


def test_a_refusal_is_reduced_to_its_node(tmp_path: Path) -> None:
    source, output = _model(tmp_path, op="Strange", domain="of.mine"), tmp_path / "small.onnx"
    found = reduce_model(source, output)
    assert found.failure.kind == REFUSED
    assert "Strange" in found.failure.text
    small = onnx.load(output)
    assert [node.op_type for node in small.graph.node] == ["Strange"]
    assert not small.graph.initializer
    assert (found.before[0], found.after[0]) == (10, 1)
    assert found.trials < 60


def test_what_is_private_is_taken_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = _model(tmp_path, op="Strange", domain="of.mine"), tmp_path / "small.onnx"
    words = ["reduce", str(source), "-o", str(output), "--anonymous", "--json"]
    assert main(words) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["anonymous"]
    assert answer["failure"]["kind"] == REFUSED
    assert b"secret" not in output.read_bytes()


def test_a_model_that_does_not_fail(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not fail"):
        reduce_model(_model(tmp_path), tmp_path / "small.onnx")


class _Judge(reduce.Trials):
    """Judges models by what they hold instead of compiling them."""

    fails: Callable[[onnx.ModelProto], bool]

    def _ask(self, task: ModelTrial) -> Outcome:
        self.count += 1
        model = onnx.load(task.path, load_external_data=False)
        return Outcome(INTERNAL, "it broke") if _has_pair(model) else Outcome(FINE)


def _has_pair(model: onnx.ModelProto) -> bool:
    """Whether a Mul and a ReduceMean are in it, and an If of which a branch has a Celu."""
    operators = {node.op_type: node for node in model.graph.node}
    inner = {
        node.op_type
        for attribute in getattr(operators.get("If"), "attribute", ())
        for node in attribute.g.node
    }
    return {"Mul", "ReduceMean"} <= set(operators) and "Celu" in inner


def test_what_the_failure_needs_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "Trials", _Judge)
    output = tmp_path / "small.onnx"
    found = reduce_model(_model(tmp_path), output)
    small = onnx.load(output)
    assert sorted(node.op_type for node in small.graph.node) == ["If", "Mul", "ReduceMean"]
    choice = next(node for node in small.graph.node if node.op_type == "If")
    inner = [node.op_type for attribute in choice.attribute for node in attribute.g.node]
    assert inner == ["Celu"]
    assert not small.graph.initializer
    assert found.after == (4, 0)


def test_time_limits_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reduce, "Trials", _Judge)
    found = reduce_model(_model(tmp_path), tmp_path / "small.onnx", seconds=0.0)
    assert found.trials == 1
    assert found.after == found.before


@pytest.mark.parametrize(
    ("fault", "kind", "key", "stage"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), CRASH, "SIGKILL", REFERENCE),
        (lambda: os._exit(7), CRASH, "exit status 7", REFERENCE),
        (lambda: time.sleep(60), HANG, "", REFERENCE),
        (lambda: [][1], EXCEPTION, "IndexError", ""),
    ],
)
def test_a_trial_survives_anything(
    monkeypatch: pytest.MonkeyPatch, fault: Callable[[], None], kind: str, key: str, stage: str
) -> None:
    def attempt(task: ModelTrial, reached: Reached) -> Outcome:
        reached(REFERENCE)
        fault()
        return Outcome(FINE)

    monkeypatch.setattr(trial, "attempt", attempt)
    found = trial.isolated(ModelTrial("model.onnx", seconds=2.0 if kind == HANG else 60.0))
    assert (found.kind, found.key, found.stage) == (kind, key, stage)


@pytest.mark.parametrize(
    ("liar", "depth", "kind"),
    [
        ("tensmith", REFERENCE, DIFFERS),
        ("onnxruntime", PEER, WRONG),
        ("refuses", REFERENCE, FAILS),
        ("nobody", PEER, FINE),
    ],
)
def test_results_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, liar: str, depth: str, kind: str
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is one of those compared")

    def opened(spec: engines.EngineSpec) -> engines.Run:
        run = open_engine(spec)

        def lies(inputs: engines.Arrays) -> dict[str, np.ndarray]:
            if liar == "refuses" and spec.kind == "tensmith":
                raise RuntimeError("dimension 3 is not 4")
            return {name: array + (spec.kind == liar) for name, array in run(inputs).items()}

        return lies

    open_engine = engines.open_engine
    monkeypatch.setattr(engines, "open_engine", opened)
    reached: list[str] = []
    found = trial.attempt(ModelTrial(str(_model(tmp_path)), depth=depth), reached.append)
    assert found.kind == kind, found.text
    assert reached == list(trial.DEPTHS[: trial.DEPTHS.index(depth) + 1])


def test_inputs_that_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are taken where they fit; sizes of the rest follow from them."""
    seen: list[dict[str, np.ndarray]] = []

    def opened(spec: engines.EngineSpec) -> engines.Run:
        run = open_engine(spec)
        return lambda inputs: (seen.append(dict(inputs)), run(inputs))[1]

    open_engine = engines.open_engine
    monkeypatch.setattr(engines, "open_engine", opened)
    given = {"x": np.full((5, 200), 0.25, np.float32), "other": np.zeros(3, np.float32)}
    np.savez(tmp_path / "inputs.npz", **given)
    task = ModelTrial(str(_model(tmp_path)), str(tmp_path / "inputs.npz"), depth=REFERENCE)
    assert trial.attempt(task, lambda stage: None).kind == FINE
    assert set(seen[0]) == {"x", "flag"}
    np.testing.assert_array_equal(seen[0]["x"], given["x"])
    assert len({id(inputs["x"]) for inputs in seen}) == 1


@pytest.mark.parametrize(
    ("error", "kind", "key"),
    [
        (InternalError("pass 'fusion' broke the graph"), INTERNAL, "pass 'fusion' broke the graph"),
        (InternalError("%v12 of 'x' is lost"), INTERNAL, "%v_ of _ is lost"),
        (UsageError("input 'x' is odd"), REFUSED, "UsageError: input _ is odd"),
        (KeyError("x"), EXCEPTION, "KeyError"),
    ],
)
def test_errors_are_told_apart(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str, key: str
) -> None:
    def broken(*given: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(api, "compile_request", broken)
    found = trial.attempt(ModelTrial("model.onnx"), lambda stage: None)
    assert (found.kind, found.key, found.stage) == (kind, key, COMPILE)
