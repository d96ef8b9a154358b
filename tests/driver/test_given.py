"""Models that are no path: bytes, messages, open files, standard input."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tensmith.compiler.errors import InvalidModelError, UsageError
from tensmith.compiler.knobs import child_environment
from tensmith.driver import api

FORMS = {
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "memoryview": lambda path: memoryview(path.read_bytes()),
    "message": lambda path: onnx.load(path),
    "stream": lambda path: io.BytesIO(path.read_bytes()),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_compiles_and_verifies(fake, model_path: Path, form: str, batch) -> None:
    given: Any = FORMS[form](model_path)
    artifact = api.compile(given, verify=True)
    assert artifact.report is not None
    assert artifact.report.status == "passed"
    assert artifact.name == ("double" if form in ("path", "text") else "model")
    np.testing.assert_array_equal(artifact.load()(batch)["y"], 2 * batch)


def test_an_open_file(fake, model_path: Path) -> None:
    with model_path.open("rb") as file:
        assert api.compile(file, name="mine").name == "mine"
    for data in (model_path.read_bytes(), b"\xff\xfe"):  # the latter is no UTF-8
        model_path.write_bytes(data)
        with model_path.open(encoding="utf-8") as file, pytest.raises(UsageError, match="'rb'"):
            api.compile(file)


@pytest.mark.parametrize("given", [None, 3, object(), ["model.onnx"]])
def test_what_is_no_model(fake, given: Any) -> None:
    with pytest.raises(UsageError, match="cannot be a"):
        api.compile(given)


def test_a_graph_is_no_model(fake, model_path: Path) -> None:
    with pytest.raises(UsageError, match="GraphProto") as failed:
        api.compile(onnx.load(model_path).graph)
    assert "make_model" in failed.value.remedy


def test_the_model_is_not_overwritten(fake, model_path: Path) -> None:
    artifact, before = api.compile(model_path), model_path.read_bytes()
    link = model_path.with_name("other.so")
    link.symlink_to(model_path)
    for path in (model_path, link):
        with pytest.raises(UsageError, match="the model itself"):
            artifact.save(path, "so")
    assert model_path.read_bytes() == before
    model_path.rename(model_path.with_name("moved.onnx"))
    link.unlink()
    link.touch()
    assert artifact.save(link) == [link]


@pytest.fixture
def weighted(tmp_path: Path) -> Path:
    """y = x @ w with w in a file of its own, two folders down; a branch has another one."""
    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "main",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    folder = tmp_path / "weighted"
    (folder / "data").mkdir(parents=True)
    onnx.save(
        model,
        folder / "model.onnx",
        save_as_external_data=True,
        location="data/weights",
        size_threshold=0,
    )
    return folder


@pytest.mark.parametrize("form", ["bytes", "message", "stream"])
def test_external_data_lies_in_the_folder(fake, weighted: Path, form: str) -> None:
    given: Any = {
        "bytes": lambda path: path.read_bytes(),
        "message": lambda path: onnx.load(path, load_external_data=False),
        "stream": lambda path: io.BytesIO(path.read_bytes()),
    }[form](weighted / "model.onnx")
    seen = []
    api.compile(given, folder=weighted, dump_after=lambda name, graph: seen.append(graph))
    assert any(v.data is not None and v.data.sum() == 16 for v in seen[0].nodes[0].inputs)


def test_external_data_that_is_not_there(fake, weighted: Path, tmp_path: Path) -> None:
    data = (weighted / "model.onnx").read_bytes()
    with pytest.raises(InvalidModelError, match="external data") as failed:
        api.compile(data)
    assert "folder=" in failed.value.remedy
    with pytest.raises(InvalidModelError, match="external data"):
        api.compile(data, folder=tmp_path)
    with pytest.raises(UsageError, match="there is no folder"):
        api.compile(data, folder=tmp_path / "none")


def test_standard_input(model_path: Path) -> None:
    command = [sys.executable, "-m", "tensmith", "check", "-", "--json"]
    with model_path.open("rb") as file:
        done = subprocess.run(command, stdin=file, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(command, input=b"", capture_output=True, check=False)
    assert done.returncode == 2
    assert b"error: the model in standard input is empty" in done.stderr
    with model_path.open("rb") as file:
        command[3] = "inspect"
        done = subprocess.run(command, stdin=file, capture_output=True, check=False)
    assert json.loads(done.stdout)["model"] == "-"


@pytest.mark.parametrize("form", ["bytes", "stream"])
@pytest.mark.parametrize("fault", ["empty", "truncated", "of another kind", "nested"])
def test_messages_speak_of_the_model(
    fake, monkeypatch: pytest.MonkeyPatch, model_path: Path, form: str, fault: str
) -> None:
    """And not of the file that its bytes were written to."""
    data = model_path.read_bytes()
    data = {"empty": b"", "truncated": data[:-5], "of another kind": b"{}", "nested": data}[fault]
    given: Any = data if form == "bytes" else io.BytesIO(data)

    def deep(path: Path, **options: Any) -> None:
        raise RecursionError

    if fault == "nested":
        monkeypatch.setattr("tensmith.frontends.onnx.load", deep)
    with pytest.raises(InvalidModelError) as failed:
        api.compile(given)
    assert str(failed.value).startswith("the model is ")
    assert "/" not in str(failed.value)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams(model_path: Path, closed: str) -> None:
    command = f'"$PYTHON" -m tensmith check "$MODEL" {closed}'
    environment = child_environment(PYTHON=sys.executable, MODEL=str(model_path))
    done = subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_standard_output_that_is_full(model_path: Path, unbuffered: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    command = [sys.executable, "-m", "tensmith", "check", str(model_path)]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            env=child_environment(PYTHONUNBUFFERED=unbuffered),
        )
    assert done.returncode == 2
    assert "No space left" in done.stderr
    assert "report" not in done.stderr
