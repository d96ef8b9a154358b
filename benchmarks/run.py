"""Measure Tensmith and other engines side by side.

    python -m benchmarks.run --models resnet18,bert-base --threads 1 --json out.json
    python -m benchmarks.run --models path/to/model.onnx --engines tensmith,onnxruntime
    python -m benchmarks.run --models resnet18 --precision fp32,bf16,int8   # side by side

Each engine runs in a process of its own, pinned to the same cores, with the same number of threads,
in f32 unless `--precision` says otherwise. Outputs are compared with ONNX Runtime's before anything
is timed; an engine that differs is not timed. Rounds are interleaved: in each, every engine runs
the same number of iterations.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from .cases import Case, exported_zoo, find_cases
from .engines import ENGINES, in_precision
from .process import EngineError, EngineSkipped, Worker, one_cpu_per_core
from .provenance import machine, revision
from .stats import difference, median_of_rounds, percentile, speed_ratio
from .table import rich_tables, summary

SCHEMA = 1
REFERENCE = "onnxruntime"
DEFAULT_ENGINES = "tensmith,onnxruntime,openvino"
TOLERANCE = 1e-4  # of the peak of an output
LOWER_TOLERANCE = {"bf16": 0.1, "int8": 0.5}  # a wrong result is further off; how far is told
MAX_ITERATIONS = 2000  # of one engine in one round
log = Console(stderr=True)


def outputs(worker: Worker, case: Case, index: int, scratch: Path) -> list[np.ndarray]:
    """Outputs for one input set of the case, in model order."""
    path = scratch / f"{worker.engine}.npz"
    worker.request(
        "outputs", inputs=str(case.inputs[index]), per_step=case.per_step[index], to=str(path)
    )
    with np.load(path) as arrays:
        result = [arrays[name] for name in arrays.files]
    path.unlink()
    return result


def compare(
    worker: Worker, case: Case, expected: list[list[np.ndarray]], scratch: Path, tolerance: float
) -> float:
    """Largest difference over all input sets. Raises EngineError above the tolerance."""
    worst = 0.0
    for index, reference in enumerate(expected):
        found = difference(outputs(worker, case, index, scratch), reference)
        if found.relative > tolerance:
            where = f"{case.inputs[index].name}, {found.reason}"
            raise EngineError(f"differs from {REFERENCE} by {found.relative:.2g} of peak ({where})")
        worst = max(worst, found.relative)
    return worst


def start(
    case: Case,
    engines: list[str],
    stack: ExitStack,
    cpus: list[int],
    tolerance: float,
    timeout: float,
) -> tuple[dict[str, Worker], dict[str, dict[str, Any]]]:
    """Load the case in every engine and compare: workers that are ready, and a record for each."""
    scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    ready: dict[str, Worker] = {}
    records: dict[str, dict[str, Any]] = {}
    expected: list[list[np.ndarray]] = []
    for engine in [REFERENCE, *(e for e in engines if e != REFERENCE)]:
        worker = stack.enter_context(Worker(engine, cpus, timeout))
        try:
            record = worker.request(
                "load",
                model=str(case.model.resolve()),
                inputs=str(case.inputs[0]),
                per_step=case.per_step[0],
            )
            record["peak_rss"] = worker.peak_rss
            if engine == REFERENCE:
                sets = range(len(case.inputs))
                expected = [outputs(worker, case, index, scratch) for index in sets]
            allowed = LOWER_TOLERANCE.get(ENGINES[engine].precision, tolerance)
            record["difference"] = compare(worker, case, expected, scratch, allowed)
        except EngineSkipped as reason:
            record = {"skipped": str(reason)}
        except EngineError as error:
            record = {"error": str(error)}
        worker.stop_sampling()
        if engine in engines:
            records[engine] = record
        if engine == REFERENCE and not expected:
            raise EngineError(f"{case.name}: no reference: {record}")
        if "difference" in record and engine in engines:
            ready[engine] = worker
        else:
            worker.close()
    return ready, records


def time_rounds(
    ready: dict[str, Worker], rounds: int, round_seconds: float
) -> tuple[int, dict[str, list[list[float]]]]:
    """Iterations in a round, and seconds by engine, round and iteration.

    The number of iterations is the same for all engines: the slowest takes about `round_seconds`.
    """
    slowest = max(
        median(worker.request("time", iterations=3)["seconds"]) for worker in ready.values()
    )
    iterations = min(MAX_ITERATIONS, max(1, round(round_seconds / slowest)))
    series: dict[str, list[list[float]]] = {engine: [] for engine in ready}
    order = list(ready)
    for _ in range(rounds):
        for engine in order:
            answer = ready[engine].request("time", iterations=iterations)
            series[engine].append(answer["seconds"])
        order = order[1:] + order[:1]  # none always follows the same
    return iterations, series


def measure(
    case: Case,
    engines: list[str],
    cpus: list[int],
    rounds: int,
    round_seconds: float,
    tolerance: float = TOLERANCE,
    timeout: float = 600.0,
) -> dict[str, Any]:
    """One model on all engines: the record that `table.py` reads."""
    with ExitStack() as stack:
        ready, records = start(case, engines, stack, cpus, tolerance, timeout)
        iterations, series = time_rounds(ready, rounds, round_seconds) if ready else (0, {})
    for engine, seconds in series.items():
        flat = [value for one in seconds for value in one]
        records[engine] |= {
            "median": median_of_rounds(seconds),
            "p90": percentile(flat, 0.9),
            "minimum": min(flat),
            "speed": {
                peer: speed_ratio(seconds, theirs)
                for peer, theirs in series.items()
                if peer != engine
            },
        }
    return {
        "name": case.name,
        "file_bytes": case.model.stat().st_size,
        "iterations": iterations,
        "engines": {engine: records[engine] for engine in engines},
    }


def split(value: str) -> list[str]:
    return [item for item in value.split(",") if item]


def main(
    models: Annotated[
        str, typer.Option(help="zoo names, folders, .onnx files, with commas; default: the zoo")
    ] = "",
    engines: Annotated[str, typer.Option(help="of " + ", ".join(ENGINES))] = DEFAULT_ENGINES,
    precision: Annotated[
        str, typer.Option(help="fp32, bf16, int8, with commas: of the engines that have it")
    ] = "fp32",
    threads: Annotated[int, typer.Option(min=1, help="threads of every engine")] = 1,
    rounds: Annotated[int, typer.Option(min=1)] = 10,
    round_seconds: Annotated[float, typer.Option(help="time of the slowest in a round")] = 0.5,
    tolerance: Annotated[float, typer.Option(help="max|a-b| / max|b|")] = TOLERANCE,
    timeout: Annotated[float, typer.Option(help="seconds that one step may take")] = 600.0,
    json_path: Annotated[
        Path | None, typer.Option("--json", help="write the results to this file")
    ] = None,
) -> None:
    """Compare outputs, then measure Tensmith and its peers in interleaved rounds."""
    named = split(engines)
    if unknown := [engine for engine in named if engine not in ENGINES]:
        raise typer.BadParameter(f"unknown engines {unknown}; known: {list(ENGINES)}")
    kinds = split(precision)
    if unknown := [kind for kind in kinds if kind not in ("fp32", *LOWER_TOLERANCE)]:
        raise typer.BadParameter(f"unknown precisions {unknown}")
    pairs = (in_precision(engine, kind) for kind in kinds for engine in named)
    chosen = [engine for engine in pairs if engine]
    cpus = one_cpu_per_core(threads)
    results: dict[str, Any] = {
        "schema": SCHEMA,
        "machine": machine(),
        "revision": revision(),
        "command": " ".join(["python -m benchmarks.run", *sys.argv[1:]]),
        "threads": threads,
        "rounds": rounds,
        "tolerance": tolerance,
        "models": [],
    }
    with tempfile.TemporaryDirectory(prefix="bench-inputs-") as scratch:
        try:
            cases = find_cases(split(models) or exported_zoo(), Path(scratch))
        except FileNotFoundError as error:
            raise typer.BadParameter(str(error)) from error
        for case in cases:
            log.print(f"[dim]{case.name}[/dim]")
            try:
                row = measure(case, chosen, cpus, rounds, round_seconds, tolerance, timeout)
            except EngineError as error:
                log.print(f"[red]{error}[/red]")
                continue
            results["models"].append(row)
            if json_path:
                json_path.write_text(json.dumps(results, indent=1) + "\n")
    results["summary"] = summary(results["models"])
    if json_path:
        json_path.write_text(json.dumps(results, indent=1) + "\n")
    for table in rich_tables(results):
        Console().print(table)


if __name__ == "__main__":
    typer.run(main)
