"""The ONNX standard's own operator tests in Triton's interpreter: a sample in every run."""

from __future__ import annotations

from pathlib import Path

import pytest
from compiled import Array, Job
from conformance_cases import FLOOR, Results, cases, errors_of, sampled
from cuda_runs import GpuGraph, needs_triton

CHUNK = 30
SAMPLED = [name for name in FLOOR if sampled(name)]
OTHERS = [name for name in FLOOR if not sampled(name)]
# Cases whose results are others for a reason, and the reason.
HALVES = "weights of attention are halves before they are multiplied by values that are"
LISTED = {
    f"test_attention_4d_{name}_fp16{form}": HALVES
    for name in ("causal", "gqa_with_past_and_present")
    for form in ("", "_expanded")
}


def run(jobs: dict[str, Job]) -> Results:
    """The results of all jobs, or how they ended."""
    found: dict[str, dict[str, Array] | Exception] = {}
    for name, job in jobs.items():
        try:
            found[name] = GpuGraph(job.graph).run(job.inputs)
        except Exception as error:
            found[name] = error
    return found


def errors_in(names: list[str], folder: Path) -> dict[str, str]:
    """What is wrong with each case that the installed package has."""
    known = [name for name in names if name in cases()]
    if not known:
        pytest.skip("the installed onnx package has none of these tests")
    return errors_of(known, folder, run)


def check(names: list[str], folder: Path) -> None:
    errors = errors_in([name for name in names if name not in LISTED], folder)
    assert not any(errors.values()), "\n".join(f"{n}: {e}" for n, e in errors.items() if e)


@needs_triton
@pytest.mark.parametrize("start", range(0, len(SAMPLED), CHUNK))
def test_standard_cases(tmp_path: Path, start: int) -> None:
    check(SAMPLED[start : start + CHUNK], tmp_path)


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, len(OTHERS), CHUNK))
def test_other_standard_cases(tmp_path: Path, start: int) -> None:
    check(OTHERS[start : start + CHUNK], tmp_path)


@needs_triton
@pytest.mark.slow
def test_what_is_listed_fails(tmp_path: Path) -> None:
    """By its numbers: a case that passes, or ends otherwise, is no longer what the list says."""
    assert set(LISTED) <= set(FLOOR)
    errors = errors_in(list(LISTED), tmp_path)
    assert not {name: e for name, e in errors.items() if "Mismatched elements" not in e}


@needs_triton
def test_offsets_of_many_terms(tmp_path: Path) -> None:
    """The product of four padded sizes, which the run computes, has hundreds of terms."""
    check(["test_constant_pad_axes"], tmp_path)
