"""Counters of instances: calls, and rows by the stage of a cascade."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.runtime.counting import Counters
from tensmith.runtime.loader import ModuleError, load

pytestmark = needs_x86


def _library(kind: str, folder: Path) -> Path:
    return link(make_model(kind, folder), "so", folder / f"{kind}.so", MANIFEST)[0]


def test_rows_are_counted_by_stage(tmp_path: Path) -> None:
    with load(_library("staged", tmp_path)) as module:
        assert module.counters() == Counters(0, 0, 0, (0, 0, 0))
        for rows in ([0, 1, 2, 2], [0], [], [1, 1]):
            module(np.array(rows, np.int32))
        assert module.counters() == Counters(4, 7, 5, (2, 3, 2))
        with pytest.raises(ModuleError, match="no such stage"):
            module(np.array([-1], np.int32))
        assert module.counters().calls == 4
        into = {"y": np.empty(2, np.int32), "stage": np.empty(2, np.int64)}
        module.run_into([np.array([2, 0], np.int32)], into)
        assert module.counters() == Counters(5, 9, 6, (3, 3, 3))
    with pytest.raises(ModuleError, match="closed"):
        module.counters()


def test_a_model_that_is_no_cascade_counts_calls(tmp_path: Path) -> None:
    with load(_library("affine", tmp_path)) as module:
        module(np.zeros((2, 3), np.float32))
        assert module.counters() == Counters(1, 0, 0, ())


def test_programs_tell_what_they_deferred(tmp_path: Path) -> None:
    program = link(make_model("staged", tmp_path), "exe", tmp_path / "staged", MANIFEST)[0]
    np.save(tmp_path / "x.npy", np.array([0, 2, 0, 1], np.int32))
    words = [program, "--input", f"x={tmp_path}/x.npy", "--measure", "--duration", "0.05"]
    run = subprocess.run([*words, "--json", "--batch", "4"], capture_output=True, check=True)
    told = json.loads(run.stdout)
    calls = told["calls"]
    assert told["cascade"] == {
        "rows": 4 * calls, "deferred": 2 * calls, "answered": [2 * calls, calls, calls]
    }  # fmt: skip
    text = subprocess.run([*words, "--batch", "4"], capture_output=True, check=True, text=True)
    assert "rows deferred (50 %)" in text.stdout
    np.save(tmp_path / "x.npy", np.zeros((1, 0), np.int32))
    text = subprocess.run(words, capture_output=True, check=True, text=True)
    assert "cascade: no rows\n" in text.stdout
