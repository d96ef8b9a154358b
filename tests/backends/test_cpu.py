"""Every operator case compiled for the CPU targets, against the reference interpreter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from compiled import Setting, run_all
from operator_cases import differences, jobs_of
from suites import halves, quantisation
from suites.cases import ALL_CASES, Case
from suites.edges import EDGE_CASES

EVERYWHERE = Setting("native", 2)
OTHERS = (  # each runs every third case, and the rest where there is time
    Setting("native", 0),
    Setting("x86-64-v3", 2),
    Setting("aarch64", 2, emulated=True),
)
NEWER = tuple(  # each runs a part of the cases, and all that products of few bits are in
    Setting(target, 2, emulated=True)
    for target in ("aarch64:cortex-a76", "aarch64:neoverse-v1", "aarch64+i8mm")
)
CHUNK = 40  # cases that are linked into one file


def _parts(cases: Sequence[Case], setting: Setting, *marks: pytest.MarkDecorator) -> Iterator[Any]:
    for start in range(0, len(cases), CHUNK):
        part = cases[start : start + CHUNK]
        label = f"{setting}-{part[0].name}..{part[-1].name}"
        yield pytest.param(part, setting, id=label, marks=marks)


def chunks() -> Iterator[Any]:
    """(cases, setting): the suites and their edges, samples of the suites on other settings."""
    yield from _parts(ALL_CASES, EVERYWHERE)
    yield from _parts(EDGE_CASES, EVERYWHERE)
    for number, setting in enumerate(OTHERS):
        shares = [ALL_CASES[n :: len(OTHERS)] for n in range(len(OTHERS))]
        yield from _parts(shares.pop(number), setting)
        for cases in (*shares, EDGE_CASES):
            yield from _parts(cases, setting, pytest.mark.slow)
    few_bits = [case for case in (*quantisation.CASES, *halves.CASES) if "mat" in case.name]
    for setting in NEWER:
        yield from _parts([*ALL_CASES[::48], *few_bits[::2]], setting)


@pytest.mark.parametrize(("cases", "setting"), list(chunks()))
def test_operator_cases(tmp_path: Path, cases: list[Case], setting: Setting) -> None:
    if missing := setting.missing():
        pytest.skip(missing)
    jobs = jobs_of(cases)
    wrong = differences(cases, jobs, run_all(jobs, setting, tmp_path))
    assert not wrong, "\n".join(wrong)
