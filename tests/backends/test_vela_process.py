"""The process of Vela: which of its ends are refusals, and whose answers are whose."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
from integer_graphs import integers_of
from tosa_runs import needs_vela

from tensmith.backends.ethosu import vela, vela_package, vela_worker
from tensmith.backends.ethosu.placement import place
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.vela_worker import VelaEndedError, VelaProcess
from tensmith.compiler.errors import InternalError, UsageError

TARGET = TARGETS["ethos-u55-128"]
HALF_AN_ANSWER = (
    "import os, pickle, sys; sys.stdin.buffer.read(1);"
    "os.write(1, pickle.dumps(('made', 'x' * 100))[:50]); "
)
ECHO = (
    "import pickle, sys\n"
    "while True:\n"
    "    pickle.dump(('made', pickle.load(sys.stdin.buffer)), sys.stdout.buffer)\n"
    "    sys.stdout.flush()"
)


def _process(code: str) -> VelaProcess:
    return VelaProcess((sys.executable, "-S", "-c", code))


@pytest.mark.parametrize(
    ("code", "told", "crashed"),
    [
        ("import os; os.abort()", "signal 6", True),
        (HALF_AN_ANSWER + "os.abort()", "signal 6", True),
        (HALF_AN_ANSWER + "sys.exit('half')", "exit status 1", False),
        ("import os; os.kill(os.getpid(), 9)", "signal 9", False),
        ("import sys; sys.stdin.buffer.read(1); sys.exit(3)", "exit status 3", False),
    ],
)
def test_a_process_that_ends_is_told(code, told, crashed):
    ended = _process(code)
    for _ in range(2):  # it is started anew
        with pytest.raises(VelaEndedError, match=told) as caught:
            ended.ask("EthosU55", b"", "TOSA", "", "")
        assert caught.value.crashed is crashed
        assert caught.value.printed == ("half" if "half" in code else "")


def test_an_answer_is_of_its_own_request(monkeypatch):
    def interrupted(source):
        raise KeyboardInterrupt

    echo = _process(ECHO)
    assert echo.ask("before") == ("made", ("before",))
    with monkeypatch.context() as patch:
        patch.setattr(vela_worker.pickle, "load", interrupted)
        with pytest.raises(KeyboardInterrupt):
            echo.ask("first")
    assert echo.ask("second") == ("made", ("second",))
    echo.close()


@needs_vela
def test_only_a_crash_is_a_refusal(monkeypatch):
    """Else operators would run on the host because of an installation that is broken."""
    monkeypatch.setattr(vela, "VELA", _process("raise KeyError('no such table')"))
    with pytest.raises(InternalError, match="KeyError: 'no such table'"):
        place(integers_of("residual", 3)[0], TARGET)
    monkeypatch.setattr(vela, "VELA", _process("import os; os.abort()"))
    with pytest.raises(vela.NotCompiled, match="signal 6"):
        vela.compiled(b"", TARGET)


def test_vela_that_is_missing_is_told(monkeypatch):
    monkeypatch.setattr(vela_package, "reason_unavailable", lambda: "it is not installed")
    with pytest.raises(UsageError, match="it is not installed"):
        vela.compiled(b"", replace(TARGET, name="never compiled for"))
