"""The comparison of machine code between revisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensmith.benchmarks.replay import (
    LEVELS,
    ROOT,
    THREADS,
    Job,
    Side,
    compare,
    find_models,
    first_difference,
    jobs_of,
)
from tensmith.benchmarks.replay_worker import functions_of

LISTING = """\t.file\t"{name}"
\t.text
k0_add:
\tvaddps\t%zmm0, %zmm1, %zmm2
.L4:
\tretq
plan:
\t{last}
"""


def test_a_listing_is_cut_at_its_symbols() -> None:
    functions = functions_of(LISTING.format(name="x", last="retq"))
    assert list(functions) == ["", "k0_add", "plan"]
    assert ".L4:" in functions["k0_add"]
    assert functions == functions_of(LISTING.format(name="another", last="retq"))


def test_the_first_function_that_differs_is_named() -> None:
    old = functions_of(LISTING.format(name="x", last="retq"))
    new = functions_of(LISTING.format(name="x", last="jmp\tplan"))
    assert first_difference(old, new) == "plan: 'retq' became 'jmp\tplan'"
    del new["plan"]
    assert first_difference(old, new) == "plan: only before"


def test_a_few_models_see_every_setting() -> None:
    models = [Path(f"m{number}.onnx") for number in range(len(THREADS) * len(LEVELS))]
    jobs = jobs_of(models, ["x86-64-v4"], list(LEVELS), full=False)
    assert len(jobs) == len(models)
    assert len({(job.threads, job.level) for job in jobs}) == len(models)
    assert len(jobs_of(models[:1], ["x86-64-v4"], list(LEVELS), full=True)) == len(models)


@pytest.fixture
def job() -> Job:
    (model,) = find_models([str(next((ROOT / "examples").rglob("*.onnx")))])
    return Job(model, "x86-64-v3", 1, 1)


def test_a_tree_equals_itself_and_keeps_its_results(job: Job, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    side = Side(ROOT, kept)
    assert compare(job, side, side) == ""
    assert Side(ROOT, kept).results == side.results
    assert set(side.results[job.key]) == {"code", "weights"}


def test_what_differs_is_said(job: Job, tmp_path: Path) -> None:
    key = job.key
    sides = [Side(tmp_path, None), Side(tmp_path, None)]
    same = {"code": "1", "weights": "2"}
    for answers, expected in (
        ((same, same), ""),
        ((same, {"code": "1", "weights": "3"}), "the packed constants differ"),
        ((same, {"error": "no kernel"}), "before: compiles; after: no kernel"),
    ):
        for side, answer in zip(sides, answers, strict=True):
            side.results[key] = answer
        assert compare(job, *sides) == expected
