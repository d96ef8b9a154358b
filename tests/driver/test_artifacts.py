"""Compiled files of a real model: the same bytes everywhere, small, in need of nothing but libc."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tensmith.compiler.knobs import child_environment

MODEL = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"
FILES = ("digits.so", "digits", "digits.a", "digits.o")
MOST_BEYOND_WEIGHTS = 1_500_000
LIBC_FAMILY = {"libc.so.6", "libm.so.6", "libdl.so.2", "ld-linux-x86-64.so.2"}
SCRIPT = """
import json, sys, tensmith
artifact = tensmith.compile("digits.onnx", target=sys.argv[1])
for name, emit in zip(sys.argv[2:], ("so", "exe", "lib", "obj")):
    artifact.save(name, emit)
json.dump(artifact.manifest, open("manifest.json", "w"))
"""


def compile_in(folder: Path, target: str, **settings: str) -> Path:
    """Compile a copy of the model to every file, in a process of its own that runs there."""
    folder.mkdir()
    shutil.copy(MODEL, folder)
    command = [sys.executable, "-c", SCRIPT, target, *FILES]
    subprocess.run(command, cwd=folder, check=True, env=child_environment(**settings))
    return folder


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_in(tmp_path_factory.mktemp("here") / "a", "x86-64-v3", PYTHONHASHSEED="1")


def test_another_process_and_folder_write_the_same_bytes(here: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    settings = {"PYTHONHASHSEED": "2", "TENSMITH_WORK_DIR": str(work), "TZ": "Asia/Tokyo"}
    there = compile_in(tmp_path / "somewhere else", "x86-64-v3", **settings)
    for name in FILES:
        assert (here / name).read_bytes() == (there / name).read_bytes(), name


def test_names_nothing_of_the_machine_that_compiled(here: Path) -> None:
    for name in FILES:
        assert str(here.parent).encode() not in (here / name).read_bytes(), name


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")
def test_needs_only_libc(here: Path) -> None:
    command = ["readelf", "-W", "-d", str(here / "digits.so")]
    dynamic = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert set(re.findall(r"NEEDED.*\[(.*)\]", dynamic)) <= LIBC_FAMILY


@pytest.mark.parametrize("name", FILES)
def test_file_is_little_more_than_the_weights(here: Path, name: str) -> None:
    weights = json.loads((here / "manifest.json").read_text())["memory"]["weight_bytes"]
    assert (here / name).stat().st_size <= weights + MOST_BEYOND_WEIGHTS
