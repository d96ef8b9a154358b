"""What a screen shows of a session that runs: figures, a bar, a row for each kernel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isinf
from typing import Any

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ...compiler.tuning import events
from ...compiler.tuning.events import Event
from ...compiler.tuning.history import CONFIRM, PastTask
from ...compiler.tuning.session import TuningSession
from ...compiler.tuning.shares import base_seconds
from ...compiler.tuning.statistics import spread
from ...compiler.tuning.summaries import TaskSummary, task_summary
from ..console import human_seconds
from ..durations import human_duration
from ..pages.plots import short
from .tables import gain_text, interval_text, state_text

OTHER_LINES = 9  # of the board, beside the rows of kernels
OTHER_COLUMNS = 52  # beside the names of kernels
LEAST_NAME, MOST_NAME = 14, 56
BAR = 24  # columns


@dataclass
class Board:
    """A session as it is now. continued: it was begun earlier, and had so many trials before;
    current: the task under way."""

    session: TuningSession
    before: int = 0
    continued: bool = False
    current: str = ""
    model: dict[str, Any] = field(default_factory=dict)
    stopping: bool = False

    def told(self, event: Event) -> None:
        """Take note of what happened."""
        self.current = event.task or self.current
        if event.kind == events.MODEL:
            self.model, self.current = dict(event.data), ""
        if event.kind == events.STOPPING:
            self.stopping = True

    def tasks(self) -> list[tuple[PastTask, TaskSummary]]:
        """Of all kernels, those first that take most of a run."""
        past = self.session.history.tasks
        whole = sum(own.task.calls * base_seconds(own) for own in past) or 1.0
        pairs = [(p, task_summary(p, p.task.calls * base_seconds(p) / whole)) for p in past]
        return sorted(pairs, key=lambda pair: -pair[1].share)

    # ------------------------------------------------------------------ texts

    def spent_text(self) -> str:
        """Of the budget."""
        budget = self.session.settings.budget
        parts = []
        if not isinf(budget.seconds):
            spent = min(self.session.spent, budget.seconds)
            parts.append(f"{human_duration(spent)} of {human_duration(budget.seconds)}")
        else:
            parts.append(human_duration(self.session.spent))
        of = "" if isinf(budget.trials) else f" of {budget.trials:g}"
        parts.append(f"{self.session.trials}{of} trials")
        return ", ".join(parts)

    def share_spent(self) -> float:
        """Of the budget, whichever end is nearer; 0 to 1."""
        budget = self.session.settings.budget
        shares = [0.0]
        for used, limit in ((self.session.spent, budget.seconds),
                            (self.session.trials, budget.trials)):  # fmt: skip
            if not isinf(limit):
                shares.append(used / limit if limit else 1.0)
        return min(1.0, max(shares))

    def model_text(self, tasks: Sequence[TaskSummary]) -> tuple[str, str]:
        """Time of all kernels of a run, before and now: what is confirmed, and what is not yet."""
        before = sum(own.calls * own.seconds for own in tasks)
        if not before:
            return "measuring the kernels as they are", ""
        now, low, high = (
            sum(own.calls * own.seconds * getattr(own, name) for own in tasks)
            for name in ("ratio", "low", "high")
        )
        promised = sum(own.calls * own.seconds * min(own.ratio, own.best) for own in tasks)
        if not any(own.is_gain for own in tasks):
            confirmed = f"kernels {human_seconds(before)}, nothing confirmed yet"
        else:
            interval = f"{human_seconds(low)} .. {human_seconds(high)}"
            confirmed = f"kernels {human_seconds(before)} -> {human_seconds(now)} ({interval})"
        return confirmed, f"races so far: {human_seconds(promised)}" if promised < now else ""

    def whole_text(self) -> str:
        """Of the whole binary, once it is timed."""
        if not self.model:
            return ""
        kernels = f"with {self.model['kernels']} choice(s)"
        if self.model["state"] == "timing":
            return f"timing the whole model {kernels} against the untuned one"
        if self.model["problem"]:
            return f"whole model {kernels}: {self.model['problem']}"
        interval = interval_text(self.model["low"], self.model["high"])
        verdict = "faster" if self.model["accepted"] else "not faster by enough"
        return f"whole model {kernels}: {verdict} ({interval})"

    def noise_text(self) -> str:
        """What equal code differs by."""
        noise = self.session.noise
        return f"noise {spread(noise):.1%}" if noise else ""

    def line(self) -> str:
        """All in one line, for where there is no terminal."""
        tasks = [own for _, own in self.tasks()]
        gains = sum(own.is_gain for own in tasks)
        saved = sum(own.share * (1 - own.ratio) for own in tasks)
        name = next((own.name for own in tasks if own.key == self.current), "")
        parts = [
            self.spent_text(), f"{gains} of {len(tasks)} kernels faster",
            f"kernels {gain_text(1 - saved)}" if saved else "", self.whole_text(),
            f"at {name}" if name else "", "stopping" if self.stopping else "",
        ]  # fmt: skip
        return ", ".join(part for part in parts if part)

    # ------------------------------------------------------------------ the screen

    def render(self, height: int, width: int) -> RenderableType:
        """For a terminal of so many lines and columns."""
        pairs = self.tasks()
        confirmed, promised = self.model_text([own for _, own in pairs])
        head = Text(f"{self.session.history.key.name} for {self.session.history.key.target}")
        if self.continued:
            head.append(f"   session continued: {self.before} trials so far", "dim")
        figures = Text.assemble((confirmed, "bold"), (f"   {promised}", "dim"))
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=1.0, completed=self.share_spent(), width=BAR), self.spent_text(),
            Text(self.noise_text(), "dim"),
        )  # fmt: skip
        last = Text("stopping: the round is finished first; Ctrl-C again stops now", "yellow")
        lines: list[RenderableType] = [head, figures, bar, self._table(pairs, height, width)]
        if self.whole_text():
            lines.append(Text(self.whole_text(), "bold"))
        if self.stopping:
            lines.append(last)
        return Group(*lines)

    def _table(
        self, pairs: Sequence[tuple[PastTask, TaskSummary]], height: int, width: int
    ) -> Table:
        room = max(3, height - OTHER_LINES)
        longest = max(LEAST_NAME, min(MOST_NAME, width - OTHER_COLUMNS))
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        table.add_column("kernel", no_wrap=True)
        for name in ("share", "base", "best"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for name in ("trials", "failed"):
            table.add_column(name, justify="right", no_wrap=True)
        for past, own in pairs[:room]:
            name = f"{own.calls} x {own.name}" if own.calls > 1 else own.name
            table.add_row(
                Text(short(name, longest), "bold" if own.key == self.current else ""),
                f"{own.share:.1%}", human_seconds(own.seconds), _best(own),
                self._state(past, own), f"{own.trials}",
                f"{sum(own.failures.values()) or ''}",
                style="dim" if own.skipped else "",
            )  # fmt: skip
        if len(pairs) > room:
            table.add_row(Text(f"and {len(pairs) - room} more", "dim"))
        return table

    def _state(self, past: PastTask, own: TaskSummary) -> Text:
        if own.skipped:
            return Text("left out")
        if own.key == self.current:
            turns = past.batches[-1].turns if past.batches else []
            confirming = bool(turns) and turns[-1].kind == CONFIRM
            return Text("confirming" if confirming else "racing", "cyan")
        if own.is_gain:
            return Text("faster", "green")
        if not past.batches:
            return Text("waiting", "dim")
        return Text(state_text(own), "dim")


def _best(own: TaskSummary) -> Text:
    """What is confirmed; grey, what a race promises."""
    if own.is_gain:
        return Text(gain_text(own.ratio), "green")
    return Text(gain_text(own.best), "dim")
