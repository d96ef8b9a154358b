"""`tensmith plan`: the cheapest binary and machines that keep a p99 and an accuracy at a load."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..options import (
    Calibration,
    Evaluation,
    Fresh,
    Json,
    MaxAccuracyDrop,
    Metric,
    Model,
    Shapes,
    Verbose,
)

if TYPE_CHECKING:
    from ..console import Console
    from ..planning.planning import PlanResult

Output = Annotated[
    Path | None,
    typer.Option(
        "-o", "--output", show_default=False,
        help="Folder for the results and for what the next run goes on with (default: MODEL's "
        "name, -plan).",
    ),
]  # fmt: skip
LatencyP99 = Annotated[
    str,
    typer.Option(
        "--latency-p99", metavar="TIME", help="Of wait and run, that 99 of 100 are within: 50ms."
    ),
]
OfferedRate = Annotated[
    str | None,
    typer.Option("--load", metavar="RATE", help="Inferences that come: 200/s.", show_default=False),
]
Trace = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="CSV",
        help="Rates over time: columns seconds, rate; or single requests: columns seconds, key.",
        show_default=False,
    ),
]
Prices = Annotated[
    Path | None,
    typer.Option(
        "--prices", metavar="CSV", show_default=False,
        help="Machines that can be had (docs/plan.md), or SkyPilot's catalogue. Default: this "
        "machine, in hours of its cores.",
    ),
]  # fmt: skip
Carbon = Annotated[
    Path | None,
    typer.Option(
        "--carbon", metavar="CSV", help="Columns region, grams_per_kwh.", show_default=False
    ),
]
Candidates = Annotated[
    list[Path] | None,
    typer.Option(
        "--candidate", metavar="ONNX", show_default=False,
        help="Another model of the same inputs and outputs. Repeatable.",
    ),
]  # fmt: skip
Measured = Annotated[
    list[Path] | None,
    typer.Option(
        "--measured", metavar="JSON", show_default=False,
        help="What `PROGRAM --measure --json` printed on another machine. Repeatable.",
    ),
]  # fmt: skip
Targets = Annotated[str, typer.Option("--targets", help="See `tensmith targets`.")]
Precisions = Annotated[str, typer.Option("--precisions", help="fp32,bf16,fp16,int8, ...")]
Batches = Annotated[str, typer.Option("--batch", help="Rows that a run takes, at most.")]
ThreadCounts = Annotated[str, typer.Option("--threads", help="Threads of a run.")]
Objective = Annotated[
    str, typer.Option("--objective", help="What is small: cost, energy, latency or carbon.")
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget", metavar="TIME",
        help="Of all runs that go on with each other; then nothing more is compiled: 10m.",
        show_default=False,
    ),
]  # fmt: skip


def command(
    model: Model,
    latency_p99: LatencyP99,
    output: Output = None,
    load: OfferedRate = None,
    trace: Trace = None,
    eval: Evaluation = None,
    metric: Metric = None,
    max_accuracy_drop: MaxAccuracyDrop = None,
    calibration: Calibration = None,
    candidate: Candidates = None,
    targets: Targets = "native",
    precisions: Precisions = "fp32,bf16,int8",
    batch: Batches = "1",
    threads: ThreadCounts = "1",
    prices: Prices = None,
    carbon: Carbon = None,
    measured: Measured = None,
    objective: Objective = "cost",
    time_budget: TimeBudget = None,
    all: Annotated[bool, typer.Option("--all", help="List what is not on the frontier, too.")] = (
        False
    ),
    shape: Shapes = None,
    fresh: Fresh = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Find the cheapest binary and machines for a load, within a p99 and an accuracy.

    Compiles, judges and measures what could do; writes plan.json, report.html, reproduce.sh and the
    chosen binary. The same command goes on where it was, whatever ended it (docs/plan.md). Exit
    code 5 where nothing keeps the promise: it names the nearest miss.
    """
    from .. import api
    from ..console import Console
    from ..planning.plan_api import error_of_plan, plan_request, planned
    from ..planning.plan_tools import PlanTools
    from ..request import USUAL_DROP
    from ..shapes import parse_shapes

    console = Console(json=json, verbose=verbose)
    with console.progress("planning") as progress:
        request = plan_request(
            model, output=output or model.with_name(f"{model.stem}-plan"), load=load, trace=trace,
            latency_p99=latency_p99, eval=eval, metric=metric, calibration=calibration,
            max_accuracy_drop=max_accuracy_drop or USUAL_DROP, candidates=candidate or (),
            targets=_words(targets), precisions=_words(precisions),
            batches=_numbers("--batch", batch), threads=_numbers("--threads", threads),
            prices=prices, carbon=carbon, measured=measured or (), objective=objective,
            time_budget=time_budget, shapes=parse_shapes(shape or []), fresh=fresh,
            progress=progress,
        )  # fmt: skip
        result, files = planned(request, PlanTools(api.compile_request))
    _show(console, result, files, all)
    if (error := error_of_plan(result)) is not None:
        console.exit(error)


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _numbers(option: str, text: str) -> tuple[int, ...]:
    from ...compiler.errors import UsageError

    try:
        return tuple(int(word) for word in _words(text))
    except ValueError:
        raise UsageError(f"{option} {text}", remedy="give numbers: 1,4") from None


def _show(console: Console, result: PlanResult, files: list[Path], everything: bool) -> None:
    from ..planning.plan_files import plan_json
    from ..planning.plan_table import (
        frontier_rows,
        load_test_text,
        machines_note,
        modelled_rows,
        rest_rows,
        verdict,
    )

    for note in (*result.notes, machines_note(result)):
        if note:
            console.log(f"note: {note}")
    console.result(plan_json(result))
    head, rows = frontier_rows(result)
    if rows:
        console.table("Frontier", head, rows, left=3)
    if result.modelled:
        title = "Modelled for targets that do not run here, and not ranked"
        console.table(title, *modelled_rows(result.modelled), left=2)
    if everything:
        head, rows = rest_rows(result)
        console.table("Not on the frontier", head, rows, left=3)
        console.table("Not tried", ("what", "why"), [(p.name, p.reason) for p in result.pruned], 2)
    elif hidden := len(result.points) - result.frontier + len(result.pruned):
        console.print(f"{hidden} more that are worse, break the promise or were not tried: --all")
    console.print(verdict(result))
    if text := load_test_text(result):
        console.print(text)
    if result.cache:
        console.print(result.cache.text())
    for path in files:
        console.print(str(path))
