"""Parts of plans: a cache of responses, energy that is counted, targets that are modelled, and a
budget of time over several runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import pytest
from compiled import needs_native
from fake_probes import FakeProbe
from tosa_runs import needs_vela

from tensmith.compiler.economics.estimate import Provenance
from tensmith.compiler.errors import UsageError
from tensmith.driver.planning.energy_readers import Unreadable
from tensmith.driver.planning.planning import PlanResult

pytestmark = needs_native
Plan = Callable[..., PlanResult]
DIGITS = Path(__file__).parents[3] / "examples/digits/digits.onnx"


# ---------------------------------------------------------------------- cache of responses


def _trace(folder: Path, different: int) -> Path:
    """3000 requests a second for two seconds, of so many different ones."""
    lines = [f"{n / 3000:.6f},{n * 17 % different}" for n in range(6000)]
    path = folder / "requests.csv"
    path.write_text("\n".join(("seconds,key", *lines)))
    return path


def test_a_cache_pays_where_requests_repeat(plan_digits: Plan, tmp_path: Path) -> None:
    result = plan_digits(load=None, trace=_trace(tmp_path, 50))
    cache, choice = result.cache, result.choice
    assert cache is not None
    assert choice is not None
    assert choice.cost is not None
    assert cache.machines == choice.cost.replicas
    assert cache.hit_rate.kind is Provenance.GIVEN
    assert cache.hit_rate.value == pytest.approx(1 - 50 * cache.machines / 6000)
    assert cache.bytes == 1 << 20
    assert 4 * (64 + 10) < cache.entry_bytes < 1000  # the image, scores, and what keeps them
    assert cache.hit.kind is Provenance.MEASURED
    assert cache.pays
    assert "it pays: --cache 1M" in cache.text()
    told = json.loads((tmp_path / "plan/plan.json").read_text())["response_cache"]
    assert told["pays"] is True
    assert escape(cache.text()) in (tmp_path / "plan/report.html").read_text()


def test_a_cache_does_not_pay_where_they_do_not(plan_digits: Plan, tmp_path: Path) -> None:
    result = plan_digits(load=None, trace=_trace(tmp_path, 6000))
    assert result.cache is not None
    assert result.cache.hit_rate.value == 0
    assert result.cache.expected.value > result.cache.without.value
    assert "does not pay" in result.cache.text()


def test_without_keys_nothing_is_said_of_a_cache(usual_plan: tuple[PlanResult, Path]) -> None:
    assert usual_plan[0].cache is None
    assert json.loads((usual_plan[1] / "plan.json").read_text())["response_cache"] is None


# ---------------------------------------------------------------------- energy


class _Meter:
    """A counter of a machine that takes 10 W, and a joule more with each call of a probe."""

    source = "made up"

    def __init__(self) -> None:
        self.now = 0.0
        self.probe = FakeProbe()
        self.sleep_called = 0

    def joules(self) -> float:
        return 10 * self.now + self.probe.calls * 1000

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now

    def tools(self) -> dict[str, Any]:
        return {"find_counters": lambda: ([self], []), "sleep": self.sleep, "clock": self.clock}


def test_energy_is_counted_where_it_can_be(plan_digits: Plan, tmp_path: Path) -> None:
    meter = _Meter()
    result = plan_digits(meter.probe, tools=meter.tools())
    by_name = {point.name: point for point in result.points}
    here = by_name["digits-fp32 on two north ondemand"]
    assert here.energy is not None
    assert here.cost is not None
    assert here.energy.kind is Provenance.MEASURED
    # 1000 calls took 1000 J more than the idle machine; and the machines are on
    assert here.energy.value == pytest.approx(1 + here.cost.replicas * 10 / 3000)
    there = by_name["digits-fp32 on eight south reserved"]
    assert there.energy is not None
    assert there.energy.kind is Provenance.MODELLED
    again = FakeProbe()
    plan_digits(again, tools=meter.tools())
    assert again.calls == 0  # all of it was kept
    note = next(
        n for n in plan_digits(objective="energy", tools=meter.tools()).notes if "rank" in n
    )
    assert "of different kinds: measured beside modelled" in note


def test_where_nothing_counts_energy_it_is_said_why(plan_digits: Plan, tmp_path: Path) -> None:
    why = Unreadable("RAPL", "there is nothing", "run it elsewhere")
    tools = {"find_counters": lambda: ([], [why])}
    carbon = tmp_path / "carbon.csv"
    carbon.write_text("region,grams_per_kwh\nnorth,50\n")
    result = plan_digits(tools=tools, carbon=carbon, objective="carbon")
    assert "energy is modelled; RAPL: there is nothing (run it elsewhere)" in result.notes
    (note,) = [own for own in result.notes if "ranked by" in own]
    assert "no carbon is known of south: machines there rank last" in note
    assert "+-50 %" in note
    carbons = [p.carbon.value if p.carbon else None for p in result.points[: result.frontier]]
    known = [value for value in carbons if value is not None]
    assert carbons == [*known, *[None] * (len(carbons) - len(known))]


# ---------------------------------------------------------------------- targets elsewhere


def _prices(folder: Path, *rows: str) -> Path:
    path = folder / "own.csv"
    head = "name,target,cpu,vcpus,memory_gib,price_per_hour,currency,purchase,source,date,clock_mhz"
    here = "two,,fake,2,8,0.1,USD,ondemand,list,2026-11-01,"
    path.write_text("\n".join((head, here, *rows)))
    return path


def test_targets_elsewhere_are_modelled(plan_digits: Plan, tmp_path: Path) -> None:
    row = "board,cortex-m7,m7,1,1,0.001,USD,ondemand,list,2026-11-01,"
    prices = _prices(tmp_path, row + "300", row.replace("board", "assumed"))
    result = plan_digits(targets=("native", "cortex-m7", "reference"), prices=prices)
    by_offer = {own.offer.name if own.offer else "": own for own in result.modelled}
    board, assumed = by_offer["board"], by_offer["assumed"]
    assert board.seconds is not None
    assert assumed.seconds is not None
    assert board.seconds.kind is Provenance.MODELLED
    assert board.seconds.value == pytest.approx(10 * assumed.seconds.value)
    assert board.cost is not None
    assert board.cost.at_load.kind is Provenance.MODELLED
    assert "is assumed" in assumed.note
    assert {point.build.variant.target for point in result.points} == {"native"}
    reasons = {own.name: own.reason for own in result.pruned}
    assert "emits no binaries" in reasons["digits-fp32-reference"]
    assert "nothing predicts int8" in reasons["digits-int8-cortex-m7"]
    page = (tmp_path / "plan/report.html").read_text()
    assert "Modelled for targets that do not run here, and not ranked" in page
    told = json.loads((tmp_path / "plan/plan.json").read_text())["modelled"]
    assert {own["seconds"]["kind"] for own in told} == {"modelled"}
    with pytest.raises(UsageError, match="clock_mhz is 'fast'"):
        plan_digits(targets=("native", "cortex-m7"), prices=_prices(tmp_path, row + "fast"))


def test_gpus_are_modelled_one_run_on_each(plan_digits: Plan, tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    head = "name,target,vcpus,memory_gib,accelerator,accelerator_count,price_per_hour,currency,"
    rows = (
        "two,,2,8,,,0.1,USD,ondemand,list,2026-11-01",
        "one,cuda:sm_90,8,64,H100,1,2.0,USD,ondemand,list,2026-11-01",
        "four,cuda:sm_90,32,256,H100,4,8.0,USD,ondemand,list,2026-11-01",
    )
    path.write_text("\n".join((f"{head}purchase,source,date", *rows)))
    result = plan_digits(
        targets=("native", "cuda:sm_90", "cuda"), precisions=("fp32", "bf16"), prices=path
    )
    found = {(own.variant.precision, own.offer.name): own for own in result.modelled if own.offer}
    assert {name for _, name in found} == {"one", "four"}
    one, four = found["fp32", "one"], found["fp32", "four"]
    assert one.seconds is not None
    assert one.seconds.kind is Provenance.MODELLED
    assert "no GPU has confirmed it" in one.seconds.method
    assert one.cost is not None
    assert four.cost is not None
    # as many dollars for each GPU, however many cores are beside them
    assert one.cost.saturated.value == pytest.approx(four.cost.saturated.value)
    assert "1.83e+09 Hz is assumed" in one.note
    (several,) = {own.note for own in result.modelled if own.variant.target == "cuda"}
    assert "several GPUs" in several


@needs_vela
def test_cycles_of_an_npu_need_its_clock(plan_digits: Plan, tmp_path: Path) -> None:
    row = "board,ethos-u55-128,m55,1,1,0.001,USD,ondemand,list,2026-11-01,"
    prices = _prices(tmp_path, row + "500", row.replace("board", "clockless"))
    result = plan_digits(targets=("native", "ethos-u55-128"), prices=prices)
    by_offer = {own.offer.name if own.offer else "": own for own in result.modelled}
    board, clockless = by_offer["board"], by_offer["clockless"]
    assert board.seconds is not None
    assert "cycles, estimated" in board.seconds.method
    assert f"{board.seconds.value * 500e6:.0f} cycles" in clockless.note
    assert clockless.seconds is None
    reasons = {own.name: own.reason for own in result.pruned}
    assert "nothing predicts fp32" in reasons["digits-fp32-ethos-u55-128"]


def test_a_target_without_a_price_is_told_of(plan_digits: Plan) -> None:
    result = plan_digits(targets=("native", "cortex-m7"))
    (own,) = result.modelled
    assert own.seconds is not None
    assert own.cost is None
    assert "no price row has the target cortex-m7" in own.note


def test_one_target_has_to_run_here_and_judges(plan_digits: Plan) -> None:
    with pytest.raises(UsageError, match="runs on this machine") as caught:
        plan_digits(targets=("cortex-m7",))
    assert "add native to --targets" in str(caught.value.remedy)
    result = plan_digits(targets=("cortex-m7", "native"))
    assert [own.variant.target for own in result.modelled] == ["cortex-m7"]


# ---------------------------------------------------------------------- budget of time


def test_a_budget_of_time_is_one_of_all_runs(plan_digits: Plan, tmp_path: Path) -> None:
    """Each look at the clock takes a second: what was spent is spent for the next run, too."""

    def ticking() -> Callable[[], float]:
        seconds = iter(range(100_000))
        return lambda: float(next(seconds))

    def plan(budget: str) -> PlanResult:
        return plan_digits(
            anew=True, time_budget=budget, tools={"clock": ticking()}, precisions=("fp32", "int8"),
            batches=(1, 2),
        )  # fmt: skip

    def late(result: PlanResult) -> set[str]:
        return {own.name for own in result.pruned if "--time-budget" in own.reason}

    first = plan("4s")
    assert late(first)
    again = plan("4s")
    assert late(again) == late(first)  # and what was compiled is still there
    assert {p.name for p in again.points} == {p.name for p in first.points}
    assert not late(plan("1h"))
