"""Every operator case compiled for the CPU targets, against the reference interpreter."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from compiled import Setting, run_all
from operator_cases import differences, jobs_of
from suites import halves, quantisation
from suites.cases import ALL_CASES, Case
from suites.edges import EDGE_CASES

SETTINGS = (
    Setting("native", 2),
    Setting("native", 0),
    Setting("x86-64-v3", 2),
    Setting("aarch64", 2, emulated=True),
)
NEWER = tuple(  # each runs a part of the cases, and all that products of few bits are in
    Setting(target, 2, emulated=True)
    for target in ("aarch64:cortex-a76", "aarch64:neoverse-v1", "aarch64+i8mm")
)
CHUNK = 40  # cases that are linked into one file


def chunks() -> Iterator[Any]:
    """(cases, setting): the suites everywhere, edges once, a sample on each of NEWER."""
    for setting in SETTINGS:
        for cases in (ALL_CASES, EDGE_CASES):
            late = cases is EDGE_CASES and setting is not SETTINGS[0]
            for start in range(0, len(cases), CHUNK):
                part = cases[start : start + CHUNK]
                label = f"{setting}-{part[0].name}..{part[-1].name}"
                yield pytest.param(part, setting, id=label, marks=[pytest.mark.slow] * late)
    few_bits = [case for case in (*quantisation.CASES, *halves.CASES) if "mat" in case.name]
    sample = [*ALL_CASES[::48], *few_bits[::2]]
    for setting in NEWER:
        for start in range(0, len(sample), CHUNK):
            part = sample[start : start + CHUNK]
            yield pytest.param(part, setting, id=f"{setting}-{part[0].name}..{part[-1].name}")


@pytest.mark.parametrize(("cases", "setting"), list(chunks()))
def test_operator_cases(tmp_path: Path, cases: list[Case], setting: Setting) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    jobs = jobs_of(cases)
    wrong = differences(cases, jobs, run_all(jobs, setting, tmp_path))
    assert not wrong, "\n".join(wrong)
