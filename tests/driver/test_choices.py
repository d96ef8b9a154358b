"""`compile --choices`: what `inspect` prints gives the same bytes, and other choices other code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from onnx import TensorProto, helper, numpy_helper, save

import tensmith
from tensmith.compiler.errors import ModelWarning, ScheduleError
from tensmith.compiler.kernel.schedule.choices import read_choices

TARGET = "x86-64-v3"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A product of two layers."""
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape).astype("f4") for shape in ((24, 40), (40, 10))]
    nodes = [
        helper.make_node("MatMul", ["x", "w0"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w1"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, 10])],
        [numpy_helper.from_array(w, f"w{n}") for n, w in enumerate(weights)],
    )
    path = tmp_path / "model.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tensmith", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def inspected(model: Path) -> dict:
    done = run("inspect", model, "--kernels", "--json", "--target", TARGET)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@needs_native
def test_what_is_printed_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "choices.json"
    file.write_text(json.dumps(inspected(model)))
    usual = tensmith.compile(model, target=TARGET)
    again = tensmith.compile(model, target=TARGET, choices=file)
    assert again.code.objects == usual.code.objects
    assert again.weights.read_bytes() == usual.weights.read_bytes()


@needs_native
def test_other_choices_are_other_code_and_the_same_result(model: Path, tmp_path: Path) -> None:
    found = inspected(model)["choices"]
    for choice in found["choices"].values():
        for stage in choice["stages"]:
            stage.update(rows=1, vectors=1, row="", panel=0, prefetch=0)
    file = tmp_path / "choices.json"
    file.write_text(json.dumps(found))
    usual = tensmith.compile(model, target=TARGET)
    changed = tensmith.compile(model, target=TARGET, choices=file)
    assert changed.code.objects != usual.code.objects
    x = np.random.default_rng(1).standard_normal((6, 24)).astype("f4")
    (want,), (got,) = (artifact.load()({"x": x}).values() for artifact in (usual, changed))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_an_illegal_one_is_named_and_refused(model: Path, tmp_path: Path) -> None:
    found = inspected(model)["choices"]
    key = next(iter(found["choices"]))
    found["choices"] = {key: {"stages": [{"lanes": 5}]}}
    file = tmp_path / "choices.json"
    file.write_text(json.dumps(found))
    with pytest.raises(ScheduleError, match="no 5 lanes"):
        tensmith.compile(model, target=TARGET, choices=file)
    done = run("compile", model, "--target", TARGET, "--choices", file, "-o", tmp_path / "m.o")
    assert done.returncode == 2
    assert "no 5 lanes" in done.stderr
    found["choices"] = {key: {"form": "winograd 4x4 block 6 groups 1"}}
    file.write_text(json.dumps(found))
    with pytest.raises(ScheduleError, match="cannot take the form"):
        tensmith.compile(model, target=TARGET, choices=file)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_editors_and_shells_of_other_systems(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "choices.json"
    data = {"version": 1, "target": TARGET, "threads": 1, "choices": {"0123": {"form": "none"}}}
    file.write_bytes(json.dumps(data, indent=2).replace("\n", "\r\n").encode(encoding))
    assert read_choices(file, TARGET, 1).by_key == data["choices"]


def test_choices_for_other_models_are_told(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "choices.json"
    file.write_text(
        json.dumps({"version": 1, "target": TARGET, "threads": 1, "choices": {"0123": {}}})
    )
    with pytest.warns(ModelWarning, match="no group of this model: 0123"):
        tensmith.compile(model, target=TARGET, choices=file)
