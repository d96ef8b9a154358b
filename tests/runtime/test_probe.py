"""`--measure` of compiled programs: what is told, and that calls come as they are due."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cplans import OF_HOST

from tensmith.backends.common.toolchain import RUNTIME
from tensmith.backends.common.zig import run_zig

QUICK = ("--measure", "--json", "--duration", "0.05")
Run = Callable[..., str]


@pytest.mark.parametrize("instances", [1, 3])
def test_instances_run_side_by_side(run: Run, instances: int) -> None:
    told = json.loads(run("affine", "--random", "1", *QUICK, "--instances", instances))
    assert told["schema"] == "tensmith-probe/1"
    assert (told["instances"], told["threads"], told["batch"]) == (instances, 1, 1)
    assert told["load"] is None
    assert told["calls"] >= instances
    assert told["peak_bytes"] > 1 << 16
    assert told["cpu_seconds_per_call"] > 0
    assert told["memory_bytes_per_second"] > 0
    assert told["machine"]["cores"] >= 1
    assert (told["joules"] is None) == bool(told["no_energy"])
    seconds, quantiles = told["seconds"], np.array(told["seconds"]["quantiles"])
    assert len(quantiles) == 400
    assert (np.diff(quantiles) >= 0).all()
    assert seconds["min"] <= seconds["p50"] <= seconds["p90"] <= seconds["p99"] <= seconds["max"]


def test_calls_come_as_they_are_due(run: Run) -> None:
    told = json.loads(run("affine", "--random", "1", *QUICK, "--instances", 2, "--load", "2000"))
    assert told["load"] == 2000
    assert told["calls"] == 100
    assert told["wall_seconds"] > 0.03  # by the gaps that the seed draws
    assert told["memory_bytes_per_second"] is None


def test_samples_take_turns(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.zeros((5, 2, 3), np.float32))
    told = json.loads(run("affine", "--input", "x.npz", *QUICK))
    assert told["calls"] >= 5
    text = run("affine", "--input", "x.npz", "--measure", "--duration", "0.05")
    assert "a run: median" in text
    assert "energy" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--load", "5"), "are told to --measure"),
        (("--instances", "2"), "are told to --measure"),
        (("--measure", "--load", "0"), "expected calls per second"),
        (("--measure", "--output", "y.npy"), "keeps no outputs"),
        (("--measure", "--load", "1e6", "--duration", "1e6"), "too many calls"),
    ],
)
def test_wrong_usage(run: Run, arguments: tuple[str, ...], message: str) -> None:
    assert message in run("affine", "--random", "1", *arguments, code=2)


_COUNTERS = """#include "program.h"
int main(void) {
  energy before = {2, {999999, 5}, {1000000, 1000000}, ""};
  energy after = {2, {1000000, 4}, {1000000, 1000000}, ""};
  printf("%.6f\\n", joules_between(&before, &after));
  return 0;
}
"""


def test_counters_wrap_around(tmp_path: Path) -> None:
    """Of two packages, one of which went on by 1 and one by its whole range less 1."""
    (tmp_path / "counters.c").write_text(_COUNTERS)
    (tmp_path / "energy.c").write_bytes((RUNTIME / "energy.c").read_bytes())
    for header in RUNTIME.glob("*.h"):
        (tmp_path / header.name).write_bytes(header.read_bytes())
    words = ["cc", *OF_HOST, "-D_GNU_SOURCE", "-o", "counters", "counters.c", "energy.c"]
    run_zig(words, tmp_path)
    found = subprocess.run([tmp_path / "counters"], capture_output=True, text=True, check=True)
    assert float(found.stdout) == pytest.approx(1.0)


def test_threads_park(run: Run) -> None:
    told = json.loads(run("affine", "--random", "1", *QUICK, "--threads", 2, "--idle", "park"))
    assert told["threads"] == 2
    assert "expected spin or park" in run("affine", "--random", "1", "--idle", "dream", code=2)
