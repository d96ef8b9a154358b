"""Records files of sessions on a machine without a clock."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fake_tuning import FakeMeasurer, FakeModel

from tensmith.compiler.tuning.history import History, SessionKey
from tensmith.compiler.tuning.jobs import LocalPool
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.session import Settings, TuningSession
from tensmith.compiler.tuning.shares import Budget
from tensmith.compiler.tuning.task import MachineClass, digest

MACHINE = MachineClass("fake", {"cores": 2})
GAINS = {"conv": 0.8, "matmul": 1.2}


def session_key(name: str = "model", **options: Any) -> SessionKey:
    return SessionKey(digest(name), name, "native", MACHINE, options)


def tune_into(
    path: Path,
    gains: Mapping[str, float] = GAINS,
    measurer: FakeMeasurer | None = None,
    key: SessionKey | None = None,
    trials: float = 60,
    **model: Any,
) -> None:
    """A session, through."""
    with Records(path) as records:
        history = History(records, key or session_key(), "fake 1")
        pool = LocalPool(measurer or FakeMeasurer(gains))
        settings = Settings(Budget(trials=trials))
        TuningSession(history, FakeModel(gains, **model), pool, settings).run()
