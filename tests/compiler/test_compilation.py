"""What a compilation tells of itself."""

from __future__ import annotations

import time

import pytest

from tensmith.compiler.compilation import Stages


def test_seconds_of_a_stage_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter((10.0, 13.0, 20.0, 21.0, 30.0, 34.0))
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    told: list[str] = []
    stages = Stages(progress=told.append)
    for name in ("passes", "emit", "passes"):
        with stages.stage(name):
            assert stages.latest == name
    assert stages.seconds == {"passes": 7.0, "emit": 1.0}
    assert told == ["passes", "emit", "passes"]
