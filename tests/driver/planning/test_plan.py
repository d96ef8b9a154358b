"""Plans of the digits, from enumeration to files, with made-up times."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compiled import needs_native
from fake_probes import FakeProbe

from tensmith.compiler.economics.estimate import Estimate, Provenance
from tensmith.compiler.errors import UsageError
from tensmith.compiler.knobs import child_environment
from tensmith.driver.planning.plan_api import PlanUnmetError, error_of_plan, plan_request
from tensmith.driver.planning.planning import PlanResult

DIGITS = Path(__file__).parents[3] / "examples/digits/digits.onnx"
pytestmark = needs_native
Plan = Callable[..., PlanResult]
Usual = tuple[PlanResult, Path]


def _names(result: PlanResult) -> list[str]:
    return [point.name for point in result.points[: result.frontier]]


def test_a_plan_of_the_digits(usual_plan: Usual) -> None:
    result, folder = usual_plan
    assert result.choice is not None
    assert result.choice.build.variant.name == "digits-int8"
    assert result.choice.offer.name == "two"
    assert result.metric == "top1"
    assert result.exact > 0.97
    assert len(_names(result)) == 4  # both precisions on both machines
    by_name = {point.name: point for point in result.points}
    here = by_name["digits-fp32 on two north ondemand"]
    there = by_name["digits-fp32 on eight south reserved"]
    assert here.service.kind is Provenance.MEASURED
    assert there.service.kind is Provenance.MODELLED
    assert here.drop is None
    assert here.cost is not None
    assert here.cost.replicas == 2  # 3000 a second, of 2000 with all cores at work
    assert result.choice.cost is not None
    assert result.choice.cost.replicas == 1
    assert result.test is not None
    files = {path.name for path in folder.iterdir()}
    assert files == {"digits.so", "plan.json", "report.html", "reproduce.sh", "work"}


def test_plan_json_keeps_origins(usual_plan: Usual) -> None:
    result, folder = usual_plan
    told = json.loads((folder / "plan.json").read_text())
    assert told["schema"] == "tensmith-plan/1"
    assert told["chosen"] == 0
    assert told["promise"]["latency_p99_seconds"] == pytest.approx(0.01)
    for point, own in zip(told["points"], result.points, strict=True):
        assert own.cost is not None
        assert Estimate.from_json(point["cost"]["at_load"]) == own.cost.at_load
        assert Estimate.from_json(point["service"]) == own.service
        assert point["cost"]["p99"]["kind"] == "modelled"
        assert point["machine"]["price"]["kind"] == "given"


def test_the_page_is_whole_and_fetches_nothing(usual_plan: Usual) -> None:
    page = (usual_plan[1] / "report.html").read_text()
    assert page.count("<svg") == page.count("</svg>") == 7
    words = ("Cost and accuracy", "Cost and p99", "Load curve", "Work and idle", "Sensitivity")
    for word in (*words, "Roofline of the chosen binary", "Memory of the chosen binary"):
        assert word in page
    assert "f32_gemm" in page
    assert "arena 320 B" in page
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)
    assert "nan" not in page.replace("financ", "")


def test_the_script_makes_the_same_bytes(plan_digits: Plan, tmp_path: Path) -> None:
    plan_digits(precisions=("fp32",))
    command = f"{sys.executable} -m tensmith"
    result = subprocess.run(
        [tmp_path / "plan/reproduce.sh"], env=child_environment(TENSMITH=command),
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "again/digits-fp32.so: OK" in result.stdout


def test_what_was_interrupted_goes_on(plan_digits: Plan, usual_plan: Usual, tmp_path: Path) -> None:
    plain, folder = usual_plan
    with pytest.raises(KeyboardInterrupt):
        plan_digits(FakeProbe(stop=4), anew=True)
    again = FakeProbe()
    result = plan_digits(again)
    assert again.calls == 11 - 3  # two binaries in five rounds, and the load test
    assert _names(result) == _names(plain)
    paths = [folder / "plan.json", tmp_path / "plan/plan.json"]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_other_prices_measure_nothing_anew(plan_digits: Plan, tmp_path: Path) -> None:
    prices = tmp_path / "other.csv"
    prices.write_text(
        "name,region,cpu,vcpus,memory_gib,price_per_hour,currency,purchase,source,date\n"
        "four,north,fake,4,8,0.1,EUR,spot,list,2026-01-01\n"
    )
    probe = FakeProbe()
    result = plan_digits(probe, prices=prices, load="500/s")
    assert probe.calls == 1  # another load is tested
    assert any("333 days old" in note for note in result.notes)
    assert result.choice is not None
    assert result.choice.cost is not None
    assert result.choice.cost.at_load.unit == "EUR/1M"


def test_batches_and_threads(plan_digits: Plan) -> None:
    result = plan_digits(precisions=("fp32",), batches=(1, 4), threads=(1, 2, 64))
    reasons = {own.name: own.reason for own in result.pruned}
    assert "no machine has more than 8 cores" in reasons["digits-fp32-t64"]
    names = {point.build.variant.name for point in result.points}
    assert {"digits-fp32", "digits-fp32-b4"} <= names
    assert "digits-fp32-t2" in names or "save" in reasons["digits-fp32-t2"]


def test_nothing_keeps_the_promise(plan_digits: Plan, tmp_path: Path) -> None:
    result = plan_digits(latency_p99="0.3ms")
    error = error_of_plan(result)
    assert isinstance(error, PlanUnmetError)
    assert error.exit_code == 5
    assert error.best is result
    assert "nearest is digits-int8 on" in error.what
    assert "binding constraint p99" in error.what
    assert "exit 5" in (tmp_path / "plan/reproduce.sh").read_text()
    assert not (tmp_path / "plan/digits.so").exists()


def test_a_drop_has_to_be_shown(plan_digits: Plan) -> None:
    """A sixth of a point is not shown by 599 samples, whatever they say."""
    result = plan_digits(max_accuracy_drop="0.16%")
    by_name = {point.name: point for point in result.points}
    point = by_name["digits-int8 on two north ondemand"]
    (miss,) = point.misses
    assert miss.constraint == "accuracy"
    assert "is not shown with 599 samples" in miss.text or "is allowed" in miss.text
    assert result.choice is not None
    assert result.choice.build.variant.precision == "fp32"
    assert point.servable


def test_without_evaluation_data(plan_digits: Plan) -> None:
    result = plan_digits(eval=None, calibration=None)
    assert {point.build.variant.precision for point in result.points} == {"fp32"}
    assert any("no --eval" in note for note in result.notes)


def test_probes_make_rows_measured(plan_digits: Plan, usual_plan: Usual, tmp_path: Path) -> None:
    told = FakeProbe(cores=8)
    point = next(p for p in usual_plan[0].points if p.offer.name == "eight")
    report = replace(
        told(point.build, point.layout, tmp_path, seconds=1.0), processor="other",
        model="digits",
    )  # fmt: skip
    (tmp_path / "probe.json").write_text(json.dumps(report.to_json()) + "\n")
    measured = plan_digits(measured=[tmp_path / "probe.json"])
    kinds = {
        p.service.kind
        for p in measured.points
        if p.offer.name == "eight" and p.build.variant == point.build.variant
    }
    assert kinds == {Provenance.MEASURED}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs the load"),
        ({"load": "1/s", "trace": "x.csv"}, "either load"),
        ({"load": "1/s", "objective": "fun"}, "objective 'fun'"),
        ({"load": "1/s", "objective": "carbon"}, "--carbon"),
        ({"load": "1/s", "precisions": ("fp99",)}, "precision 'fp99'"),
        ({"load": "1/s", "precisions": ()}, "no precisions"),
        ({"load": "1/s", "batches": (0,)}, "at least one row"),
        ({"load": "1/s", "threads": (0,)}, "at least one is needed"),
        ({"load": "1/s", "latency_p99": "0s"}, "--latency-p99"),
        ({"load": "1/s", "candidates": (DIGITS,)}, "--eval"),
        ({"load": "1/s", "metric": "beauty"}, "no metric 'beauty'"),
        ({"load": "1/s", "max_accuracy_drop": "much"}, "is not an accuracy drop"),
        ({"load": "1/s", "prices": "none.csv"}, "there is no price file"),
        ({"load": "1/s", "measured": ("none.json",)}, "there is no file"),
        ({"load": "1/s", "candidates": ("none.onnx",)}, "there is no file"),
        ({"load": "1/s", "output": DIGITS}, "is a file"),
    ],
)
def test_requests_that_cannot_be(options: dict[str, Any], message: str) -> None:
    given = {"latency_p99": "10ms", "output": "plan", **options}
    with pytest.raises(UsageError, match=re.escape(message)):
        plan_request(DIGITS, **given)


def test_empty_evaluation_data(plan_digits: Plan, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UsageError, match=r"has no \.npz and no \.npy"):
        plan_digits(eval=tmp_path / "nothing")


def test_candidates_are_tried_alone_and_in_a_cascade(plan_digits: Plan, tmp_path: Path) -> None:
    small = DIGITS.with_name("digits_small.onnx")
    result = plan_digits(anew=True, candidates=(small,), precisions=("fp32",))
    by_name = {point.build.variant.name: point for point in result.points}
    alone, both = by_name["digits_small-fp32"], by_name["digits_small+digits-fp32"]
    assert alone.drop is not None
    assert alone.drop.drop > 0.01
    assert [miss.constraint for miss in alone.misses] == ["accuracy"]
    assert both.drop is not None
    assert both.drop.rows == 299  # those that did not choose the threshold
    assert both.drop.drop <= 0.01
    assert any(note.startswith("digits_small+digits: below") for note in result.notes)
    reasons = {own.name: own.reason for own in plan_digits(candidates=(small,)).pruned}
    assert "in fp32" in reasons["digits_small+digits-int8"]


@pytest.mark.slow
def test_what_was_killed_at_any_instant_goes_on(
    digits_data: dict[str, Path], tmp_path: Path
) -> None:
    """Twenty programs that kill themselves behind a random number of steps, then one that ends."""
    script = Path(__file__).parents[2] / "killed_plans.py"
    options = ["--load", "3000/s", "--latency-p99", "10ms", "--precisions", "fp32,int8"]
    options += ["--max-accuracy-drop", "0.5%", *_files(digits_data)]

    def life(steps: int, folder: Path) -> int:
        words = ["plan", str(DIGITS), *options, "-o", str(folder)]
        command = [sys.executable, str(script), str(steps), *words]
        return subprocess.run(command, capture_output=True, check=False).returncode

    assert life(0, tmp_path / "plain") == 0
    steps = random.Random(24).sample(range(1, 45), 20)
    assert all(life(count, tmp_path / "plan") in (0, -signal.SIGKILL) for count in steps)
    assert life(0, tmp_path / "plan") == 0
    told = [json.loads((tmp_path / n / "plan.json").read_text()) for n in ("plain", "plan")]
    assert told[0] == told[1]


def _files(data: dict[str, Path]) -> list[str]:
    return [word for name, path in data.items() for word in (f"--{name}", str(path))]
