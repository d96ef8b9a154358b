"""A plan for the digits: real binaries, made once, with made-up times."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_probes import FakeProbe, fake_profile

from tensmith.compiler.economics import serving
from tensmith.compiler.economics.queue_simulation import QueueResult, Times, simulate
from tensmith.driver import api
from tensmith.driver.planning.plan_api import plan_request, planned
from tensmith.driver.planning.plan_tools import PlanTools
from tensmith.driver.planning.planning import PlanResult

DIGITS = Path(__file__).parents[3] / "examples/digits"
PRICES = "\n".join(
    (
        "name,region,cpu,vcpus,threads_per_core,memory_gib,price_per_hour,currency,purchase,"
        "source,date",
        "two,north,fake,2,1,8,0.1,USD,ondemand,list,2026-11-01",
        "eight,south,other,16,2,32,0.3,USD,reserved,list,2026-11-01",
    )
)
TODAY = date(2026, 11, 30)


@pytest.fixture(scope="session")
def digits_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Evaluation data, calibration data, prices."""
    folder = tmp_path_factory.mktemp("digits")
    with np.load(DIGITS / "digits_test.npz") as held:
        images, labels = (held["images"] / np.float32(16)).astype(np.float32), held["labels"]
    np.savez(folder / "eval.npz", image=images, labels=labels.astype(np.int64))
    np.savez(folder / "calibration.npz", image=images[:16])
    (folder / "prices.csv").write_text(PRICES)
    return {
        "eval": folder / "eval.npz",
        "calibration": folder / "calibration.npz",
        "prices": folder / "prices.csv",
    }


@pytest.fixture(scope="session")
def compile_once() -> Callable[..., Any]:
    """Compiles what was not compiled before."""
    made: dict[str, Any] = {}

    def compile(path: Path, request: Any) -> Any:
        key = f"{path} {request.precision} {request.threads} {request.shapes} {request.target}"
        if key not in made:
            made[key] = api.compile_request(path, request)
        return made[key]

    return compile


@cache
def _simulated(
    rate: float, times: bytes, servers: int, more: tuple[tuple[str, int], ...]
) -> QueueResult:
    return simulate(rate, np.frombuffer(times), servers, **dict(more))


@pytest.fixture(autouse=True)
def simulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans simulate mostly what others have simulated, whose chances have the same seed."""

    def known(rate: float, measured: Times, servers: int, **more: int) -> QueueResult:
        times = np.asarray(measured, np.float64).tobytes()
        return _simulated(rate, times, servers, tuple(sorted(more.items())))

    monkeypatch.setattr(serving, "simulate", known)


@pytest.fixture(scope="session")
def plan_into(
    digits_data: dict[str, Path], compile_once: Callable[..., Any]
) -> Callable[..., PlanResult]:
    """Plans the digits into a folder; `probe`, other tools and options of `tensmith.plan` may be
    given."""

    def plan(
        output: Path, probe: FakeProbe | None = None, tools: Any = None, **options: Any
    ) -> PlanResult:
        given: dict[str, Any] = {
            **{name: digits_data[name] for name in ("eval", "calibration", "prices")},
            "max_accuracy_drop": "0.5%",
            "load": "3000/s",
            "precisions": ("fp32", "int8"),
            "latency_p99": "10ms",
            **options,
        }
        request = plan_request(DIGITS / "digits.onnx", output=output, **given)
        object.__setattr__(request, "today", TODAY)
        made = PlanTools(compile_once, probe or FakeProbe(), profile=fake_profile)
        return planned(request, replace(made, **(tools or {})))[0]

    return plan


@pytest.fixture(scope="session")
def usual_plan(
    plan_into: Callable[..., PlanResult], tmp_path_factory: pytest.TempPathFactory
) -> tuple[PlanResult, Path]:
    """A plan that nothing interrupts, and its folder, which no test changes."""
    folder = tmp_path_factory.mktemp("usual") / "plan"
    return plan_into(folder), folder


@pytest.fixture
def plan_digits(
    plan_into: Callable[..., PlanResult], usual_plan: tuple[PlanResult, Path], tmp_path: Path
) -> Callable[..., PlanResult]:
    """Plans in a folder of the test: a copy of the usual one's, unless `anew`."""

    def plan(probe: FakeProbe | None = None, *, anew: bool = False, **options: Any) -> PlanResult:
        folder = tmp_path / "plan"
        if not anew and not folder.exists():
            shutil.copytree(usual_plan[1], folder)
        return plan_into(folder, probe, **options)

    return plan
