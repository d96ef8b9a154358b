"""The ONNX standard's own operator tests for GPUs: a sample, in Triton's interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import Array, Job
from conformance_cases import FLOOR, Results, cases, errors_of, sampled
from cuda_runs import GpuGraph, needs_triton

CHUNK = 30
SAMPLED = [name for name in FLOOR if sampled(name)]


def run(jobs: dict[str, Job]) -> Results:
    """The results of all jobs, or how they ended."""
    found: dict[str, dict[str, Array] | Exception] = {}
    for name, job in jobs.items():
        try:
            found[name] = GpuGraph(job.graph).run(job.inputs)
        except Exception as error:
            found[name] = error
    return found


@needs_triton
@pytest.mark.parametrize("start", range(0, len(SAMPLED), CHUNK))
def test_standard_cases(tmp_path: Path, start: int) -> None:
    known = [name for name in SAMPLED[start : start + CHUNK] if name in cases()]
    if not known:
        pytest.skip("the installed onnx package has none of these tests")
    errors = errors_of(known, tmp_path, run)
    assert not any(errors.values()), "\n".join(f"{n}: {e}" for n, e in errors.items() if e)
