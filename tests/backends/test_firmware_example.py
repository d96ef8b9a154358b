"""The firmware of examples/cortex_m is built and runs where its tools are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bare_models import needs_gcc, needs_newlib, needs_qemu

ROOT = Path(__file__).resolve().parents[2]


@needs_gcc
@needs_newlib
@needs_qemu
def test_one_command_builds_and_runs_it(tmp_path: Path) -> None:
    command = tmp_path / "tensmith"  # one word, wherever the interpreter is
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tensmith "$@"\n')
    command.chmod(0o755)
    run = subprocess.run(
        ["bash", str(ROOT / "examples/cortex_m/run.sh"), str(tmp_path)],
        capture_output=True, text=True, check=False, env={**os.environ, "TENSMITH": str(command)},
    )  # fmt: skip
    assert not run.returncode, run.stderr
    told = run.stdout + run.stderr  # semihosting writes to the latter
    answers = [line for line in told.splitlines() if line.startswith("image ")]
    assert len(answers) == 4
    for line in answers:
        number, read = line.split("a ")[1].split(", read as ")
        assert number == read
    assert {".text", ".model_weights", ".model_arena"} <= {w for w in told.split()}
