"""Binaries that were tuned against ones that were not.

    python -m benchmarks.tuned --models resnet50,mobilenet_v2 --records tuned.db --budget 5m
    python -m benchmarks.tuned --models resnet50,mobilenet_v2 --records tuned.db --again

Every model is tuned (a session that is finished goes on where it was: it measures nothing), then
both binaries are timed in fresh processes that take turns, apart from the session's own timing.
`--again` leaves out the tuning: whether a gain is there at another hour, too. Outputs are compared
bit for bit.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

import tensmith
from tensmith.compiler.tuning.statistics import interval

from .cases import Case, find_cases
from .provenance import machine, revision
from .stats import geometric_mean

ROUNDS, VISIT_SECONDS = 12, 0.3
NOT_SLOWER = 1.01  # lower end of the interval of a ratio from which on a binary is slower
log = Console(stderr=True)


@dataclass(frozen=True)
class TunedPair:
    """One model. untuned, tuned: seconds of a run. ratio: of the tuned one's to the untuned one's,
    with its interval at 95 %; noise: how far the untuned one was from itself, the median over
    rounds. choices: that the tuned one has beside the usual ones. claimed: the ratio that its
    session measured; None: no binary was faster. tuning: seconds that tuning took now."""

    model: str
    untuned: float
    tuned: float
    ratio: float
    low: float
    high: float
    noise: float
    choices: int
    claimed: float | None
    same_bits: bool
    tuning: float


def visit(library: Path, inputs: Path) -> tuple[float, str]:
    """Seconds of a call and a digest of the outputs, in a process of its own, of a copy of its own:
    where the pages of a file lie in memory moves times by percents (`driver.tuning.pairs`)."""
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        own = shutil.copy(library, folder)
        command = [sys.executable, "-m", "benchmarks.visit", own, str(inputs), str(VISIT_SECONDS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    seconds, bits = done.stdout.split()
    return float(seconds), bits


def compared(case: Case, artifacts: dict[str, Any], folder: Path, tuning: float) -> TunedPair:
    """Time both binaries in turns."""
    libraries = {}
    for name, artifact in artifacts.items():
        libraries[name] = folder / f"{name}.so"
        artifact.save(libraries[name])
    ratios, noise, bits = [], [], set()
    seconds: dict[str, list[float]] = {name: [] for name in libraries}
    for number in range(ROUNDS):
        order = ["untuned", "tuned", "tuned", "untuned"]
        found: dict[str, list[float]] = {name: [] for name in libraries}
        for name in order if number % 2 else order[::-1]:
            once, own = visit(libraries[name], case.inputs[0])
            found[name].append(once)
            bits.add(own)
        ratios.append(sum(found["tuned"]) / sum(found["untuned"]))
        noise.append(abs(found["untuned"][0] / found["untuned"][1] - 1))
        for name, times in found.items():
            seconds[name] += times
    low, high = interval(ratios)
    told = artifacts["tuned"].manifest["tuning"]
    choices = len(told["used"]) + len(told["graph"])
    times = (median(seconds["untuned"]), median(seconds["tuned"]), median(ratios), low, high)
    return TunedPair(
        case.name, *times, median(noise), choices, told["ratio"], len(bits) == 1, tuning
    )


def measured(case: Case, records: Path, budget: str, again: bool, target: str) -> TunedPair:
    """Tune a model, unless that was done, and compare."""
    begun = time.monotonic()
    if again:
        tuned = tensmith.compile(case.model, records=records, target=target)
    else:
        tuned = tensmith.tune(
            case.model, records=records, time_budget=budget, target=target
        ).artifact
    tuning = time.monotonic() - begun
    untuned = tensmith.compile(case.model, target=target)
    with tempfile.TemporaryDirectory(prefix="tensmith-tuned-") as folder:
        both = {"untuned": untuned, "tuned": tuned}
        return compared(case, both, Path(folder), tuning)


def table(rows: list[TunedPair]) -> Table:
    """For people."""
    found = Table(box=None, pad_edge=False)
    for name in ("model", "untuned ms", "tuned ms", "ratio", "95 %", "noise", "choices", "bits"):
        found.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        found.add_row(
            row.model, f"{row.untuned * 1e3:.3f}", f"{row.tuned * 1e3:.3f}", f"{row.ratio:.3f}",
            f"{row.low:.3f} .. {row.high:.3f}", f"{row.noise:.1%}", str(row.choices),
            "same" if row.same_bits else "other",
        )  # fmt: skip
    return found


def main(
    models: Annotated[str, typer.Option(help="Names of the zoo, folders, files; commas between.")],
    records: Annotated[Path, typer.Option(help="Records file of the sessions.")],
    budget: Annotated[str, typer.Option(help="Of each session.")] = "5m",
    again: Annotated[bool, typer.Option("--again", help="Tune nothing.")] = False,
    target: Annotated[str, typer.Option(help="Target.")] = "native",
    output: Annotated[
        Path | None, typer.Option("--json", help="Results, added to the file.")
    ] = None,
) -> None:
    """Tune models, and time what comes of it."""
    rows: list[TunedPair] = []
    before = json.loads(output.read_text()) if output is not None and output.exists() else []
    told_of = {"machine": machine(), "revision": revision(), "target": target, "again": again}
    with tempfile.TemporaryDirectory(prefix="tensmith-tuned-") as scratch:
        for case in find_cases(models.split(","), Path(scratch)):
            log.print(f"{case.name} ...")
            rows.append(measured(case, records, budget, again, target))
            log.print(table(rows[-1:]))
            if output is not None:
                own = {**told_of, "results": [asdict(row) for row in rows]}
                output.write_text(json.dumps([*before, own], indent=1), encoding="utf-8")
    Console().print(table(rows))
    slower = [row.model for row in rows if row.low > NOT_SLOWER]
    whole = geometric_mean([1 / row.ratio for row in rows])
    print(f"{len(rows)} models, {whole:.3f}x; slower: {', '.join(slower) or 'none'}")
    sys.exit(1 if slower or not all(row.same_bits for row in rows) else 0)


if __name__ == "__main__":
    typer.run(main)
