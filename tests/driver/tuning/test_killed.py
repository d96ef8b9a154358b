"""`tensmith tune` that is killed at any step goes on, and ends as if it had not been."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import killed_commands
from tuned_binaries import contents

from tensmith.compiler.knobs import child_environment


def run(steps: int, folder: Path, model: Path) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    words = ("tune", model, "--records", "a.db", "--trials", "240", "-o", "a.so", "--json")
    script = Path(killed_commands.__file__)
    return subprocess.run(
        [sys.executable, str(script), str(steps), *map(str, words)],
        capture_output=True, text=True, check=False, timeout=120, cwd=folder,
        env=child_environment(PYTHONPATH=str(script.parent)),
    )  # fmt: skip


def steps_of(done: subprocess.CompletedProcess[str]) -> int:
    return int(done.stdout.splitlines()[-1].split()[0])


def without_clocks(tree: dict[str, Any]) -> dict[str, Any]:
    """All but dates, and seconds that building took."""
    for session in tree["sessions"].values():
        for row in (session, *session["verdicts"], *session["outcomes"]):
            row.pop("date", None)
            row.pop("started", None)
        for batch in session["batches"]:
            del batch["seconds"]
        for outcome in session["outcomes"]:
            del outcome["result"]["seconds"]
    return tree


def test_a_command_that_is_killed_goes_on(model_path: Path, tmp_path: Path) -> None:
    whole = run(0, tmp_path / "whole", model_path)
    assert whole.returncode == 0, whole.stderr
    steps = steps_of(whole)
    kills = (1, steps // 3, steps // 2, 2)
    done, killed = 0, tmp_path / "killed"
    for kill in kills:
        ended = run(kill, killed, model_path)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        done += kill - 1
    for left in (steps - done - 1, 1):  # within the two whole binaries
        ended = run(left, killed, model_path)
        assert ended.returncode == -signal.SIGKILL, ended.stderr
        done += left - 1
    last = run(0, killed, model_path)
    assert last.returncode == 0, last.stderr
    assert steps_of(last) == steps - done, "nothing that was written down is done again"
    assert without_clocks(contents(killed / "a.db")) == without_clocks(
        contents(tmp_path / "whole/a.db")
    )
    assert (killed / "a.so").read_bytes() == (tmp_path / "whole/a.so").read_bytes()
    assert steps_of(run(0, killed, model_path)) == 0
