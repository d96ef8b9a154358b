"""`tensmith bench`: how fast a model runs, alone or side by side with peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..options import (
    USUAL,
    Atol,
    Cost,
    Inputs,
    Json,
    Rtol,
    Runnable,
    Verbose,
    with_compilation,
)

if TYPE_CHECKING:
    from ...compiler.economics.prices import MachineOffer
    from ...compiler.kernel.cost.machine import Peak
    from ..bench import Timing
    from ..bench_setup import Subject
    from ..call_cost import CallCost
    from ..console import Console
    from ..request import CompileRequest


Peers = Annotated[str, typer.Option("--vs", metavar="ENGINES", help="onnxruntime,openvino")]
Warmup = Annotated[int, typer.Option("--warmup", min=0, help="Untimed calls.")]
Iterations = Annotated[int, typer.Option("--iterations", min=1, help="Timed calls, at least.")]
Duration = Annotated[
    float, typer.Option("--duration", min=0.0, help="Seconds of timed calls, at least.")
]


@with_compilation(*USUAL)
def command(
    model: Runnable,
    vs: Peers = "",
    warmup: Warmup = 5,
    iterations: Iterations = 20,
    duration: Duration = 2.0,
    input: Inputs = None,
    *,
    request: CompileRequest,
    rtol: Rtol = None,
    atol: Atol = None,
    cost: Cost = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure latency and throughput; peers run in turns on the same inputs, and must agree."""
    from ..bench import BenchOptions, bench, flops_of, measure_peak
    from ..bench_setup import prepare
    from ..console import Console

    console = Console(json=json, verbose=verbose)
    offers = _offers(cost)
    peers = [name.strip() for name in vs.split(",") if name.strip()]
    with console.progress("compiling") as progress:
        request = replace(request, progress=progress)
        subject = prepare(model, peers, request, input or [])
        for note in subject.notes:
            console.log(f"note: {note}")
        progress("measuring the machine's peak")
        peak = measure_peak(request.threads)
        timings = bench(
            subject.specs,
            subject.inputs,
            BenchOptions(warmup, iterations, duration),
            flops=flops_of(subject.manifest, subject.sizes),
            peak=peak.flops_per_second,
            tolerance=subject.tolerance(rtol, atol),
            progress=progress,
        )
    costs = [_costs(timing, request.threads, offers) for timing in timings]
    _show(console, subject, timings, peak, request.threads, costs)


def _offers(cost: Path | None) -> tuple[MachineOffer, ...]:
    from ...compiler.economics.prices import read_prices

    return () if cost is None else read_prices(cost)


def _costs(timing: Timing, threads: int, offers: Sequence[MachineOffer]) -> list[CallCost]:
    """Of a million calls on each offer."""
    from datetime import date

    from ...compiler.economics.estimate import Estimate, Provenance
    from ...compiler.host import processor_name
    from ..call_cost import call_costs

    if timing.error:
        return []
    seconds = Estimate(
        timing.median, "s", Provenance.MEASURED, f"median of {timing.calls} calls",
        machine=processor_name(), date=date.today().isoformat(),
    )  # fmt: skip
    return call_costs(seconds, threads, offers)


def _show(
    console: Console,
    subject: Subject,
    timings: list[Timing],
    peak: Peak,
    threads: int,
    costs: list[list[CallCost]],
) -> None:
    from ..call_cost import cost_text

    shapes = {name: list(array.shape) for name, array in subject.inputs.items()}
    console.result(
        {
            "engines": [
                {**timing.to_json(), "costs": [one.to_json() for one in own]}
                for timing, own in zip(timings, costs, strict=True)
            ],
            "peak_flops_per_second": peak.flops_per_second,
            "peak_label": peak.label,
            "threads": threads,
            "inputs": shapes,
        }
    )
    console.print(f"inputs {', '.join(f'{k}{v}' for k, v in shapes.items())}; threads {threads}")
    ours = timings[0].median
    columns = ["engine", "median", "p90", "p99", "CPU", "runs/s", "GFLOP/s", "of peak", "calls"]
    if len(timings) > 1:
        columns += ["speedup", "max |a-b|"]
    rows = [_row(timing, ours, len(timings) > 1) for timing in timings if not timing.error]
    console.table("Time per call", columns, rows)
    if any(costs):
        names = ["engine", *(one.offer.label for one in costs[0])]
        cells = [
            [timing.engine, *map(cost_text, own)]
            for timing, own in zip(timings, costs, strict=True)
            if own
        ]
        console.table("A million calls, saturated", names, cells)
    for timing in timings:
        if timing.error:
            console.print(f"{timing.engine} was not measured: {timing.error}")
    console.print(f"peak {peak.flops_per_second / 1e9:.0f} GFLOP/s ({peak.label})")


def _row(timing: Timing, ours: float, compared: bool) -> list[Any]:
    from ..console import human_seconds

    rate, share = timing.flops_per_second, timing.peak_share
    cells: list[Any] = [
        f"{timing.engine} {timing.version}",
        human_seconds(timing.median),
        human_seconds(timing.p90),
        human_seconds(timing.p99),
        human_seconds(timing.cpu_seconds),
        f"{timing.throughput:.4g}",
        "" if rate is None else f"{rate / 1e9:.1f}",
        "" if share is None else f"{share:.0%}",
        timing.calls,
    ]
    if compared:
        is_peer = timing.max_abs is not None
        cells.append(f"{timing.median / ours:.2f}x" if is_peer else "")
        cells.append(f"{timing.max_abs:.2g}" if is_peer else "")
    return cells
