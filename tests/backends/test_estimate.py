"""What a run is predicted to need, for named targets, without code being generated."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tensmith.compiler.backend import resolve_target
from tensmith.compiler.compilation import Stages
from tensmith.compiler.economics.estimate import Provenance
from tensmith.compiler.kernel.cost.model_cost import SPREAD, RunEstimate
from tensmith.driver.model_build import import_model
from tensmith.driver.request import CompileRequest

DIGITS = Path(__file__).parents[2] / "examples/digits/digits.onnx"


def _estimate(target: str, batch: int, threads: int = 1) -> RunEstimate:
    request = CompileRequest(target=target, threads=threads)
    backend, known = request.resolve()
    assert backend.estimate is not None
    options = replace(request.options(DIGITS, DIGITS.parent, known), sizes={"batch": batch})
    return backend.estimate(import_model(DIGITS, {}), known, options, Stages())


@pytest.mark.parametrize("target", ["x86-64-v3", "x86-64-v4", "aarch64"])
def test_a_model_is_predicted_for_any_cpu(target: str) -> None:
    one, many = _estimate(target, 1), _estimate(target, 64)
    assert one.seconds.kind is Provenance.MODELLED
    assert one.seconds.machine == target
    assert one.seconds.low == pytest.approx(SPREAD[0] * one.seconds.value)
    assert 1e-6 < one.seconds.value < 1e-3
    assert 32 < many.flops / one.flops < 65
    assert 8 < many.seconds.value / one.seconds.value < 80
    assert one.weight_bytes >= 15338 * 4
    assert one.arena_bytes is not None
    assert one.uncounted == ()


def test_threads_share_loops() -> None:
    one, four = _estimate("x86-64-v3", 64), _estimate("x86-64-v3", 64, threads=4)
    assert 0.2 < four.seconds.value / one.seconds.value < 0.9


def test_devices_predict_nothing() -> None:
    backend, _ = resolve_target("reference")
    assert backend.estimate is None
