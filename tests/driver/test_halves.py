"""Models compiled in bf16 and fp16: what they compute, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from compiled import Setting, needs_native
from onnx import TensorProto, helper, numpy_helper

from tensmith.compiler.errors import UsageError
from tensmith.driver import api, cli


@pytest.fixture
def perceptron(tmp_path: Path) -> Path:
    """A small one."""
    return _perceptron(tmp_path, 32, 64, 96)


def _perceptron(folder: Path, rows: int, depth: int, hidden: int) -> Path:
    """Two layers around a Relu, with a residual sum, and a third behind a function."""
    rng = np.random.default_rng(7)
    weights = {"w": (depth, hidden), "v": (hidden, depth), "u": (depth, 10), "b": (hidden,)}
    tensors = [
        numpy_helper.from_array(rng.normal(0, 0.1, shape).astype(np.float32), name)
        for name, shape in weights.items()
    ]
    nodes = [
        helper.make_node("Tanh", ["x"], ["t"]),
        helper.make_node("Gemm", ["t", "w", "b"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "v"], ["o"], name="second"),
        helper.make_node("Add", ["o", "t"], ["a"]),
        helper.make_node("Tanh", ["a"], ["s"]),
        helper.make_node("MatMul", ["s", "u"], ["l"], name="third"),
        helper.make_node("Softmax", ["l"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, 10])],
        tensors,
    )
    path = folder / "perceptron.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.mark.parametrize(
    ("setting", "precision", "made"),
    [
        (Setting("znver4", 2), "bf16", "bf16"),
        (Setting("znver4", 0), "bf16", "bf16"),
        (Setting("x86-64-v3", 2), "bf16", "fp32"),
        (Setting("native", 2), "fp16", "fp32"),
        (Setting("aarch64", 2, emulated=True), "bf16", "fp32"),
    ],
    ids=str,
)
def test_verified_against_the_graph_in_halves(
    setting: Setting, precision: str, made: str, perceptron: Path
) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    artifact = api.compile(
        perceptron, target=setting.target, opt_level=setting.level, precision=precision
    )
    report = artifact.verify()
    assert report.status == "passed", report.reason
    assert report.opinion is None
    assert report.precision_error is not None
    assert report.precision_error.max_share < 0.01
    told = artifact.manifest["contractions"]
    assert [(d["name"], d["precision"]) for d in told] == [
        (name, made) for name in ("first", "second", "third")
    ]
    assert all(bool(d["reason"]) == (made == "fp32") for d in told)
    rounded = report.precision_error.max_abs > 1e-6
    assert rounded == (made != "fp32")


@needs_native
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_weights_of_few_rows_take_half_the_memory(precision: str, tmp_path: Path) -> None:
    model = _perceptron(tmp_path, 1, 512, 256)
    sizes = {}
    for kind in ("fp32", precision):
        artifact = api.compile(model, target="x86-64-v3", precision=kind)
        sizes[kind] = artifact.manifest["memory"]["weight_bytes"]
    made = [d["precision"] for d in artifact.manifest["contractions"]]
    assert made == [f"{precision} weights", f"{precision} weights", "fp32"]
    assert artifact.verify().status == "passed"
    assert sizes[precision] < 0.6 * sizes["fp32"]


@needs_native
def test_command_line(perceptron: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(perceptron), "--precision", "bf16", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["precision_error"]["status"] == "passed"
    output = perceptron.with_suffix(".so")
    command = ["compile", str(perceptron), "-o", str(output), "--precision", "bf16", "--json"]
    assert cli.main(command) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["precision"] == "bf16"


def test_precision_that_does_not_exist(perceptron: Path) -> None:
    with pytest.raises(UsageError, match="bf17"):
        api.compile(perceptron, precision="bf17")
