"""A session that is killed again and again: `python killed_sessions.py FILE` prints how often.

A program of its own, as it forks: threads of whoever else runs in a process do not live on.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from fake_tuning import FakeMeasurer, FakeModel, still

from tensmith.compiler.tuning.history import History, SessionKey
from tensmith.compiler.tuning.jobs import LocalPool
from tensmith.compiler.tuning.records import Records
from tensmith.compiler.tuning.session import Settings, TuningSession
from tensmith.compiler.tuning.shares import Budget
from tensmith.compiler.tuning.task import MachineClass

GAINS = {"a": 0.9, "b": 1.2, "c": 0.97, "d": 0.8}
KEY = SessionKey("model", "net", "x86-64-v3", MachineClass("fake"), {"threads": 1})
BUDGET = Budget(trials=160)


def session_of(path: Path) -> TuningSession:
    history = History(Records(path), KEY, "llvm")
    pool = LocalPool(FakeMeasurer(GAINS), still)
    settings = Settings(budget=BUDGET, clock=still)
    return TuningSession(history, FakeModel(GAINS), pool, settings)


def lives_for(path: Path, statements: int) -> int:
    """Run a session in a process that is killed at a statement of the database; how it ended."""
    child = os.fork()
    if child == 0:
        left = statements

        def count(_: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            session = session_of(path)
            session.history.records.db.set_trace_callback(count)
            session.run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def statements_of(life: int) -> int:
    """Most lives end within a step, now and then one is long enough for a whole batch."""
    return 100 if life % 8 == 7 else 3 + 7919 * life % 23


if __name__ == "__main__":
    kills = 0
    while (code := lives_for(Path(sys.argv[1]), statements_of(kills))) == -signal.SIGKILL:
        kills += 1
        if kills > 2000:
            sys.exit("it comes to no end")
    if code:
        sys.exit(f"a session ended with code {code}")
    print(kills)
