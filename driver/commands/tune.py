"""`tensmith tune`: measure kernels in other forms, and compile a model with the faster ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import LOWER_PRECISION, USUAL, MachineOption, Verbose, with_compilation
from ..standard_input import from_standard_input
from .compile import Emit, Name, Verify, destination

if TYPE_CHECKING:
    from ..artifacts import Artifact
    from ..console import Console
    from ..request import CompileRequest
    from ..tuning.tune import TuneOptions, TuneResult

INTERRUPTED = 130
_KERNELS = 24  # lines of the table, without -v

Model = Annotated[
    Path | None,
    typer.Argument(
        metavar="MODEL",
        help="An ONNX file; - for standard input.",
        show_default=False,
        callback=lambda value: None if value is None else from_standard_input(value),
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", help="File to write (default: MODEL's name, .so).", show_default=False
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        "--trials", min=0, help="Candidates to build, in all runs together.", show_default=False
    ),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        metavar="TIME",
        help="Of the session, in all runs together: 90s, 10m, 1.5h (default: 10m, or none with "
        "--trials).",
        show_default=False,
    ),
]
RecordsFile = Annotated[
    Path | None,
    typer.Option(
        "--records",
        metavar="FILE",
        help="Where everything that is measured is kept (default: the knob records, or "
        "tensmith/tuning.db in the user's folder for data).",
        show_default=False,
    ),
]
Workers = Annotated[
    str,
    typer.Option(
        "--workers",
        metavar="WHERE",
        help="What measures: local, local:N (processes), ssh://HOST, tcp://HOST:PORT or "
        "tls://HOST:PORT (a Dask scheduler).",
    ),
]
Kernels = Annotated[
    str, typer.Option("--kernels", metavar="PATTERN", help="Names of kernels to tune, as *conv*.")
]
Objective = Annotated[str, typer.Option("--objective", help="What is to be small: latency.")]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the order of candidates.")]
Status = Annotated[
    Path | None,
    typer.Option(
        "--status", metavar="FILE", help="Show the sessions in a records file; nothing is tuned.",
        show_default=False,
    ),
]  # fmt: skip
Json = Annotated[
    bool,
    typer.Option("--json", help="Events as lines of JSON on stdout, the result last."),
]


@with_compilation(*USUAL, *LOWER_PRECISION, "allow_reordering")
def command(
    model: Model = None,
    output: Output = None,
    trials: Trials = None,
    time_budget: TimeBudget = None,
    records: RecordsFile = None,
    workers: Workers = "local",
    machine: MachineOption = "",
    kernels: Kernels = "*",
    objective: Objective = "latency",
    seed: Seed = 0,
    status: Status = None,
    *,
    request: CompileRequest,
    emit: Emit = None,
    name: Name = None,
    verify: Verify = None,
    json: Json = False,
    verbose: Verbose = False,
) -> int | None:
    """Measure a model's kernels in other forms, and compile it with those that are faster.

    The same command continues where it was, whatever ended it; the budget is that of all runs
    together. Ctrl-C finishes the round under way, a second one ends at once; a binary is written in
    any case, the untuned one where nothing was confirmed (docs/tuning.md).
    """
    from ...compiler.errors import UsageError
    from ..console import Console
    from ..durations import seconds_of
    from ..tuning.tune import TuneOptions

    console = Console(json=json, verbose=verbose)
    if status is not None:
        return _show_status(console, status)
    if model is None:
        raise UsageError("there is no model to tune", remedy="name an ONNX file, or --status FILE")
    options = TuneOptions(
        records=records, trials=trials, kernels=kernels, seed=seed, workers=workers,
        machine=machine, objective=objective,
        seconds=None if time_budget is None else seconds_of(time_budget),
    )  # fmt: skip
    output, kind, texts = destination(model, output, emit, request.target)
    request = replace(request, work_dir=output.parent, name=name or "", texts=texts)
    return _tune(console, model, request, options, output, kind, verify)


def _tune(
    console: Console,
    model: Path,
    request: CompileRequest,
    options: TuneOptions,
    output: Path,
    emit: str,
    verify: bool | None,
) -> int | None:
    from ..console import Told
    from ..tuning.screen import UserWatch, result_line
    from ..tuning.tune import error_of, tune_request

    watch = UserWatch(json=console.json)

    def check(artifact: Artifact) -> None:
        if verify or (verify is None and not artifact.is_stood_in):
            artifact.verify().raise_if_failed()

    with watch.signals():
        result = tune_request(model, request, options, watch, output, emit, check)
    for note in result.notes:
        console.log(f"note: {note}")
    if console.json:
        print(result_line(result.to_json()), flush=True)
    else:
        _show(console, result)
    report = result.artifact.report
    if report is not None and (report.status != "passed" or report.disputed):
        console.log(f"warning: {report.summary()}")
    unverified = report.error() if verify and report else None
    error = unverified or error_of(result)
    if error is not None:
        console.exit(error)
    if not result.stopped:
        return None
    console.log("interrupted: the same command goes on where this one was")
    return Told(INTERRUPTED)


def _show_status(console: Console, path: Path) -> int:
    from ...compiler.tuning.summaries import summaries
    from .records import read, show_sessions

    show_sessions(console, path, summaries(read(path)), tasks=True)
    return 0


def _show(console: Console, result: TuneResult) -> None:
    from ...compiler.tuning.lookup import short_key
    from ..console import human_bytes, human_seconds
    from ..durations import human_duration
    from ..tuning.tables import interval_text, task_rows

    session = result.session
    names = ("kernel", "share", "base", "of it", "interval", "trials", "failed", "decisions")
    rows = list(task_rows(session))[: None if console.verbose else _KERNELS]
    console.table("Kernels", names, rows)
    if len(rows) < len(session.tasks):
        console.print(f"and {len(session.tasks) - len(rows)} more: `tensmith records show --tasks`")
    console.print(
        f"{session.trials} trials in {human_duration(session.spent)}, "
        f"{len(session.gains)} of {len(session.tasks)} kernels faster; "
        f"noise {session.noise:.1%}; records in {result.records}"
    )
    outcome = result.outcome
    by = ""
    if outcome is not None and short_key(outcome["session"]) != session.id:
        by = f", as session {short_key(outcome['session'])} has timed it"
    if outcome is None:
        taken = f"it has {len(result.chosen)} choice(s)" if result.chosen else "it is untuned"
        console.print(f"the whole model was not timed: {taken}")
    elif result.chosen:
        console.print(
            f"the whole model: {human_seconds(outcome['untuned'])} -> "
            f"{human_seconds(outcome['tuned'])}, {interval_text(outcome['low'], outcome['high'])} "
            f"at 95 %, with {len(result.chosen)} choice(s){by}"
        )
    else:
        why = outcome["problem"] or interval_text(outcome["low"], outcome["high"])
        console.print(
            f"the whole model is not faster by 1 % ({why}{by}): the untuned binary is kept"
        )
    for path in result.files:
        console.print(f"{path}  {human_bytes(path.stat().st_size)}")
