"""`tensmith.tune`, with kernels and times that are made up; binaries are real."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tuned_binaries import Clock, contents, tuned

import tensmith
from tensmith.compiler.errors import ScheduleError, UsageError
from tensmith.compiler.tuning import events
from tensmith.compiler.tuning.events import Event
from tensmith.compiler.tuning.history import History
from tensmith.driver.tuning.tune import error_of


def test_a_faster_binary_is_made(model_path: Path, fake: Any, db: Path, tmp_path: Path) -> None:
    clock = Clock(0.9)
    result = tuned(model_path, db, clock, output=tmp_path / "a.so")
    assert result.chosen == ("kernel_conv", "kernel_dense"), "the surest first"
    assert result.outcome["accepted"]
    assert clock.binaries == 1
    told = result.artifact.manifest["tuning"]
    assert told["ratio"] == pytest.approx(0.9)
    assert told["interval"] == pytest.approx([0.9, 0.9])
    assert [own["kernel"] for own in told["used"]] == ["kernel_conv", "kernel_dense"]
    assert told["dropped"] == told["stale"] == []
    assert result.artifact.manifest["tuning_records_sha256"] == told["records"]
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(tensmith.load(tmp_path / "a.so")({"x": x})["y"], 2 * x)


def test_a_finished_session_measures_nothing_and_gives_the_same_bytes(
    model_path: Path, fake: Any, db: Path, tmp_path: Path
) -> None:
    tuned(model_path, db, Clock(0.9), output=tmp_path / "a.so")
    a, before, turns = (tmp_path / "a.so").read_bytes(), contents(db), fake.turns
    clock = Clock(0.5)
    again = tuned(model_path, db, clock, output=tmp_path / "a.so")
    assert (fake.turns, clock.calls) == (turns, 0)
    assert contents(db) == before
    assert again.trials_before == again.session.trials
    assert (tmp_path / "a.so").read_bytes() == a


def test_a_compilation_with_the_records_gives_the_bytes_of_tuning(
    model_path: Path, fake: Any, db: Path, tmp_path: Path
) -> None:
    tuned(model_path, db, Clock(0.9), output=tmp_path / "a.so")
    a = (tmp_path / "a.so").read_bytes()
    tensmith.compile(model_path, records=db).save(tmp_path / "a.so")
    assert (tmp_path / "a.so").read_bytes() == a
    tensmith.compile(model_path).save(tmp_path / "a.so")
    assert (tmp_path / "a.so").read_bytes() != a


def test_the_untuned_binary_is_kept_where_none_is_faster(
    model_path: Path, fake: Any, db: Path
) -> None:
    clock = Clock(0.995, 1.0)
    result = tuned(model_path, db, clock)
    assert clock.binaries == 2, "all choices, then the surer half"
    assert result.chosen == ()
    manifest = result.artifact.manifest
    assert manifest["tuning_records_sha256"] is None
    assert manifest["tuning"]["dropped"] == ["kernel_conv", "kernel_dense"]
    plain = tensmith.compile(model_path, records=db)
    assert plain.manifest == manifest
    assert plain.code.objects == result.artifact.code.objects


def test_the_least_sure_choices_are_left_out(model_path: Path, fake: Any, db: Path) -> None:
    fake.gains = {f"k{n}": 0.7 + 0.02 * n for n in range(8)}
    clock = Clock(1.0, 0.999, 0.95)
    result = tuned(model_path, db, clock, trials=1000)
    assert clock.binaries == 3
    assert result.chosen == ("kernel_k0", "kernel_k1")
    assert len(result.artifact.manifest["tuning"]["dropped"]) == 6
    assert tensmith.compile(model_path, records=db).manifest == result.artifact.manifest


def test_four_smaller_sets_are_tried_at_most(model_path: Path, fake: Any, db: Path) -> None:
    fake.gains = {f"k{n}": 0.8 for n in range(34)}
    clock = Clock(1.0)
    tuned(model_path, db, clock, trials=2800)
    assert clock.binaries == 5


def test_choices_that_do_not_go_together_are_tried_in_smaller_sets(
    model_path: Path, fake: Any, db: Path
) -> None:
    fake.gains = {f"k{n}": 0.7 + 0.02 * n for n in range(8)}
    compile_ = fake.compile

    def refusing(graph: Any, target: Any, options: Any, stages: Any) -> Any:
        if len(options.choices.by_key) > 2:
            raise ScheduleError("two of them want the same operand otherwise")
        return compile_(graph, target, options, stages)

    object.__setattr__(fake.backend, "compile", refusing)
    clock = Clock(0.95)
    result = tuned(model_path, db, clock, trials=1000)
    assert result.chosen == ("kernel_k0", "kernel_k1")
    assert clock.binaries == 1


def test_a_binary_of_other_bits_is_not_taken(
    model_path: Path, fake: Any, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_ = fake.compile

    def wrong(graph: Any, target: Any, options: Any, stages: Any) -> Any:
        fake.factor = "2.0000002f" if options.choices.by_key else "2.0f"
        return compile_(graph, target, options, stages)

    object.__setattr__(fake.backend, "compile", wrong)
    clock = Clock(0.5)
    result = tuned(model_path, db, clock)
    assert result.chosen == ()
    assert "other bits in the outputs y" in result.outcome["problem"]
    assert clock.calls == 0
    assert tuned(model_path, db, clock, allow_reordering=True).chosen


def test_more_trials_go_on_with_the_session(model_path: Path, fake: Any, db: Path) -> None:
    told: list[Event] = []
    first = tuned(model_path, db, Clock(0.9), trials=12)
    again = tuned(model_path, db, Clock(0.9), listener=told.append)
    assert 0 < first.session.trials <= 12
    assert again.trials_before == first.session.trials
    assert 12 < again.session.trials <= 240
    assert told[0].kind == events.STARTED
    assert told[0].data["continued"]
    assert [event.data["state"] for event in told if event.kind == events.MODEL][-1] == "timed"


def test_kernels_by_pattern(model_path: Path, fake: Any, db: Path) -> None:
    result = tuned(model_path, db, Clock(0.9), kernels="*conv")
    assert result.chosen == ("kernel_conv",)
    skipped = {task.name: task.skipped for task in result.session.tasks}
    assert skipped["kernel_conv"] == ""
    assert "'*conv'" in skipped["kernel_dense"]
    both = tuned(model_path, db, Clock(0.9), kernels="*dense")
    assert both.chosen == ("kernel_conv", "kernel_dense"), "what another session found stays"


def test_a_session_that_tried_nothing_takes_nothing_away(
    model_path: Path, fake: Any, db: Path
) -> None:
    first = tuned(model_path, db, Clock(0.9))
    clock = Clock(0.5)
    again = tuned(model_path, db, clock, seed=1, trials=0)
    assert again.session.trials == clock.calls == 0
    assert again.chosen == first.chosen


def test_a_measurer_that_is_lost_leaves_a_binary(
    model_path: Path, fake: Any, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fake_tuning import FakeMeasurer

    def lost(self: FakeMeasurer, batch: Any, turn: Any) -> Any:
        raise OSError("the host is gone")

    monkeypatch.setattr(FakeMeasurer, "time", lost)
    result = tuned(model_path, db, Clock(0.9))
    assert str(result.failure) == "the host is gone"
    assert result.chosen == ()
    monkeypatch.undo()


@pytest.mark.parametrize("step", ["begin", "add_wave", "add_turn", "conclude", "add_outcome"])
def test_a_disk_that_is_full_leaves_a_binary(
    model_path: Path, fake: Any, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:  # fmt: skip
    whole = getattr(History, step)

    def fill(self: History, *given: Any) -> Any:
        """From here on the file does not grow."""
        self.records.db.execute("PRAGMA max_page_count = 1")
        with self.records.transaction():
            self.records.db.execute("CREATE TABLE filler(text)")
            for _ in range(100):
                self.records.db.execute("INSERT INTO filler VALUES (zeroblob(4096))")
        return whole(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(History, step, fill)
        result = tuned(model_path, db, Clock(0.9), output=tmp_path / "a.so")
    assert isinstance(result.failure, UsageError)
    assert "disk is full" in str(result.failure)
    assert error_of(result) is result.failure
    assert (tmp_path / "a.so").exists()
    assert tuned(model_path, db, Clock(0.9)).chosen, "the same call goes on"


@pytest.mark.parametrize(
    "damage",
    ["UPDATE task SET sizes = '{'", "DROP TABLE sample"],
)
def test_damaged_records_are_told(model_path: Path, fake: Any, db: Path, damage: str) -> None:
    tuned(model_path, db, Clock(0.9), trials=12)
    with sqlite3.connect(db) as own:
        own.executescript(damage)
    own.close()
    with pytest.raises(UsageError) as told:
        tuned(model_path, db, Clock(0.9))
    assert str(db) in str(told.value)
    assert told.value.remedy


@pytest.mark.parametrize(
    "given",
    [
        {"objective": "energy"}, {"trials": -1}, {"trials": 1.5}, {"trials": True},
        {"time_budget": "soon"}, {"time_budget": -1}, {"time_budget": float("nan")},
        {"seed": -1}, {"seed": "a"}, {"seed": None}, {"kernels": 3}, {"machine": "bogus"},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(model_path: Path, fake: Any, db: Path, given: Any) -> None:
    with pytest.raises(UsageError):
        tuned(model_path, db, Clock(0.9), **given)
    assert not db.exists()
    assert all(measurer.closed for measurer in fake.measurers)


def test_a_pattern_has_to_meet_a_kernel(model_path: Path, fake: Any, db: Path) -> None:
    with pytest.raises(UsageError, match="no kernel's name is 'conv'") as told:
        tuned(model_path, db, Clock(0.9), kernels="conv")
    assert "kernel_conv" in str(told.value)
    assert "'*conv*'" in str(told.value)


def test_a_backend_that_is_not_tuned_is_refused(model_path: Path, fake: Any, db: Path) -> None:
    object.__setattr__(fake.backend, "tuning", None)
    with pytest.raises(UsageError, match="are not tuned"):
        tuned(model_path, db, Clock(0.9))
    with pytest.raises(UsageError, match="are not tuned"):
        tensmith.compile(model_path, records=db)
