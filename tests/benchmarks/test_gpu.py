"""The script for a borrowed GPU, on the driver that is none: every stage, and going on later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cuda_runs import needs_triton

from tensmith.benchmarks import gpu
from tensmith.benchmarks.gpu_builds import read_builds

pytestmark = needs_triton


def test_a_dry_run_walks_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([str(tmp_path), "--dry-run", "--minutes", "0"]) == 1
    assert not list((tmp_path / "results").iterdir()), "no time for any stage"
    assert gpu.main([str(tmp_path), "--dry-run"]) == 0
    assert "all stages are done" in capsys.readouterr().out
    results = {p.stem: json.loads(p.read_text()) for p in (tmp_path / "results").iterdir()}
    builds = read_builds(tmp_path)
    assert [build.kind for build in builds] == ["gemm", "conv", "attention"]
    assert not [name for name, found in results.items() if "error" in found], results
    for build in builds:
        assert results[f"outputs.{build.name}"]["right"], results
        assert results[f"time.{build.name}"]["median_s"] > 0
        assert results[f"eager.{build.name}"]["skipped"] == "a dry run"
    assert results["machine"]["dry"]
    assert gpu.main([str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out.count("\n") == 1, "nothing is done twice"


def test_errors_are_results_that_can_be_tried_again(tmp_path: Path) -> None:
    assert gpu.main([str(tmp_path), "--dry-run", "--minutes", "0"]) == 1
    library = tmp_path / read_builds(tmp_path)[0].library
    hidden = library.rename(library.with_suffix(".hidden"))
    gpu.main([str(tmp_path), "--dry-run"])
    result = tmp_path / "results" / f"outputs.{library.stem}.json"
    assert "there is no file" in json.loads(result.read_text())["error"]
    hidden.rename(library)
    gpu.main([str(tmp_path), "--dry-run"])
    assert "error" in json.loads(result.read_text())
    gpu.main([str(tmp_path), "--dry-run", "--again"])
    assert json.loads(result.read_text())["right"]
