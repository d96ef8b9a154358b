"""What is told of models in lower precisions beside f32."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper
from typer import Typer
from typer.testing import CliRunner

from tensmith.benchmarks import precisions
from tensmith.benchmarks.precisions import FP32, PrecisionBuild


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """y = x m for x f32[2,64], with an input set."""
    draw = np.random.default_rng(0).standard_normal
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "m"], ["y"], "product")],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (2, 64))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (2, 48))],
        [numpy_helper.from_array(draw((64, 48)).astype(np.float32), "m")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder = tmp_path / "net"
    folder.mkdir()
    onnx.save_model(model, folder / "model.onnx")
    np.savez(folder / "inputs.npz", x=draw((2, 64)).astype(np.float32))
    return folder


def row(build: str, kept: str) -> PrecisionBuild:
    return PrecisionBuild("net", build, kept)


def test_ratios_are_of_rounds_and_of_f32() -> None:
    rows = [row(FP32, FP32), row("bf16", "bf16"), row("int8", "int8"), row("auto", "")]
    times = {FP32: [1.0, 2.0, 4.0], "bf16": [1.1, 2.2, 4.2], "int8": [0.5, 1.0, 2.4]}
    plain, bf16, int8, absent = precisions.with_times(rows, times)
    assert (plain.ratio, plain.is_slower) == (1.0, False)
    assert bf16.ratio == pytest.approx(1.1)
    assert (bf16.low, bf16.high) == pytest.approx((1.05, 1.1))
    assert bf16.is_slower
    assert (int8.seconds, int8.ratio, int8.is_slower) == (1.0, 0.5, False)
    assert absent == rows[3]
    unsure = precisions.with_times(rows[:2], {FP32: [1.0, 2.0, 4.0], "bf16": [1.1, 2.2, 3.9]})[1]
    assert unsure.low == pytest.approx(0.975)
    assert not unsure.is_slower


def test_a_binary_of_f32_is_never_a_slower_one() -> None:
    """What was asked for was given up: the difference is the machine's."""
    assert not replace(row("bf16", FP32), ratio=1.2).is_slower


@needs_native
def test_every_build_is_told(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(runs: dict[str, object], threads: int) -> dict[str, list[float]]:
        assert threads == 1
        return {name: [1.5 if name == "int8-dynamic" else 1.0] * 5 for name in runs}

    monkeypatch.setattr(precisions, "timed", clock)
    app = Typer()
    app.command()(precisions.main)
    found = tmp_path / "out.json"
    line = [
        "--models",
        str(net),
        "--builds",
        "int8-dynamic,int8,int8-weights",
        "--json",
        str(found),
    ]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 1
    assert "slower than in fp32: net in int8 (1.500)" in done.stdout
    told = json.loads(found.read_text())["builds"]
    assert [(one["build"], one["kept"], one["refused"]) for one in told] == [
        (FP32, FP32, ""),
        ("int8-dynamic", "int8", ""),
        ("int8", "int8", ""),
        ("int8-weights", "", "no weights of the model can be stored in few bits"),
    ]
    assert [one["ratio"] for one in told] == [1.0, 1.5, 1.0, None]


def test_runs_are_timed_in_turns() -> None:
    order: list[str] = []
    runs = {name: lambda n=name: order.append(n) for name in "ab"}  # type: ignore[misc]
    times = precisions.timed(runs, 1, seconds=0.0)
    assert {len(rounds) for rounds in times.values()} == {precisions.FEWEST_ROUNDS}
    turns = [name for name, last in zip(order, [None, *order], strict=False) if name != last]
    assert turns[-5:] in (list("abbab"), list("babba"), list("ababa"), list("babab"))
