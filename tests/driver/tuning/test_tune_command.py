"""`tensmith tune`, its lines of JSON, and how it is stopped."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tensmith.compiler.tuning import events
from tensmith.compiler.tuning.records import Records
from tensmith.driver.artifacts import Artifact
from tensmith.driver.tuning import pairs

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What ratio whole binaries have."""
    from tensmith.compiler.tuning.whole_model import Paired

    ratios = [0.9]

    def time(self: Any, artifact: Any, *, exact: bool) -> Paired:
        return Paired((ratios[0],) * 15, 1e-3, ratios[0] * 1e-3)

    monkeypatch.setattr(pairs.BinaryPair, "time", time)
    return ratios


def test_the_command_tunes_and_goes_on(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path
) -> None:
    words = ("tune", model_path, "--records", db, "-o", "a.so")
    code, out, err = call(*words, "--trials", 20)
    assert code == 0, err
    assert "the whole model: 1.0 ms -> 900.0 µs, -10.0%" in out
    assert "continued" not in err
    code, out, err = call(*words, "--trials", 240)
    assert code == 0
    assert "session continued: " in err
    code, out, _ = call("tune", "--status", db)
    assert code == 0
    assert "kernel_conv" in out
    a = Path("a.so").read_bytes()
    code, out, err = call("compile", model_path, "--records", db, "-o", "a.so", "--no-verify")
    assert code == 0
    assert "tuned: choices of records for 2 kernel(s); when timed, a run took -10.0%" in out
    assert Path("a.so").read_bytes() == a


def test_events_are_lines_of_json_and_the_result_is_the_last(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path
) -> None:
    timed[0] = 1.0
    code, out, _ = call("tune", model_path, "--records", db, "--trials", 240, "--json")
    assert code == 0
    lines = [json.loads(line) for line in out.splitlines()]
    kinds = [line["kind"] for line in lines]
    assert kinds[0] == events.STARTED
    assert kinds[-1] == "result"
    assert {events.BUILT, events.TURN, events.VERDICT, events.MODEL, events.FINISHED} <= {*kinds}
    assert lines[-1]["chosen"] == []
    assert lines[-1]["files"] == {
        str(Path("double.so").absolute()): Path("double.so").stat().st_size
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_ends_the_round(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path,
    monkeypatch: pytest.MonkeyPatch, number: int,
) -> None:  # fmt: skip
    from fake_tuning import FakeMeasurer

    time = FakeMeasurer.time

    def interrupted(self: FakeMeasurer, batch: Any, turn: Any) -> Any:
        if len(self.turns) == 5:
            os.kill(os.getpid(), number)
        return time(self, batch, turn)

    monkeypatch.setattr(FakeMeasurer, "time", interrupted)
    code, _, err = call("tune", model_path, "--records", db, "--trials", 240, "-o", "a.so")
    assert code == 130
    assert "the same command goes on" in err
    assert Path("a.so").exists()
    assert fake.turns == 6, "the turn under way was finished, and none begun"
    monkeypatch.undo()


def test_the_second_signal_ends_at_once(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from fake_tuning import FakeMeasurer

    def interrupted(self: FakeMeasurer, batch: Any, turn: Any) -> Any:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("it went on")

    monkeypatch.setattr(FakeMeasurer, "time", interrupted)
    handler = signal.getsignal(signal.SIGINT)
    code, _, err = call("tune", model_path, "--records", db, "--trials", 240)
    assert code == 130
    assert "interrupted" in err
    assert signal.getsignal(signal.SIGINT) == handler
    monkeypatch.undo()


def test_a_signal_during_the_last_verification_is_told(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    verify = Artifact.verify

    def interrupted(self: Artifact, *given: Any, **named: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return verify(self, *given, **named)

    monkeypatch.setattr(Artifact, "verify", interrupted)
    code, _, err = call("tune", model_path, "--records", db, "--trials", 20, "-o", "a.so")
    assert code == 130
    assert "the same command goes on" in err
    assert Path("a.so").exists()


def test_what_another_session_has_timed_is_called_so(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path
) -> None:
    words = ("tune", model_path, "--records", db, "-o", "a.so")
    assert "has timed it" not in call(*words, "--trials", 240)[1]
    code, out, _ = call(*words, "--trials", 0, "--seed", 1)
    assert code == 0
    assert re.search(r"with 2 choice\(s\), as session \w+ has timed it", out)


def test_an_error_is_a_line_of_json(call: Call, model_path: Path, fake: Any, db: Path) -> None:
    code, out, _ = call("tune", model_path, "--records", db, "--json", "--kernels", "none")
    assert code == 2
    assert json.loads(out.splitlines()[-1])["error"]["exit_code"] == 2


def test_a_lost_measurer_is_an_error_that_leaves_a_binary(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from fake_tuning import FakeMeasurer

    def lost(self: FakeMeasurer, batch: Any, turn: Any) -> Any:
        raise OSError("the host is gone")

    monkeypatch.setattr(FakeMeasurer, "time", lost)
    code, _, err = call("tune", model_path, "--records", db, "--trials", 240, "-o", "a.so")
    assert code == 1
    assert "the host is gone" in err
    assert Path("a.so").exists()


def test_usage_errors_of_the_command(call: Call, model_path: Path, fake: Any) -> None:
    assert call("tune")[0] == 2
    assert call("tune", "missing.onnx")[0] == 2
    assert call("tune", model_path, "--time-budget", "soon")[0] == 2
    assert call("tune", model_path, "--trials", -1)[0] == 2
    assert call("tune", "--status", "missing.db")[0] == 2


def test_a_records_file_that_another_program_writes_is_refused(
    call: Call, model_path: Path, fake: Any, db: Path
) -> None:
    with Records(db):
        code, _, err = call("tune", model_path, "--records", db)
    assert code == 2
    assert "another program writes" in err


def test_what_is_written_is_verified(
    call: Call, model_path: Path, fake: Any, timed: list[float], db: Path
) -> None:
    words = ("tune", model_path, "--records", db, "--trials", 240, "-o", "a.a", "--name", "mine")
    code, _, err = call(*words, "--verify")
    assert code == 0, err
    result = json.loads(call(*words, "--json")[1].splitlines()[-1])
    assert result["manifest"]["name"] == "mine"
    assert Path("a.a") in [Path(file).relative_to(Path.cwd()) for file in result["files"]]
    fake.factor = "3.0f"
    assert call(*words)[0] == 4
    assert call(*words, "--no-verify")[0] == 0
