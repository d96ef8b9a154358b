"""What a million calls cost, in `bench` and `inspect`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from compiled import needs_native

from tensmith.compiler.economics.estimate import Estimate, Provenance
from tensmith.compiler.economics.prices import read_prices
from tensmith.compiler.host import processor_name
from tensmith.driver import cli
from tensmith.driver.call_cost import call_costs, cost_text

DIGITS = Path(__file__).parents[2] / "examples/digits/digits.onnx"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    path = tmp_path / "prices.csv"
    path.write_text(
        "name,cpu,vcpus,memory_gib,price_per_hour,currency,purchase,source,date\n"
        f'here,"{processor_name()}",4,8,0.36,USD,ondemand,list,2026-11-01\n'
        "other,,2,8,0.36,USD,ondemand,list,2026-11-01\n"
    )
    return path


def test_costs_of_calls(prices: Path) -> None:
    measured = Estimate(0.01, "s", Provenance.MEASURED, "median", (0.009, 0.011), "here")
    here, other = call_costs(measured, 1, read_prices(prices))
    assert here.cost is not None
    assert other.cost is not None
    assert here.cost.value == pytest.approx(0.36 * 0.01 / 4 / 3600 * 1e6)
    assert here.cost.kind is Provenance.MEASURED
    assert other.cost.value == 2 * here.cost.value
    assert cost_text(other).startswith("~0.5 USD/1M")
    here, other = call_costs(measured, 3, read_prices(prices))
    assert here.cost is not None
    assert other.cost is None
    assert cost_text(other) == "too few cores"


@needs_native
def test_bench_tells_cost_and_processor_time(
    prices: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", str(DIGITS), "--shape", "image:1x1x8x8", "--duration", "0", "--cost"]
    assert cli.main([*words, str(prices), "--json", "--iterations", "5"]) == 0
    (engine,) = json.loads(capsys.readouterr().out)["engines"]
    assert engine["cpu_seconds"] > 0
    assert [own["machine"] for own in engine["costs"]] == ["here ondemand", "other ondemand"]
    assert engine["costs"][0]["cost"]["kind"] == "measured"
    assert cli.main([*words, "none.csv"]) == 2


def test_inspect_predicts_cost(prices: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["inspect", str(DIGITS), "--cost", str(prices), "--target", "x86-64-v3"]
    assert cli.main([*words, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["cost"]
    assert told["seconds"]["kind"] == "modelled"
    assert told["machines"][0]["cost"]["kind"] == "modelled"
    assert cli.main(words) == 0
    assert "~" in capsys.readouterr().out
