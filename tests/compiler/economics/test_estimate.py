"""Numbers with their origin: what may be joined, and what may not."""

from __future__ import annotations

from operator import add, le, lt, sub

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from tensmith.compiler.economics.estimate import (
    Estimate,
    MixedEstimatesError,
    Provenance,
    combined,
    given,
    machines_of,
)

TIME = Estimate(
    0.02, "s", Provenance.MEASURED, "runs in turns", (0.019, 0.022), "zen4", "2026-11-30"
)
GUESS = Estimate(0.03, "s", Provenance.MODELLED, "cost model", (0.01, 0.05), "zen4", "2026-11-01")
PRICE = given(0.4, "USD/h", "prices.csv, line 2", "2026-10-01")


def test_sums_are_of_one_kind_unit_and_machine() -> None:
    both = TIME + TIME
    assert both.value == pytest.approx(0.04)
    assert both.interval == pytest.approx((0.038, 0.044))
    assert (TIME - TIME).interval == pytest.approx((-0.003, 0.003))
    elsewhere = Estimate(0.02, "s", Provenance.MEASURED, "runs", machine="zen5")
    joules = Estimate(0.02, "J", Provenance.MEASURED, "counter", machine="zen4")
    for other in (GUESS, elsewhere, joules):
        for operation in (add, sub, lt, le):
            with pytest.raises(MixedEstimatesError):
                operation(TIME, other)
    with pytest.raises(MixedEstimatesError, match="another unit"):
        TIME * PRICE  # type: ignore[operator]


def test_numbers_scale() -> None:
    assert (3 * TIME).interval == pytest.approx((0.057, 0.066))
    assert (-1 * TIME).interval == pytest.approx((-0.022, -0.019))
    assert (TIME / 2).value == pytest.approx(0.01)
    assert (PRICE * 2).interval is None


def test_what_is_joined_says_of_what() -> None:
    cost = combined(lambda t, p: t * p / 3600, (TIME, PRICE), "USD", "time x price")
    assert cost.kind is Provenance.MEASURED
    assert cost.interval == pytest.approx((0.019 * 0.4 / 3600, 0.022 * 0.4 / 3600))
    assert cost.method == "time x price: runs in turns (measured), prices.csv, line 2 (given)"
    assert (cost.machine, cost.date) == ("zen4", "2026-10-01")
    guessed = combined(lambda t, p: t * p, (GUESS, TIME), "s2", "product")
    assert guessed.kind is Provenance.MODELLED
    assert f"{guessed}".startswith("~")
    assert f"{cost * 3600e3:.2f}" == "8.00"


def test_machines_are_told() -> None:
    assert machines_of([TIME, PRICE, GUESS]) == ("zen4",)


@pytest.mark.parametrize("own", [TIME, GUESS, PRICE, PRICE * float("inf")])
def test_json_keeps_all(own: Estimate) -> None:
    assert Estimate.from_json(own.to_json()) == own


def test_intervals_hold_their_number() -> None:
    for interval in ((2.0, 3.0), (float("nan"), 1.0)):
        with pytest.raises(ValueError, match="does not hold"):
            Estimate(1.0, "s", Provenance.GIVEN, "", interval)
    with pytest.raises(ValueError, match="does not hold"):
        Estimate(float("nan"), "s", Provenance.GIVEN, "")


_KNOWN = st.floats(0.1, 10.0)


@drawn(st.lists(st.tuples(_KNOWN, _KNOWN, _KNOWN).map(sorted), min_size=1, max_size=3), st.data())
def test_intervals_hold_what_a_function_can_give(
    parts: list[list[float]], data: st.DataObject
) -> None:
    own = [Estimate(p[1], "s", Provenance.GIVEN, "", (p[0], p[2])) for p in parts]
    found = combined(lambda first, *rest: 1 / first - sum(rest), own, "", "")
    first, *rest = [data.draw(st.floats(low, high)) for low, _, high in parts]
    assert found.low - 1e-9 <= 1 / first - sum(rest) <= found.high + 1e-9
