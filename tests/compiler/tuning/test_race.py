"""The race and the confirmation, on readings that are written down."""

import random

import pytest

from tensmith.compiler.tuning.history import CONFIRM, RACE, PastBatch, PastTask, PastTurn
from tensmith.compiler.tuning.race import (
    RULES,
    confirmations,
    finalists,
    next_turn,
    noise,
    scores,
    verdict_from,
)
from tensmith.compiler.tuning.statistics import interval, sign_test, spread
from tensmith.compiler.tuning.task import BASE, Built, CallTimes, Candidate, Reading, Task


def _batch(count: int, codes=None, number: int = 1) -> PastBatch:
    built = tuple(
        Built(Candidate({"n": n}).key, codes[n] if codes else f"code{n}") for n in range(count)
    )
    return PastBatch(1, number, 0, built, 1.0)


def _reading(turn, times, least=0.95, failures=None) -> Reading:
    samples = tuple(CallTimes(n, times[n] * least, times[n], times[n] * 1.1, 9) for n in turn.order)
    return Reading(samples, 0.1, failures or {})


def _run(batch: PastBatch, times, keep=()) -> list[tuple[str, tuple[int, ...]]]:
    """Do all turns with times that do not change; what was asked for."""
    asked = []
    while (step := next_turn(batch, "seed", keep)) is not None:
        kind, turn = step
        asked.append((kind, turn.order))
        batch.turns.append(PastTurn(len(batch.turns), kind, _reading(turn, times)))
        assert len(asked) < 100
    return asked


def test_slow_candidates_leave_the_race_and_the_base_never_does() -> None:
    times = [1.0, 0.9, 0.95, 0.85, 1.02, 1.05, 1.1, 1.5, 3.0]
    batch = _batch(len(times))
    asked = _run(batch, times)
    races = [order for kind, order in asked if kind == RACE]
    assert len(races) >= RULES.race_turns
    assert all(order[0] == order[-1] == BASE for _, order in asked)
    assert set(races[0]) == set(range(9))
    assert 8 not in races[1]
    assert len(set(races[-1])) <= RULES.finalists + 2
    assert finalists(batch) == [3, 1, 2]
    confirming = [order for kind, order in asked if kind == CONFIRM]
    assert confirming[0] == (0, 3, 1, 2, 2, 1, 3, 0)
    # the one at 0.95 is not doubtful, nor are the faster ones: one dozen does
    assert len(confirming) == RULES.pairs


def test_no_confirmation_where_nothing_is_promising() -> None:
    batch = _batch(4)
    asked = _run(batch, [1.0, 0.995, 1.0, 1.2])
    assert {kind for kind, _ in asked} == {RACE}
    assert not confirmations(batch)


def test_small_gains_take_a_second_dozen() -> None:
    batch = _batch(3)
    asked = _run(batch, [1.0, 0.97, 0.9])
    confirming = [order for kind, order in asked if kind == CONFIRM]
    assert len(confirming) == 2 * RULES.pairs
    assert confirming[-1] == (0, 1, 1, 0)
    assert {own.position for own in confirmations(batch) if own.accepted} == {1, 2}


@pytest.mark.parametrize("wins", [9, 10])
def test_ten_of_twelve_pairs_have_to_be_won(wins: int) -> None:
    batch = _batch(2)
    done = 0
    while (step := next_turn(batch, "seed")) is not None:
        kind, turn = step
        fast = kind == RACE or done < wins
        done += kind == CONFIRM
        reading = _reading(turn, [1.0, 0.9 if fast else 1.01])
        batch.turns.append(PastTurn(len(batch.turns), kind, reading))
    assert [own.accepted for own in confirmations(batch)] == [wins >= 10]


def test_the_least_time_has_to_be_less_too() -> None:
    """A median that is lower because the base was disturbed in most turns."""
    batch = _batch(2)
    while (step := next_turn(batch, "seed")) is not None:
        kind, turn = step
        samples = tuple(CallTimes(n, 0.9, 1.0 if n == BASE else 0.92, 1.1, 9) for n in turn.order)
        batch.turns.append(PastTurn(len(batch.turns), kind, Reading(samples, 0.1)))
    assert [own.accepted for own in confirmations(batch)] == [False]


def test_equal_machine_code_is_not_timed_twice() -> None:
    batch = _batch(4, codes=["x", "y", "x", "y"])
    _run(batch, [1.0, 0.9, 0.8, 0.7])
    assert finalists(batch) == [1]


def test_what_fails_in_a_turn_is_out_and_a_failing_base_ends_it() -> None:
    batch = _batch(3)
    _, turn = next_turn(batch, "seed") or pytest.fail("nothing to do")
    batch.turns.append(PastTurn(0, RACE, _reading(turn, [1.0, 0.5, 0.9], failures={1: "SIGILL"})))
    assert 1 not in scores(batch)
    _, turn = next_turn(batch, "seed") or pytest.fail("nothing to do")
    assert 1 not in turn.order
    batch.turns.append(PastTurn(1, RACE, _reading(turn, [1.0, 1, 0.9], failures={0: "SIGSEGV"})))
    assert next_turn(batch, "seed") is None
    assert not finalists(batch)


def test_a_confirmed_choice_has_to_hold_beside_new_finalists() -> None:
    task = Task("k", "kernel", "key")
    first, second = _batch(3, number=1), _batch(4, number=2)
    _run(first, [1.0, 0.8, 1.1])
    choices = {Candidate({"n": n}).key: {"n": n} for n in range(4)}
    verdict = verdict_from(PastTask(1, task, "", [first]), choices)
    assert verdict is not None
    assert verdict.choice == {"n": 1}
    assert verdict.low <= verdict.ratio <= verdict.high
    _run(second, [1.0, 1.0, 1.1, 0.9], keep=[1])  # the first does not hold
    later = verdict_from(PastTask(1, task, "", [first, second]), choices)
    assert later is not None
    assert later.choice == {"n": 3}
    third = _batch(4, number=2)
    _run(third, [1.0, 0.8, 1.1, 0.9], keep=[1])
    kept = verdict_from(PastTask(1, task, "", [first, third]), choices)
    assert kept is not None
    assert kept.choice == {"n": 1}


def test_noise_is_what_the_base_differs_from_itself() -> None:
    batch = _batch(2)
    drawn = random.Random(1)
    for number in range(9):
        _, turn = next_turn(_batch(2), "seed") or pytest.fail("nothing to do")
        samples = tuple(CallTimes(n, 1.0, 1.0 + 0.1 * drawn.random(), 1.2, 9) for n in turn.order)
        batch.turns.append(PastTurn(number, RACE, Reading(samples, 0.1)))
    assert len(noise(batch)) == 9
    assert 0 < spread(noise(batch)) < 0.1


def test_intervals_and_sign_tests() -> None:
    assert interval([float(n) for n in range(12)]) == (2.0, 9.0)
    assert interval([1.0, 2.0]) == (1.0, 2.0)
    assert sign_test(10, 12) == pytest.approx(0.0193, abs=1e-4)
    assert sign_test(6, 12) > 0.5
    drawn = random.Random(2)
    held = 0
    for _ in range(400):
        low, high = interval([drawn.gauss(0, 1) for _ in range(24)])
        held += low <= 0 <= high
    assert held >= 370
