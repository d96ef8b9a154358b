"""What is compiled where a lower precision is asked for: the binary that is faster."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper

import tensmith
from tensmith.compiler.backend import resolve_target
from tensmith.compiler.errors import ModelWarning
from tensmith.driver import api, calibrated_recipe, calibrated_search, choosing
from tensmith.driver.precision_choice import PrecisionChoice
from tensmith.driver.request import CompileRequest
from tensmith.driver.timing import Runs, interleaved, share_of, timer_of, why_not_timed

DATA = np.random.default_rng(3).random((4, 2, 16), np.float32)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """y = tanh(x m) n."""
    draw = np.random.default_rng(0).standard_normal
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "m"], ["p"], "first"),
            helper.make_node("Tanh", ["p"], ["t"]),
            helper.make_node("MatMul", ["t", "n"], ["y"], "last"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 16))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(draw((16, 32)).astype(np.float32), "m"),
            numpy_helper.from_array(draw((32, 8)).astype(np.float32), "n"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(onnx.shape_inference.infer_shapes(model), tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


class Clock:
    """Seconds of a call by name, whatever the machine does; calls: what it timed."""

    def __init__(self, **seconds: float) -> None:
        self.seconds, self.calls = seconds, 0

    def __call__(self, runs: Runs) -> Mapping[str, list[float]]:
        for run in runs.values():
            run()
        self.calls += 1
        return {name: [self.seconds[name]] * 3 for name in runs}


def request(clock: Clock | None, **given: Any) -> CompileRequest:
    return CompileRequest(precision="int8", calibration={"x": DATA}, timer=clock, **given)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")


@needs_native
def test_a_faster_binary_is_kept(net: Path, timed: None) -> None:
    clock = Clock(int8=0.001, fp32=0.002)
    artifact = api.compile_request(net, request(clock))
    assert clock.calls == 1
    assert artifact.choice == PrecisionChoice("int8", "int8", "", {"int8": 0.001, "fp32": 0.002})
    assert artifact.choice.summary() == "timed in turns: int8 1 ms, fp32 2 ms; int8 is kept"
    assert artifact.manifest["precision"] == "int8"
    assert artifact.manifest["precision_choice"] == {"asked": "int8", "kept": "int8", "reason": ""}
    assert "quantisation" in artifact.manifest


@needs_native
def test_a_slower_binary_is_not(net: Path, timed: None) -> None:
    with pytest.warns(ModelWarning, match="int8 is not faster on this machine"):
        artifact = api.compile_request(net, request(Clock(int8=0.002, fp32=0.002, bytes=0.001)))
    assert artifact.choice is not None
    assert (artifact.choice.asked, artifact.choice.kept) == ("int8", "fp32")
    assert artifact.manifest["precision"] == "fp32"
    assert artifact.manifest["precision_choice"]["kept"] == "fp32"
    assert "quantisation" not in artifact.manifest
    exact = tensmith.compile(net).load()({"x": DATA[0]})["y"]
    np.testing.assert_array_equal(artifact.load()({"x": DATA[0]})["y"], exact)
    assert artifact.verify().status == "passed"


@needs_native
@pytest.mark.parametrize("share", [0.995, 1.005])
def test_a_binary_that_is_as_fast_gives_way(net: Path, timed: None, share: float) -> None:
    """Times that differ by less than 1 % are not told apart: those of another day may be longer."""
    with pytest.warns(ModelWarning, match="int8 is not faster on this machine"):
        artifact = api.compile_request(net, request(Clock(int8=share, fp32=1.0, bytes=0.5)))
    assert artifact.choice is not None
    assert artifact.choice.kept == artifact.manifest["precision"] == "fp32"


@needs_native
@pytest.mark.parametrize("forced", [False, True])
def test_halves_that_change_no_product_are_fp32(
    net: Path, timed: None, monkeypatch: pytest.MonkeyPatch, forced: bool
) -> None:
    """Nothing is timed: there is nothing to be faster by."""
    monkeypatch.setattr(choosing, "is_lower", lambda artifact: False)
    asked = CompileRequest(precision="bf16", timer=Clock(), force_precision=forced)
    told = pytest.warns(ModelWarning, match="fp32: no product .* bf16; --force-precision .* keeps")
    with nullcontext() if forced else told:
        artifact = api.compile_request(net, asked)
    assert artifact.choice is not None
    assert artifact.choice.kept == artifact.manifest["precision"] == ("bf16" if forced else "fp32")


class Script:
    """Seconds by name of what is timed, one call after the other."""

    def __init__(self, *calls: Mapping[str, float]) -> None:
        self.calls = [*calls]

    def __call__(self, runs: Runs) -> Mapping[str, list[float]]:
        found = self.calls.pop(0)
        assert found.keys() == runs.keys()
        return {name: [seconds] for name, seconds in found.items()}


@needs_native
def test_products_that_integers_make_slower_are_left_in_floats(
    net: Path, timed: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before all are: the others may be faster together."""
    for module in (calibrated_search, calibrated_recipe):
        monkeypatch.setattr(module, "ENOUGH", -1e3)  # nothing is tried for the noise
    script = Script(
        {"int8": 3.0, "fp32": 2.0},
        {"int8": 1.0, "fp32": 3.0},  # the first product,
        {"bytes": 0.5},
        {"int8": 2.0, "fp32": 1.0},  # the last
        {"int8": 1.0, "fp32": 2.0},
    )
    asked = CompileRequest(
        precision="int8", calibration=iter([{"x": x} for x in DATA]), timer=script
    )
    with pytest.warns(ModelWarning, match=r"is not faster than fp32 .* \(3000 ms, fp32 2000 ms\)"):
        artifact = api.compile_request(net, asked)
    assert not script.calls
    rows = [(r["name"], r["precision"], r["reason"]) for r in artifact.manifest["contractions"]]
    assert rows == [("first", "int8", ""), ("last", "fp32", "int8 is no faster")]
    assert artifact.choice == PrecisionChoice("int8", "int8", "", {"int8": 1.0, "fp32": 2.0})


