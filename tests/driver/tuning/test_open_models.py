"""Real models that are opened for tuning: every kernel has candidates. Nothing is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from tensmith.compiler.compilation import Stages
from tensmith.driver.model_build import ModelBuild, prepare
from tensmith.driver.request import CompileRequest
from tensmith.driver.tuning.applying import opened

DIGITS = Path(__file__).parents[3] / "examples/digits/digits.onnx"


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4"])
def test_a_network_with_an_open_batch_has_candidates(target: str, tmp_path: Path) -> None:
    """Its first convolution has one channel, and the others could take Winograd's algorithm."""
    request = CompileRequest(target=target)
    backend, resolved = request.resolve()
    model = ModelBuild(DIGITS, DIGITS, request, backend, resolved)
    stages = Stages()
    tunable = opened(model, prepare(model, tmp_path, stages), stages)
    assert len(tunable.tasks) > 4
    for task in tunable.tasks:
        candidates = tunable.candidates(task)
        assert candidates[0].key == tunable.base(task).key
        assert len({one.key for one in candidates}) == len(candidates) > 1
