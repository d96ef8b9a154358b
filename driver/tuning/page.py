"""Sessions of tuning as one HTML page: nothing is fetched, nothing runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from statistics import median

from ...compiler.tuning.summaries import SessionSummary, TaskSummary, winners
from ..console import human_seconds
from ..durations import human_duration
from ..pages import plots
from ..pages.page_parts import figure, tiles, whole_page
from ..pages.plots import LABEL, RIGHT, WIDTH, Mark, Scale
from .tables import gain_text, interval_text, outcome_text, state_text

LEAST_SPAN = 0.05  # of gains and noise, that is drawn


def page_of(title: str, sessions: Sequence[SessionSummary]) -> str:
    """The page; the latest session first, and open."""
    body = [
        _section(session, is_open=number == 0) for number, session in enumerate(reversed(sessions))
    ]
    if not sessions:
        body = ["<p>There is no session in this file.</p>"]
    return whole_page(f"Tuning: {title}", f"{_winners(sessions)}{''.join(body)}")


def _section(session: SessionSummary, *, is_open: bool) -> str:
    facts = [session.target, session.machine, f"seed {session.seed}", f"session {session.id}"]
    options = ", ".join(f"{key} {value}" for key, value in sorted(session.options.items()) if value)
    tasks = sorted(session.tasks, key=lambda own: -own.share)
    tuned = [task for task in tasks if task.trials]
    return (
        f"<details{' open' if is_open else ''}><summary><h2>{escape(session.name)}</h2>"
        f"<span>{escape(session.last[:16].replace('T', ' '))}: {len(session.gains)} of "
        f"{len(session.tasks)} kernels faster, {escape(outcome_text(session))}</span></summary>"
        f'<p class="facts">{escape(" · ".join(facts))}<br>{escape(options)}</p>'
        f"{_tiles(session)}{_gains(tuned)}{_progress(session)}{_roofs(tasks)}"
        f"{_failures(tasks)}{_noise(session)}{_table(tasks)}</details>"
    )


def _tiles(session: SessionSummary) -> str:
    outcome = session.outcome
    whole, told = "not timed", "tuned and untuned binary, in turns"
    if outcome is not None:
        whole = gain_text(outcome["ratio"]) if outcome["accepted"] else "untuned is kept"
        told = interval_text(outcome["low"], outcome["high"]) + " at 95 %"
    started = f"started {session.started[:10]}"
    shown = (
        ("time of a run", whole, told),
        ("kernels made faster", f"{len(session.gains)} of {len(session.tasks)}", "confirmed"),
        ("expected of kernels", gain_text(session.expected) or "nothing", "by themselves"),
        ("candidates", f"{session.trials}", f"in {human_duration(session.spent)}, {started}"),
        ("noise", f"{session.noise:.1%}" if session.noises else "?", "of equal code"),
    )
    return tiles(shown)


def _percent(value: float) -> str:
    return f"{value:+.1%}".replace("+0.0%", "0 %").replace("-0.0%", "0 %")


def _gains(tasks: Sequence[TaskSummary]) -> str:
    marks = []
    for task in tasks:
        value = task.ratio if task.is_gain else task.best
        low, high = (task.low, task.high) if task.is_gain else (value, value)
        kind = "confirmed" if task.is_gain else "best in a race, not confirmed"
        title = (
            f"{task.name}\n{kind}: {1 - value:+.1%} ({1 - high:+.1%} to {1 - low:+.1%})\n"
            f"{task.share:.1%} of a run, {task.trials} candidates"
        )
        marks.append(Mark(task.name, 1 - value, 1 - high, 1 - low, title, not task.is_gain))
    if not marks:
        return figure("Gain by kernel", "No candidate was tried.", "")
    ends = [end for mark in marks for end in (mark.low, mark.high)]
    room = 0.05 * max(LEAST_SPAN, *ends)
    scale = Scale(min(-room, *ends), max(LEAST_SPAN, *ends) + room, LABEL, WIDTH - RIGHT)
    note = "Time saved of a call, with its 95 % interval; those first that take most of a run. "
    hollow = "Hollow: the fastest in a race, which chance picks, too; nothing was confirmed."
    drawing = plots.dots(marks, scale, _percent, "time saved of a call")
    return figure("Gain by kernel", note + hollow, drawing)


def _progress(session: SessionSummary) -> str:
    if not session.progress or session.progress[-1][0] <= 0:
        return ""
    drawing = plots.steps(
        session.progress, "measuring and building, added up", human_duration,
        lambda x, y: f"{y:g} candidates after {human_duration(x)}",
    )  # fmt: skip
    return figure("Trials over time", "Candidates that were built, a step for a batch.", drawing)


def _roofs(tasks: Iterable[TaskSummary]) -> str:
    marks = []
    for task in tasks:
        if task.roof_share <= 0:
            continue
        after = min(1.0, task.roof_share / task.ratio)
        title = (
            f"{task.name}\n{task.roof_share:.0%} of what is possible"
            + (f", {after:.0%} tuned" if task.is_gain else "")
            + f"\n{human_seconds(task.seconds)} a call"
        )
        before = task.roof_share if task.is_gain else None
        marks.append(Mark(task.name, after, after, after, title, not task.is_gain, before))
    if not marks:
        return ""
    scale = Scale(0.0, 1.0, LABEL, WIDTH - RIGHT)
    note = (
        "The least time that the machine's peak and memory allow, as a share of the measured one; "
    )
    drawing = plots.dots(marks, scale, lambda v: f"{v:.0%}", "of what the machine can do")
    return figure("Roofline, before and after", note + "filled: with a confirmed choice.", drawing)


def _failures(tasks: Iterable[TaskSummary]) -> str:
    reasons: Counter[str] = Counter()
    for task in tasks:
        reasons.update(task.failures)
    if not reasons:
        return figure("Failures", "No candidate failed.", "")
    rows = [(name, float(n), f"{name}: {n}") for name, n in reasons.most_common(20)]
    note = "Candidates that could not be built, computed something else, crashed or hung."
    return figure("Failures", note, plots.bars(rows, "candidates"))


def _noise(session: SessionSummary) -> str:
    if not session.noises:
        return ""
    values = [noise - 1 for noise in session.noises]
    limit = max(LEAST_SPAN, 3 * session.noise)
    note = (
        f"The same code twice in a turn, {len(values)} times: half of the pairs differ by more "
        f"than {median(map(abs, values)):.2%}."
    )
    drawing = plots.histogram(values, limit, _percent, "second time beside the first")
    return figure("Noise", note, drawing)


def _table(tasks: Sequence[TaskSummary]) -> str:
    head = ("kernel", "calls", "share", "base", "gain", "interval", "tried", "failed", "differs in")
    rows = []
    for task in tasks:
        cells = (
            task.name, task.calls, f"{task.share:.1%}", human_seconds(task.seconds),
            gain_text(task.ratio) or state_text(task),
            interval_text(task.low, task.high) if task.is_gain else "", task.trials,
            sum(task.failures.values()) or "", ", ".join(task.decisions),
        )  # fmt: skip
        rows.append("".join(f"<td>{escape(str(cell))}</td>" for cell in cells))
    return _rows("Kernels", head, rows)


def _winners(sessions: Sequence[SessionSummary]) -> str:
    rows = []
    for own in winners(list(sessions)):
        cells = (
            own.decision, own.tasks, gain_text(own.ratio), interval_text(own.low, own.high),
            ", ".join(own.where[:6]) + (", …" if len(own.where) > 6 else ""),
        )  # fmt: skip
        rows.append("".join(f"<td>{escape(str(cell))}</td>" for cell in cells))
    if not rows:
        return ""
    head = ("differs from the heuristic in", "kernels", "saves (median)", "interval", "where")
    return _rows("Decisions that win, in all sessions", head, rows)


def _rows(title: str, head: Sequence[str], rows: Sequence[str]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return (
        f'<section><h3>{escape(title)}</h3><div class="scroll"><table><thead><tr>{names}</tr>'
        f"</thead><tbody>{body}</tbody></table></div></section>"
    )
