"""The whole way with the real frontend, passes and code generator, on trained models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native

from tensmith.driver import api, cli

MODELS = Path(__file__).resolve().parents[3] / "shared" / "models" / "dev"

pytestmark = [
    pytest.mark.skipif(not MODELS.is_dir(), reason="the model corpus is not beside the repository"),
    needs_native,
]


@pytest.mark.parametrize("name", ["mnist", "kws_qdq", "digits_cnn"])
def test_compile_verifies_and_agrees_with_stored_outputs(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, library = MODELS / name, tmp_path / "model.so"
    assert cli.main(["compile", str(folder / "model.onnx"), "-o", str(library), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["verify"]["status"] == "passed"
    assert result["manifest"]["kernels"]
    stored = [f"--{kind}={folder / f'{kind}_0.npz'}" for kind in ("inputs", "outputs")]
    assert cli.main(["verify", str(library), *stored]) == 0


@pytest.mark.parametrize("level", [0, 1, 3])
def test_every_level_verifies(level: int) -> None:
    artifact = api.compile(MODELS / "mnist" / "model.onnx", opt_level=level, verify=True)
    assert artifact.report.status == "passed"


def test_python_api() -> None:
    module = api.compile(MODELS / "mnist" / "model.onnx").load()
    with np.load(MODELS / "mnist" / "inputs_0.npz") as inputs:
        outputs = module(dict(inputs))
    with np.load(MODELS / "mnist" / "outputs_0.npz") as stored:
        for name, expected in stored.items():
            np.testing.assert_allclose(outputs[name], expected, rtol=1e-3, atol=0.1)


@pytest.mark.skipif(shutil.which("qemu-aarch64") is None, reason="qemu-aarch64 is not installed")
def test_another_architecture_is_verified_in_its_emulator() -> None:
    artifact = api.compile(MODELS / "mnist" / "model.onnx", target="aarch64", verify=True)
    assert artifact.report.status == "passed"


def test_another_architecture_without_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensmith.backends.common.running.shutil.which", lambda name: None)
    artifact = api.compile(MODELS / "mnist" / "model.onnx", target="aarch64", verify=True)
    assert artifact.report.status == "incomplete"
    assert "qemu-aarch64" in artifact.report.reason


def test_same_bytes(tmp_path: Path) -> None:
    libraries = []
    for run in ("a", "b"):
        (tmp_path / run).mkdir()
        artifact = api.compile(MODELS / "kws" / "model.onnx")
        libraries.append(artifact.save(tmp_path / run / "kws.so")[0].read_bytes())
    assert libraries[0] == libraries[1]


def test_dump_of_a_pass(tmp_path: Path) -> None:
    arguments = ["--dump-after=fusion", f"--dump-dir={tmp_path}", "--no-verify"]
    output = str(tmp_path / "model.so")
    assert cli.main(["compile", str(MODELS / "mnist/model.onnx"), "-o", output, *arguments]) == 0
    texts = [path.read_text() for path in tmp_path.glob("*-fusion.txt")]
    assert texts
    assert "fused" in texts[-1]