@needs_native
def test_what_is_not_timed(net: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    off = api.compile_request(net, request(clock))
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")
    forced = api.compile_request(net, request(clock, force_precision=True))
    monkeypatch.setattr(choosing, "is_lower", lambda artifact: False)
    same = api.compile_request(net, request(clock, force_precision=True))
    told = [a.choice.reason for a in (off, forced, same) if a.choice]
    assert [reason.removeprefix("not timed: ") for reason in told] == [
        "TENSMITH_TIME_PRECISION is off",
        "the precision is forced",
        "no product is computed otherwise than in fp32",
    ]
    assert {a.manifest["precision"] for a in (off, forced, same)} == {"int8"}
    assert clock.calls == 0


def test_why_nothing_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, other = resolve_target("aarch64")
    _, here = resolve_target("native")
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "off")
    assert why_not_timed(backend, other) == "TENSMITH_TIME_PRECISION is off"
    monkeypatch.setenv("TENSMITH_TIME_PRECISION", "on")
    elsewhere = replace(backend, runs_here=lambda target: None if target is here else "far away")
    assert why_not_timed(elsewhere, other) == "compiled for another machine (far away)"
    assert why_not_timed(elsewhere, here) == ""


@needs_native
def test_other_machines_cannot_be_timed(net: Path, timed: None) -> None:
    artifact = api.compile_request(net, request(None, target="aarch64:cortex-a76"))
    assert artifact.choice is not None
    assert artifact.choice.kept == "int8"
    assert "compiled for another machine" in artifact.choice.reason


@needs_native
def test_the_command_line(net: Path, timed: None, call: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=DATA)
    line = ("compile", net, "--precision", "int8", "--calibration", tmp_path / "data.npz")
    code, out, err = call(*line, "--no-verify")
    assert code == 0, err
    assert "timed in turns" in out
    code, out, err = call(*line, "--no-verify", "--force-precision", "--json")
    assert code == 0, err
    assert json.loads(out)["precision"]["reason"] == "not timed: the precision is forced"


def test_runs_take_turns() -> None:
    order: list[str] = []
    times = interleaved({name: lambda n=name: order.append(n) for name in "ab"})  # type: ignore[misc]
    assert set(times) == {"a", "b"}
    assert len(times["a"]) == len(times["b"]) >= 3
    turns = [name for name, last in zip(order, [None, *order], strict=False) if name != last]
    assert turns[:4] == ["a", "b", "a", "b"]
    assert len(turns) >= len(times["a"])  # abba: one of them is last, then first


def test_what_others_do_meanwhile_is_no_part_of_a_thread_s_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One run is put aside for a while in every call, as by other programs on a busy machine."""
    now = {"thread_time": 0.0, "perf_counter": 0.0}
    for clock in now:
        monkeypatch.setattr(time, clock, lambda clock=clock: now[clock])

    def work() -> None:
        for clock in now:
            now[clock] += 0.001

    def disturbed() -> None:
        work()
        now["perf_counter"] += 0.01

    runs = {"alone": work, "disturbed": disturbed}
    target = resolve_target("x86-64-v3")[1]
    alone, several = (timer_of(target, alone, seconds=0.0)(runs) for alone in (True, False))
    assert share_of(alone, "disturbed", "alone") == pytest.approx(1)
    assert share_of(several, "disturbed", "alone") == pytest.approx(11)


def test_shares_are_of_rounds() -> None:
    times = {"a": [1.0, 10.0, 3.0], "b": [2.0, 20.0, 1.0]}
    assert share_of(times, "a", "b") == 0.5


@pytest.mark.parametrize("forced", [False, True])
@needs_native
def test_int8_that_multiplies_no_integers_is_fp32(
    tmp_path: Path, timed: None, forced: bool
) -> None:
    """Weights that are rounded, and floats again, only lose: so are those of a GRU whose gates have
    too few each. Who forces the precision gets them."""
    draw, size = np.random.default_rng(1).standard_normal, 74
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], "layer", hidden_size=size)],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (3, 1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(draw((1, 3 * size, 4)).astype(np.float32), "w"),
            numpy_helper.from_array(0.1 * draw((1, 3 * size, size)).astype(np.float32), "r"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(model, tmp_path / "gru.onnx")
    data = {"x": draw((4, 3, 1, 4)).astype(np.float32)}
    asked = CompileRequest(
        precision="int8", calibration=data, timer=Clock(), force_precision=forced
    )
    told = pytest.warns(ModelWarning, match="fp32: no product is computed in integers")
    with nullcontext() if forced else told:
        artifact = api.compile_request(tmp_path / "gru.onnx", asked)
    assert artifact.choice is not None
    assert artifact.choice.kept == artifact.manifest["precision"] == ("int8" if forced else "fp32")
