"""Budgets of models that find another number of things in lower precision."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from compiled import needs_native
from detection_nets import store_detector
from onnx import helper

from tensmith.driver import api, journal
from tensmith.driver.request import CompileRequest
from tensmith.driver.timing import Runs

RNG = np.random.default_rng(4)
LEAST = 1.6  # that about every fourth row reaches


def store(folder: Path) -> Path:
    """Those rows alone."""
    chooses = [helper.make_node("Compress", ["y", "found"], ["z"], axis=0)]
    return store_detector(folder, RNG, LEAST, chooses, {"z": ("k", 64)})


def clock(runs: Runs) -> Mapping[str, list[float]]:
    return {name: [{"int8": 1.0, "bytes": 0.1}.get(name, 3.0)] for name in runs}


@needs_native
@pytest.mark.parametrize("metric", [None, "snr"])
def test_numbers_that_change_are_losses(
    metric: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Groups are told apart by the noise in front of the choice."""
    monkeypatch.setattr(journal, "writable_cache", lambda: tmp_path)
    data, judged = (RNG.standard_normal((n, 8, 64)).astype(np.float32) for n in (8, 40))
    request = CompileRequest(
        precision="int8", calibration={"x": data}, eval={"x": judged},
        max_accuracy_drop="90%", metric=metric, timer=clock,
    )  # fmt: skip
    report = api.compile_request(store(tmp_path), request).budget
    assert report is not None
    assert report.drop is not None
    assert report.met
    assert report.metric == (metric or "cosine")
    assert 0.02 < report.drop.drop < 0.9  # some numbers do change
    assert all(1e-6 < group.error < 1e-3 for group in report.groups)
