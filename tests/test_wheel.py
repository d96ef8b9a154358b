"""The wheel: one name, the whole package, nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("compiler", "passes", "frontends", "backends", "runtime", "driver")
ROOT_FILES = ("__init__.py", "__main__.py", "_version.py", "py.typed")
BUILD_FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


def _package_files() -> set[str]:
    found = {name for name in ROOT_FILES if (ROOT / name).exists()}
    for folder in FOLDERS:
        found |= {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.py")}
    for folder in ("runtime", "backends"):
        found |= {p.relative_to(ROOT).as_posix() for p in (ROOT / folder).rglob("*.[ch]")}
    found |= {p.relative_to(ROOT).as_posix() for p in (ROOT / "backends").rglob("*.json")}
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as leftovers of earlier builds would find their way into it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for folder in (*FOLDERS, "tests", "examples", "benchmarks"):
        ignored = shutil.ignore_patterns("__pycache__", "zoo")
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for name in (*ROOT_FILES, *BUILD_FILES):
        shutil.copy(ROOT / name, source / name)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    done = subprocess.run(
        [sys.executable, "-c", build], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def test_installs_one_name(wheel: Path) -> None:
    names = {name.split("/")[0] for name in ZipFile(wheel).namelist()}
    (information,) = (name for name in names if name.endswith(".dist-info"))
    assert names == {"tensmith", information}


def test_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = [name for name in ZipFile(wheel).namelist() if name.startswith("tensmith/")]
    assert {name.removeprefix("tensmith/") for name in names} == _package_files()


def test_names_command_and_backends(wheel: Path) -> None:
    archive = ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    text = archive.read(name).decode()
    assert "tensmith = tensmith.driver.cli:main" in text
    assert "[tensmith.backends]" in text


def test_imports_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    ZipFile(wheel).extractall(site)
    show = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import tensmith; print(tensmith.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", show],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == site / "tensmith" / "__init__.py"
