"""Sessions on a machine without a clock: what they find, what they cost, and that they go on."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killed_sessions
import pytest
from fake_tuning import FakeMeasurer, FakeModel, choice_of, still
from killed_sessions import BUDGET, GAINS, KEY

from tensmith.compiler.tuning.events import FINISHED, VERDICT, Event
from tensmith.compiler.tuning.history import CONFIRM, History
from tensmith.compiler.tuning.jobs import LocalPool
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.session import Settings, TuningSession
from tensmith.compiler.tuning.shares import Budget
from tensmith.compiler.tuning.task import Candidate


def _session(path, measurer=None, model=None, listener=lambda event: None, **settings):
    records = Records(path)
    history = History(records, KEY, "llvm")
    pool = LocalPool(measurer or FakeMeasurer(GAINS), still)
    wanted = replace(Settings(budget=BUDGET, clock=still), **settings)
    return TuningSession(history, model or FakeModel(GAINS), pool, wanted, listener)


def _found(path: Path):
    """Verdicts and counts of trials, as the file tells them."""
    with Records(path, write=False) as records:
        found = {}
        for past in History.of(records, KEY).tasks:
            assert past.verdict is not None
            own = past.verdict
            found[past.task.key] = own.choice, own.ratio, past.trials, past.spent
        return found


def test_gains_are_found_and_slower_candidates_are_not_taken(tmp_path: Path) -> None:
    told: list[Event] = []
    _session(tmp_path / "r.db", listener=told.append).run()
    found = _found(tmp_path / "r.db")
    best, base = choice_of(3, 2, 0), choice_of(4, 4, 0)
    assert {key: own[0] for key, own in found.items()} == {
        "a": best, "b": base, "c": best, "d": best,
    }  # fmt: skip
    assert found["d"][1] == pytest.approx(0.8, rel=0.02)
    assert sum(own[2] for own in found.values()) <= BUDGET.trials
    assert {event.task for event in told if event.kind == VERDICT} == set(GAINS)
    assert told[-1].kind == FINISHED


def test_a_finished_session_measures_nothing_again(tmp_path: Path) -> None:
    _session(tmp_path / "r.db").run()
    before = _found(tmp_path / "r.db")
    again = FakeMeasurer(GAINS)
    session = _session(tmp_path / "r.db", again)
    session.run()
    session.history.records.close()
    assert not again.turns
    assert _found(tmp_path / "r.db") == before


def test_more_budget_goes_on_where_the_session_was(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    _session(path, budget=Budget(trials=40)).run()
    first = sum(own[2] for own in _found(path).values())
    measurer = FakeMeasurer(GAINS)
    session = _session(path, measurer, budget=Budget(trials=120))
    session.run()
    second = sum(own[2] for own in _found(path).values())
    assert first <= 40 < second <= 120
    assert measurer.turns


def test_noise_makes_no_winner(tmp_path: Path) -> None:
    """Candidates that are all as fast as the base, on a machine of 20 % noise."""
    flat = FakeMeasurer(dict.fromkeys(GAINS, 1.0), noise=0.2)
    flat.true_ratio = lambda task, key: 1.0  # type: ignore[method-assign]
    _session(tmp_path / "r.db", flat).run()
    assert all(own[0] == choice_of(4, 4, 0) for own in _found(tmp_path / "r.db").values())


def test_what_computes_wrong_or_is_not_built_is_a_trial_and_no_winner(tmp_path: Path) -> None:
    best = Candidate(choice_of(3, 2, 0)).key
    measurer = FakeMeasurer(GAINS, wrong={best: "ended by SIGSEGV"})
    model = FakeModel(GAINS, broken=[Candidate(choice_of(8, 8, 0)).key])
    session = _session(tmp_path / "r.db", measurer, model)
    session.run()
    errors = {
        one.error for p in session.history.tasks for b in p.batches for one in b.built if one.error
    }
    assert errors == {"ended by SIGSEGV", "it cannot be emitted"}
    assert all(own[0] == choice_of(4, 4, 0) for own in _found(tmp_path / "r.db").values())


def test_inexact_candidates_are_tried_only_where_that_is_asked_for(tmp_path: Path) -> None:
    for inexact in (False, True):
        model = FakeModel(GAINS)
        session = _session(tmp_path / f"{inexact}.db", model=model, inexact=inexact)
        session.run()
        blocked = {Candidate(choice_of(r, u, 64)).key for r in (1, 2, 3, 4) for u in (1, 2, 4)}
        assert bool(blocked & set(model.built)) == inexact


def test_time_is_a_total_and_tasks_share_it(tmp_path: Path) -> None:
    session = _session(tmp_path / "r.db", budget=Budget(seconds=10.0))
    session.run()
    assert 5 < session.spent < 11
    trials = {past.task.key: past.trials for past in session.history.tasks}
    assert trials["d"] > trials["a"]


def test_tasks_near_their_roof_get_less(tmp_path: Path) -> None:
    trials = []
    for share in (0.3, 1.5):
        few = Budget(trials=40)
        session = _session(tmp_path / f"{share}.db", model=_Roofed(GAINS, share), budget=few)
        session.run()
        trials.append(session.history.tasks[3].trials)
    assert trials[0] > trials[1]


class _Roofed(FakeModel):
    """The last task alone has this share of its roof."""

    def __init__(self, gains, share: float) -> None:
        super().__init__(gains)
        self.share = share

    @property
    def tasks(self):
        found = super().tasks
        return [*found[:-1], replace(found[-1], roof_share=self.share)]


def test_other_machine_code_is_measured_anew(tmp_path: Path) -> None:
    """By the same command on a finished session, which counts nothing of the old code."""
    path = tmp_path / "r.db"
    _session(path).run()
    before = _found(path)
    again = FakeMeasurer(GAINS)
    session = _session(path, again, FakeModel(GAINS, emitter="new"))
    session.run()
    assert again.turns
    assert all(past.older for past in session.history.tasks)
    digests = {past.verdict.digest for past in session.history.tasks if past.verdict}
    new = {hashlib.sha256(f"new{one}".encode()).hexdigest() for one in session.history.choices}
    assert digests <= new
    session.history.records.close()
    assert _choices_of(before) == _choices_of(_found(path))
    still_there = FakeMeasurer(GAINS)
    _session(path, still_there, FakeModel(GAINS, emitter="new")).run()
    assert not still_there.turns
    back = FakeMeasurer(GAINS)
    _session(path, back).run()
    assert not back.turns, "what was measured of the first code counts for it still"


def _choices_of(found):
    return {key: own[0] for key, own in found.items()}


def test_an_interrupted_batch_does_not_go_on_with_other_code(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    measurer = FakeMeasurer(GAINS)
    session = _session(path, measurer)

    def listener(event: Event) -> None:
        past = session.history.tasks[3]
        confirmed = [t for b in past.batches for t in b.turns if t.kind == CONFIRM]
        if len(confirmed) == 4 and not session.stops:
            session.stop()
            session.stop()

    session.listener = listener
    session.run()
    session.history.records.close()

    class Changed(FakeModel):
        """Other code of everything but the base."""

        def build(self, task, candidates):
            own, base = super().build(task, candidates), self.base(task).key
            built = [
                one if one.candidate == base else replace(one, code=f"other {one.code}")
                for one in own.built
            ]
            return replace(own, built=tuple(built))

    later = _session(path, model=Changed(GAINS))
    later.run()
    for past in later.history.tasks:
        for batch in past.batches:
            confirming = [turn for turn in batch.turns if turn.kind == CONFIRM]
            assert len(confirming) in (0, 12, 24)
        verdict = past.verdict
        if verdict is not None and verdict.is_gain and past.older:
            assert verdict.digest.startswith("other ")


def test_tasks_come_and_go_with_the_compiler(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    _session(path, model=FakeModel({"a": 0.9, "b": 1.2})).run()
    session = _session(path, model=FakeModel({"b": 1.2, "c": 0.97}))
    session.run()
    assert [(p.task.key, p.gone) for p in session.history.tasks] == [
        ("a", True), ("b", False), ("c", False),
    ]  # fmt: skip
    assert session.history.tasks[2].trials > 0


def test_exact_costs_need_one_reading(tmp_path: Path) -> None:
    measurer = FakeMeasurer(GAINS, exact=True)
    session = _session(tmp_path / "r.db", measurer)
    session.run()
    assert all(t.kind == CONFIRM for p in session.history.tasks for b in p.batches for t in b.turns)
    assert all(len(b.turns) <= 1 for p in session.history.tasks for b in p.batches)
    found = _found(tmp_path / "r.db")
    assert found["c"][1] == pytest.approx(0.97)


def test_disturbed_turns_do_not_count(tmp_path: Path) -> None:
    session = _session(tmp_path / "r.db", FakeMeasurer(GAINS, disturbed=0.2))
    session.run()
    turns = [t for p in session.history.tasks for b in p.batches for t in b.turns]
    assert any(t.reading.disturbed for t in turns)
    assert _found(tmp_path / "r.db")["d"][0] == choice_of(3, 2, 0)


def test_a_stop_ends_after_the_turn_and_the_session_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    whole = tmp_path / "whole.db"
    _session(whole).run()
    measurer = FakeMeasurer(GAINS)
    session = _session(path, measurer)

    def listener(event: Event) -> None:
        if len(measurer.turns) == 20 and not session.stops:
            session.stop()
            session.stop()

    session.listener = listener
    session.run()
    assert len(measurer.turns) == 20
    session.history.records.close()
    _session(path).run()
    assert _choices(path) == _choices(whole)


def _choices(path: Path):
    return {key: (own[0], own[2]) for key, own in _found(path).items()}


def test_fifty_kills_change_nothing(tmp_path: Path) -> None:
    """A session that is killed again and again finds what one without kills does, with as many
    trials, and no committed turn is done again."""
    whole, path = tmp_path / "whole.db", tmp_path / "killed.db"
    session = _session(whole)
    session.run()
    session.history.records.close()
    script = Path(killed_sessions.__file__)
    told = subprocess.run(
        [sys.executable, str(script), str(path)], capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
    assert int(told.stdout) >= 50
    assert _found(path) == _found(whole)
    with Records(path, write=False) as records, Records(whole, write=False) as others:
        assert records.rows("PRAGMA integrity_check")[0][0] == "ok"
        for table in ("turn", "sample", "batch", "trial"):
            query = f"SELECT count(*) FROM {table}"
            assert records.rows(query)[0][0] == others.rows(query)[0][0]


def test_candidates_that_other_tasks_speak_for_come_first(tmp_path: Path) -> None:
    """Of every kind of decision, the one that is expected to be fastest."""

    class Expecting(FakeModel):
        def candidates(self, task):
            return [
                replace(one, expected=-0.1 if one.choice["stages"][0]["rows"] == 8 else 0.1)
                if one.steps
                else one
                for one in super().candidates(task)
            ]

    session = _session(tmp_path / "r.db", model=Expecting(GAINS))
    session.run()
    batch = session.history.tasks[3].batches[1]
    first = session.history.choices[batch.built[1].candidate]
    assert first["stages"][0]["rows"] == 8
