"""What one sees of a session that runs."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from fake_tuning import FakeMeasurer, FakeModel
from rich.console import Console
from tuned_files import session_key

from tensmith.compiler.tuning import events
from tensmith.compiler.tuning.events import Event
from tensmith.compiler.tuning.history import History
from tensmith.compiler.tuning.jobs import LocalPool
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.session import Settings, TuningSession
from tensmith.compiler.tuning.shares import Budget
from tensmith.compiler.tuning.task import Batch, Reading, Turn, WaitEndedError, Waiting
from tensmith.driver.tuning.board import Board
from tensmith.driver.tuning.screen import UserWatch

LONG = "f32_conv_winograd_4x4_" * 6


def session_in(path: Path, watch: UserWatch | None = None, count: int = 3) -> TuningSession:
    gains = {f"{n}_{LONG}": 0.8 if n == 2 else 1.2 for n in range(count)}
    history = History(Records(path), session_key("net"), "fake 1")
    settings = Settings(Budget(trials=400, seconds=1e4))
    listener = watch.told if watch else lambda event: None
    pool = LocalPool(FakeMeasurer(gains))
    return TuningSession(history, FakeModel(gains), pool, settings, listener)


def shown(board: Board, height: int = 40, width: int = 110) -> str:
    console = Console(width=width, file=io.StringIO(), record=True, force_terminal=True)
    console.print(board.render(height, width))
    return console.export_text()


def test_the_board_tells_where_a_session_is(tmp_path: Path) -> None:
    session = session_in(tmp_path / "a.db")
    board = Board(session)
    assert "measuring the kernels" in shown(board), "before anything is known"
    session.run()
    board.current = session.history.tasks[0].task.key
    text = shown(board)
    assert "net for native" in text
    assert re.search(r"kernels [\d.]+ ms -> [\d.]+ ms \(", text)
    assert "of 400 trials" in text
    assert "noise 0." in text
    assert "confirming" in text or "racing" in text
    row = next(line for line in text.splitlines() if "2_f32" in line)
    assert re.search(r"-(19|20)\.\d%", row)
    assert "faster" in row
    assert "continued" not in text
    assert "session continued: 7 trials so far" in shown(Board(session, 7, continued=True))


def test_names_give_way_to_figures(tmp_path: Path) -> None:
    session = session_in(tmp_path / "a.db")
    session.run()
    for width in (72, 80, 200):
        lines = shown(Board(session), width=width).splitlines()
        assert max(map(len, lines)) <= width
        row = next(line for line in lines if "faster" in line)
        assert re.search(r"4[89]\.\d% +[\d.]+ ms +-\d+\.\d% +faster +\d+", row)


def test_kernels_that_have_no_room_are_counted(tmp_path: Path) -> None:
    session = session_in(tmp_path / "a.db", count=60)
    session.run()
    text = shown(Board(session), height=20)
    assert "and 49 more" in text
    assert len(text.splitlines()) < 20


def test_whole_models_and_stops_are_told(tmp_path: Path) -> None:
    board = Board(session_in(tmp_path / "a.db"))
    board.told(Event(events.MODEL, data={"state": "timing", "kernels": 2}))
    assert "timing the whole model with 2 choice(s)" in shown(board)
    told = {"state": "timed", "kernels": 2, "low": 0.9, "high": 0.95, "problem": ""}
    board.told(Event(events.MODEL, data={**told, "accepted": True}))
    assert "faster (-10.0% .. -5.0%)" in shown(board)
    board.told(Event(events.MODEL, data={**told, "high": 1.02, "accepted": False}))
    assert "not faster by enough (-10.0% .. +2.0%)" in shown(board)
    board.told(Event(events.MODEL, data={**told, "accepted": False, "problem": "other bits"}))
    assert "other bits" in shown(board)
    board.told(Event(events.STOPPING))
    assert "Ctrl-C again stops now" in shown(board)


def test_without_a_terminal_there_is_a_line_now_and_then(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter(range(0, 10**6, 3))
    watch = UserWatch(json=False, clock=lambda: next(seconds))
    session = session_in(tmp_path / "a.db", watch)
    watch.opened(session, 0)
    told: list[Event] = []
    watch.listener = told.append
    session.run()
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert 0 < len(lines) <= len(told) // 4 + 1, "one in 10 s, with 3 s between events"
    assert "1 of 3 kernels faster" in lines[-1]


def test_events_are_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    watch = UserWatch(json=True)
    session = session_in(tmp_path / "a.db", watch)
    watch.opened(session, 0)
    session.run()
    found: list[dict[str, Any]] = [
        json.loads(line) for line in capsys.readouterr().out.splitlines()
    ]
    assert {*found[0]} == {"kind", "task", "spent", "trials", "data"}
    assert [own["kind"] for own in found][-1] == events.FINISHED
    assert found[-1]["trials"] == session.trials


def test_a_session_that_is_stopped_before_it_opens_does_nothing(tmp_path: Path) -> None:
    watch = UserWatch(json=False)
    watch.stops = 1
    session = session_in(tmp_path / "a.db", watch)
    watch.opened(session, 0)
    session.run()
    assert session.trials == 0


def test_a_wait_for_another_program_is_told_and_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second program never ends: only a stop does."""
    watch = UserWatch(json=False)

    class Waits(FakeMeasurer):
        waiting: Waiting = staticmethod(bool)

        def time(self, batch: Batch, turn: Turn) -> Reading:
            assert not self.waiting(1.0)
            assert not self.waiting(6.0)
            session.stop()
            if self.waiting(7.0):
                raise WaitEndedError
            raise AssertionError("it went on")

    session = session_in(tmp_path / "a.db", watch)
    session.pool = LocalPool(Waits(session.pool.measurer.gains), listener=watch.told)
    watch.opened(session, 0)
    session.run()
    assert session.trials == 0
    assert capsys.readouterr().err.count("waits for another program") == 1
