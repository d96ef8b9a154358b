"""Small models whose time once fell off a cliff, side by side with ONNX Runtime in one process.

    python -m benchmarks.cliffs --rounds 9 --only forest,conv1d --json out.json

Outputs are compared first. In every round both engines run for about as long, one after the other;
with one thread what counts is processor time, else the clock's. A ratio is Tensmith's time over
ONNX Runtime's, the median over the rounds (and that of the two least times). What is above `LIMIT`
is marked.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from . import (  # noqa: F401  (they add their cases)
    cliff_bytes,
    cliff_movement,
    cliff_operators,
    cliff_pictures,
    cliff_planes,
    cliff_points,
    cliff_transposes,
)
from .cliff_cases import CASES, CliffCase

LIMIT = 1.1
ROUND_SECONDS = 0.03
TOLERANCE = 1e-4  # of the largest magnitude of an output
log = Console(stderr=True)


@dataclass(frozen=True)
class Comparison:
    """Seconds of a call by engine (the least of all rounds), ratios, seconds of compilation."""

    name: str
    own: float
    peer: float
    ratio: float
    least_ratio: float
    compile_seconds: float
    difference: float


def per_call(call: Callable[[], Any], times: int, clock: Callable[[], float]) -> float:
    """Seconds of one call by a clock, in a loop of `times`."""
    begin = clock()
    for _ in range(times):
        call()
    return (clock() - begin) / times


def compare(case: CliffCase, rounds: int, threads: int, folder: Path) -> Comparison:
    """Compile the case, compare outputs, and time both engines in turns.

    Raises ValueError when the outputs differ by more than TOLERANCE.
    """
    import onnxruntime as ort

    import tensmith

    proto, inputs = case.build()
    path = folder / f"{case.name}.onnx"
    path.write_bytes(proto.SerializeToString())
    begin = time.perf_counter()
    artifact = tensmith.compile(path, threads=threads)
    compile_seconds = time.perf_counter() - begin
    library = path.with_suffix(".so")
    artifact.save(library)
    module = tensmith.load(library, threads=threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    want = dict(zip(names, session.run(None, inputs), strict=True))
    difference = max(_differences(module(inputs), want))
    if difference > TOLERANCE:
        raise ValueError(f"{case.name}: outputs differ by {difference:.1e} of their magnitude")
    calls = (lambda: module(inputs), lambda: session.run(None, inputs))
    clock = time.process_time if threads == 1 else time.perf_counter
    times = [max(1, int(ROUND_SECONDS / per_call(call, 2, clock))) for call in calls]
    pairs = [
        tuple(per_call(call, n, clock) for call, n in zip(calls, times, strict=True))
        for _ in range(rounds)
    ]
    own, peer = (min(seconds) for seconds in zip(*pairs, strict=True))
    ratio = median(a / b for a, b in pairs)
    return Comparison(case.name, own, peer, ratio, own / peer, compile_seconds, difference)


def _differences(own: Any, peer: dict[str, Any]) -> Iterator[float]:
    """Of each output, the largest difference over the largest magnitude."""
    for name, want in peer.items():
        a, b = np.asarray(own[name], np.float64), np.asarray(want, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"output '{name}' has the shape {a.shape}, not {b.shape}")
        if a.size:
            yield float(np.abs(a - b).max() / max(1e-30, float(np.abs(b).max())))
    yield 0.0


def main(
    only: Annotated[str, typer.Option(help="Cases whose name holds one of these.")] = "",
    rounds: Annotated[int, typer.Option(help="Rounds of each case.")] = 9,
    threads: Annotated[int, typer.Option(help="Threads of both engines.")] = 1,
    output: Annotated[Path | None, typer.Option("--json", help="File for the results.")] = None,
) -> None:
    """Compare every case; exit with 1 when one is above the limit or wrong."""
    wanted = [part for part in only.split(",") if part]
    found: list[Comparison] = []
    failed = False
    table = Table(
        "case", "Tensmith µs", "ONNX Runtime µs", "ratio", "of the least", "compiled in s"
    )
    for case in CASES:
        if wanted and not any(part in case.name for part in wanted):
            continue
        with tempfile.TemporaryDirectory() as folder:
            try:
                one = compare(case, rounds, threads, Path(folder))
            except Exception as error:
                log.print(f"{case.name}: {error}")
                failed = True
                continue
        found.append(one)
        above = min(one.ratio, one.least_ratio) > LIMIT
        failed = failed or above
        numbers = (one.own * 1e6, one.peer * 1e6, one.ratio, one.least_ratio, one.compile_seconds)
        table.add_row(one.name + (" *" if above else ""), *(f"{number:.2f}" for number in numbers))
        log.print(f"{one.name}: {one.ratio:.2f} ({one.least_ratio:.2f})")
    Console().print(table)
    if output:
        output.write_text(json.dumps([asdict(one) for one in found], indent=1))
    raise typer.Exit(int(failed))


if __name__ == "__main__":
    typer.run(main)
