"""What the documents say about the code, where a program can tell."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import needs_native

from tensmith.compiler.backend import backends
from tensmith.compiler.ir.ops.registry import all_ops
from tensmith.compiler.knobs import child_environment

ROOT = Path(__file__).resolve().parents[1]
_LONG = ("pip ", "tensmith bench ", "tensmith tune ")
DOCUMENTS = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/architecture.md",
    "docs/cuda.md",
    "docs/plan.md",
    "docs/precision.md",
    "docs/tuning.md",
    "benchmarks/README.md",
)


def test_every_core_operator_is_in_the_table() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    table = text.partition("### Core operators")[2].partition("\n\nThe ONNX frontend")[0]
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]*)`", table))))
    assert set(all_ops()) <= words | {"if"}


def test_the_table_of_operators_is_current() -> None:
    path = ROOT / "docs/generate_operators.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    text = generator.FILE.read_text()
    if f"onnx {generator.VERSION};" not in text:
        pytest.skip(f"the table is of another version of onnx than {generator.VERSION}")
    assert text == generator.render(), "run docs/generate_operators.py"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_named_files_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    links = [ROOT / name / ".." / link for link in re.findall(r"\]\(([^)#:]+)\)", text)]
    folders = "compiler|passes|frontends|backends|runtime|driver|tests|benchmarks|examples"
    paths = [ROOT / path for path in re.findall(rf"`((?:{folders})/[\w./]+)`", text)]
    missing = [str(path) for path in (*links, *paths) if not path.resolve().exists()]
    assert not missing


def test_the_readme_names_the_targets() -> None:
    text = (ROOT / "README.md").read_text()
    known = {name for backend in backends().values() for name in backend.targets}
    table = text.partition("| target | code |")[2].partition("\n\n")[0]
    named = {
        name
        for row in table.splitlines()
        for name in re.findall(r"`([^`]+)`", row[: row.find("|", 1)])
    }
    assert named == known


@needs_native
def test_the_python_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(ROOT / "examples/digits/digits.onnx", tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["outputs"]["scores"].shape == (1, 10)
    assert (tmp_path / "model.so").stat().st_size


@needs_native
def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples/digits/digits.onnx", tmp_path / "model.onnx")
    np.save(tmp_path / "image.npy", np.zeros((1, 1, 8, 8), np.float32))
    text = (ROOT / "README.md").read_text().partition("## Use it")[2]
    lines = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)[0].splitlines()
    commands = [line for line in lines if not line.startswith(_LONG)]
    assert len(commands) == len(lines) - 3  # nothing to install, and no time to measure
    script = "\n".join(["set -e", 'tensmith() { "$PYTHON" -m tensmith "$@"; }', *commands])
    environment = child_environment(PYTHON=sys.executable)
    subprocess.run(["bash", "-c", script], cwd=tmp_path, check=True, env=environment)
    assert np.load(tmp_path / "scores.npy").shape == (1, 10)
