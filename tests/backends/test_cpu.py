"""Every operator case compiled for the CPU targets, against the reference interpreter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiled import Arrays, Job, Setting, run_all
from suites.cases import ALL_CASES, Case, compare
from suites.edges import EDGE_CASES

from tensmith.backends.reference import run_graph
from tensmith.compiler.ir import DType

SETTINGS = (
    Setting("native", 2),
    Setting("native", 0),
    Setting("x86-64-v3", 2),
    Setting("aarch64", 2, emulated=True),
)
NEWER = Setting("aarch64:cortex-a76", 2, emulated=True)  # runs a twenty-fourth of the cases
CHUNK = 40  # cases that are linked into one file

# (which cases, why they are not for a compiler)
SKIPPED: tuple[tuple[Callable[[Case], bool], str], ...] = (
    (
        lambda case: any(node.op == "fused" for node in case.graph().nodes),
        "fused nodes are made by the compiler, they are no input of it",
    ),
)


def without_denormals(inputs: Arrays) -> dict[str, np.ndarray]:
    """Compiled models flush denormal numbers to zero: the reference gets zeros from the start."""

    def flushed(array: np.ndarray) -> np.ndarray:
        if DType.of(array.dtype) not in (DType.F32, DType.F64):
            return array
        small = np.abs(array) < np.finfo(array.dtype).tiny
        return np.where(small, np.copysign(array.dtype.type(0), array), array)

    return {name: flushed(array) for name, array in inputs.items()}


def chunks() -> Iterator[Any]:
    """(cases, setting): the suites everywhere, cases at the edges once, a sample on NEWER."""
    for setting in SETTINGS:
        for cases in (ALL_CASES, EDGE_CASES):
            late = cases is EDGE_CASES and setting is not SETTINGS[0]
            for start in range(0, len(cases), CHUNK):
                part = cases[start : start + CHUNK]
                label = f"{setting}-{part[0].name}..{part[-1].name}"
                yield pytest.param(part, setting, id=label, marks=[pytest.mark.slow] * late)
    sample = ALL_CASES[::24]
    for start in range(0, len(sample), CHUNK):
        part = sample[start : start + CHUNK]
        yield pytest.param(part, NEWER, id=f"{NEWER}-{part[0].name}..{part[-1].name}")


@pytest.mark.parametrize(("cases", "setting"), list(chunks()))
def test_operator_cases(tmp_path: Path, cases: list[Case], setting: Setting) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    chosen = [case for case in cases if not any(skips(case) for skips, _ in SKIPPED)]
    inputs = {case.name: without_denormals(case.inputs()) for case in chosen}
    jobs = {case.name: Job(case.graph(), inputs[case.name]) for case in chosen}
    results = run_all(jobs, setting, tmp_path)
    wrong = []
    for case in chosen:
        got, want = results[case.name], run_graph(case.graph(), inputs[case.name])
        try:
            if isinstance(got, Exception):
                raise got
            assert sorted(got) == sorted(want)
            for name, array in want.items():
                compare(name, got[name], array, case.tolerance)
        except Exception as error:
            wrong.append(f"{case.name}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)
