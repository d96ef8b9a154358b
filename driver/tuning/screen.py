"""Who watches a session for a user: a live table, a line now and then, or lines of JSON."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console as RichConsole
from rich.live import Live

from ...compiler.tuning.events import WORKER, Event
from ...compiler.tuning.session import TuningSession
from .board import Board
from .tune import TuneWatch

LINE_SECONDS = 10.0  # between lines where there is no terminal
REFRESH_SECONDS = 0.25  # between tables on one


class UserWatch(TuneWatch):
    """Shows a session on stderr, and its events as lines of JSON on stdout where that is asked for.

    clock: of seconds.
    """

    def __init__(
        self,
        *,
        json: bool,
        listener: Callable[[Event], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.json, self.listener, self.clock = json, listener, clock
        self.board: Board | None = None
        self.session: TuningSession | None = None
        self.stops = 0
        self._live: Live | None = None
        self._shown = -LINE_SECONDS
        self._in_signal = False
        self._held: list[Event] = []

    # ------------------------------------------------------------------ of the session

    def opened(self, session: TuningSession, trials: int) -> None:
        """Begin to show it."""
        continued = session.spent > 0
        self.session, self.board = session, Board(session, trials, continued)
        if continued:
            self._log(f"session continued: {trials} trials so far")
        if sys.stderr.isatty() and not self.json:
            self._live = Live(console=RichConsole(stderr=True), auto_refresh=False, transient=True)
            self._live.start()
        if self.stops:
            session.stop()

    def told(self, event: Event) -> None:
        """Show it. What a signal makes the session tell waits: the screen may be in use."""
        self._held.append(event)
        if self._in_signal:
            return
        while self._held:
            self._show(self._held.pop(0))

    def stopped(self) -> bool:
        """Whether the user asked to stop."""
        return self.stops > 0

    def _show(self, event: Event) -> None:
        if self.listener is not None:
            self.listener(event)
        if self.json:
            print(json.dumps(event.to_json()), flush=True)
        if self.board is None:
            return
        self.board.told(event)
        if event.kind == WORKER and "told" in event.data:
            text = f"{event.data['worker']} {event.data['told']}".strip()
            self._log(text) if self._live is None else self._live.console.print(text)
        now = self.clock()
        wait = LINE_SECONDS if self._live is None else REFRESH_SECONDS
        if now - self._shown < wait:
            return
        self._shown = now
        if self._live is None:
            self._log(self.board.line())
        else:
            width, height = self._live.console.size
            self._live.update(self.board.render(height, width), refresh=True)

    def _log(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    # ------------------------------------------------------------------ of the user

    @contextmanager
    def signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM: the first finishes the round, the second ends at once."""
        kinds = (signal.SIGINT, signal.SIGTERM)
        before = {kind: signal.getsignal(kind) for kind in kinds}
        for kind in kinds:
            signal.signal(kind, self._signalled)
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)
            self.close()

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self.stops += 1
        if self.stops > 1 or self.session is None:
            raise KeyboardInterrupt
        self._in_signal = True
        try:
            self.session.stop()
        finally:
            self._in_signal = False


def result_line(result: dict[str, Any]) -> str:
    """The last line of `--json`."""
    return json.dumps({"kind": "result", **result}, allow_nan=False, default=str)
