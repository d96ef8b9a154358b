"""Forms of device code that users can look at: Triton's language, PTX, cubins."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest
from cuda_models import perceptron
from cuda_runs import needs_triton
from typer.testing import CliRunner

import tensmith
from tensmith.backends.cuda.cubin import read_cubin
from tensmith.backends.cuda.forms import FORMS
from tensmith.compiler.errors import UsageError
from tensmith.driver import cli

pytestmark = needs_triton
TRITON = importlib.util.find_spec("triton")


@pytest.fixture(scope="module")
def artifact() -> tensmith.Artifact:
    return tensmith.compile(perceptron()[0], target="cuda:sm_80", texts=FORMS)


def symbols(artifact: tensmith.Artifact) -> list[str]:
    return [function.symbol for kernel in artifact.kernels for function in kernel.functions]


def test_they_are_files_by_their_suffixes(artifact: tensmith.Artifact, tmp_path: Path) -> None:
    assert len(symbols(artifact)) >= 3
    (module,) = artifact.save(tmp_path / "model.py")
    text = module.read_text()
    compile(text, "model.py", "exec")
    assert text.count("import triton\n") == 1
    assert all(f"def {symbol}(" in text for symbol in symbols(artifact))
    (ptx,) = artifact.save(tmp_path / "model.ptx")
    assert ptx.read_text().count(".visible .entry") == len(symbols(artifact))
    (archive,) = artifact.save(tmp_path / "model.zip")
    with zipfile.ZipFile(io.BytesIO(archive.read_bytes())) as opened:
        assert opened.namelist() == [f"sm_80/{symbol}.cubin" for symbol in symbols(artifact)]
        for symbol in symbols(artifact):
            cubin = read_cubin(opened.read(f"sm_80/{symbol}.cubin"), symbol)
            assert cubin.architecture == 80


def test_they_are_the_same_every_time(artifact: tensmith.Artifact) -> None:
    again = tensmith.compile(perceptron()[0], target="cuda:sm_80", texts=FORMS)
    assert set(FORMS) == {*again.code.texts, *again.code.archives}
    assert again.code.texts == artifact.code.texts
    assert again.code.archives == artifact.code.archives


def test_the_manifest_tells_what_made_the_code(artifact: tensmith.Artifact) -> None:
    assert list(artifact.manifest["made_by"]) == ["triton"]


def test_processors_have_none() -> None:
    with pytest.raises(UsageError, match="--emit ptx is not there for 'x86-64-v3'"):
        tensmith.compile(perceptron()[0], target="x86-64-v3", texts=["ptx"])


def assemblers() -> list[Path]:
    """Those of Triton, of which newer versions have several, and the toolkit's."""
    assert TRITON is not None
    assert TRITON.origin is not None
    folder = Path(TRITON.origin).parent / "backends" / "nvidia" / "bin"
    found = [folder / "ptxas", folder / "ptxas-blackwell", Path(shutil.which("ptxas") or "none")]
    return [path for path in found if path.exists()]


def test_ptx_is_taken_by_assemblers_of_several_versions(
    artifact: tensmith.Artifact, tmp_path: Path
) -> None:
    found = assemblers()
    if len(found) < 2:
        pytest.skip("there is one version of ptxas only")
    text = artifact.code.texts["ptx"]
    versions = set()
    for tool in found:
        told = subprocess.run([tool, "--version"], capture_output=True, text=True, check=True)
        versions.add(told.stdout)
        for number, function in enumerate(text.split("// ---- ")[1:]):
            source, output = tmp_path / f"{number}.ptx", tmp_path / f"{number}.cubin"
            source.write_text(function.split("\n", 1)[1])
            subprocess.run([tool, "-arch=sm_80", "-o", output, source], check=True)
            assert read_cubin(output.read_bytes(), symbols(artifact)[number]).architecture == 80
    assert len(versions) >= 2


def test_what_functions_take_is_shown(artifact: tensmith.Artifact, tmp_path: Path) -> None:
    (library,) = artifact.save(tmp_path / "model.so")
    shown = CliRunner().invoke(cli.app, ["inspect", str(library)])
    assert shown.exit_code == 0, shown.output
    assert "Functions of the device" in shown.output
    assert all(symbol in shown.output for symbol in symbols(artifact))


def test_targets_tell_of_the_gpu_that_is_here() -> None:
    told = json.loads(CliRunner().invoke(cli.app, ["targets", "--json"]).stdout)["targets"]
    (native,) = [row for row in told if row["target"] == "cuda:native"]
    assert native["available"] or "driver" in native["reason"]
    assert next(row for row in told if row["target"] == "cuda:sm_90")["available"]
