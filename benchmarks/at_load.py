"""What a million calls cost at a load: engines and layouts through one queue model.

    python -m benchmarks.at_load --models resnet50,bert-base --price 0.09

A layout is so many instances of so many threads on this machine's cores, with threads that spin or
sleep between calls. Service times are taken with all instances of a layout at work, in rounds in
which layouts take turns; the rate at which the p99 (from coming to being done, calls come by
chance) keeps a limit follows by simulation (`compiler/economics/serving.py`), as in `tensmith
plan`. Then calls come for real, at one rate for all: processor time of a call with what threads
burn between calls. Outputs are compared with ONNX Runtime's first.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from tensmith.compiler.economics.estimate import Estimate, Provenance, given
from tensmith.compiler.economics.loads import OfferedLoad
from tensmith.compiler.economics.serving import ServiceCurve, ServingLayout, serving_cost

from .cases import Case, find_cases
from .process import Worker, one_cpu_per_core
from .provenance import machine, revision
from .run import REFERENCE, TOLERANCE, compare, outputs

ENGINES = ("tensmith", "onnxruntime")
PARKED = "-parked"
ROUNDS, ROUND_SECONDS = 5, 1.0
LIMIT_TIMES = 4.0  # the p99, of ONNX Runtime's median call with an instance on each core
BUSY = 0.5  # share of what ONNX Runtime's best layout does at most, at which calls come for real
SEED = 7
log = Console(stderr=True, width=140)


@dataclass(frozen=True)
class AtLoad:
    """An engine in a layout. seconds, processor: of a call, the median and processor time, with all
    instances at work. capacity: calls per second of a machine within the limit. saturated,
    at_load: price of a million calls. idle_processor: of a call, at `rate`; p99: measured then, by
    instances that each have a queue of their own."""

    model: str
    engine: str
    instances: int
    threads: int
    seconds: float
    processor: float
    capacity: float
    saturated: float
    at_load: float | None
    rate: float
    idle_processor: float
    p99: float


class Deployment:
    """An engine in a layout, loaded."""

    def __init__(self, engine: str, layout: ServingLayout, stack: ExitStack) -> None:
        self.engine, self.layout = engine, layout
        cpus = one_cpu_per_core(layout.cores)
        self.workers = [
            stack.enter_context(Worker(engine, cpus[n : n + layout.threads]))
            for n in range(0, layout.cores, layout.threads)
        ]
        self.seconds: list[float] = []
        self.processor: list[float] = []

    def load(self, case: Case, expected: list[list[np.ndarray]], scratch: Path) -> None:
        """Load a case in all instances, and compare. Raises EngineError where results differ."""
        for worker in self.workers:
            worker.request(
                "load", model=str(case.model.resolve()), inputs=str(case.inputs[0]),
                per_step=case.per_step[0],
            )  # fmt: skip
            worker.stop_sampling()
            compare(worker, case, expected, scratch, TOLERANCE)

    def together(self, ask: Callable[[Worker], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The answers of all instances, asked at once."""
        with ThreadPoolExecutor(len(self.workers)) as pool:
            yield from pool.map(ask, self.workers)

    def time(self, seconds: float) -> None:
        """A round: all instances work for so long."""
        [worker, *_] = self.workers
        one = median(worker.request("time", iterations=3)["seconds"])
        count = max(3, round(seconds / one))
        for answer in self.together(lambda own: own.request("time", iterations=count)):
            self.seconds += answer["seconds"]
            self.processor.append(answer["processor_seconds"] / count)

    def serve(self, rate: float, seconds: float) -> tuple[float, float]:
        """Processor time of a call, and the p99, with so many calls a second, by chance."""
        share = rate / len(self.workers)
        rng = np.random.default_rng(SEED)
        gaps = {
            id(worker): rng.exponential(1 / share, max(20, round(share * seconds))).tolist()
            for worker in self.workers
        }
        answers = list(self.together(lambda own: own.request("arrive", gaps=gaps[id(own)])))
        latencies = [one for answer in answers for one in answer["seconds"]]
        processor = sum(answer["processor_seconds"] for answer in answers)
        return processor / len(latencies), float(np.percentile(latencies, 99))


def deployments(cores: int) -> list[tuple[str, ServingLayout]]:
    """Engines and layouts: an instance on each core; one on all, with threads that spin or not."""
    spread = [(engine, ServingLayout(cores, 1)) for engine in ENGINES]
    if cores == 1:
        return spread
    wide = ServingLayout(1, cores)
    return [*spread, *((engine + idle, wide) for engine in ENGINES for idle in ("", PARKED))]


def expected_of(case: Case, scratch: Path) -> list[list[np.ndarray]]:
    """ONNX Runtime's outputs for all input sets."""
    with Worker(REFERENCE, one_cpu_per_core(1)) as worker:
        worker.request(
            "load", model=str(case.model.resolve()), inputs=str(case.inputs[0]),
            per_step=case.per_step[0],
        )  # fmt: skip
        return [outputs(worker, case, index, scratch) for index in range(len(case.inputs))]


def measured(case: Case, cores: int, price: float, load: float, seconds: float) -> list[AtLoad]:
    """All deployments of a case."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="at-load-")))
        expected = expected_of(case, scratch)
        found = [Deployment(engine, layout, stack) for engine, layout in deployments(cores)]
        for own in found:
            own.load(case, expected, scratch)
        for turn in range(ROUNDS):
            for own in (*found[turn:], *found[:turn]):
                own.time(ROUND_SECONDS)
        [spread] = [one for one in found if (one.engine, one.layout.threads) == (REFERENCE, 1)]
        limit = LIMIT_TIMES * median(spread.seconds)
        curves = [ServiceCurve(np.array(own.seconds), own.layout, limit) for own in found]
        both = list(zip(found, curves, strict=True))
        most = max(curve.saturated for own, curve in both if own.engine.startswith(REFERENCE))
        rate = BUSY * most
        rows = []
        for own, curve in both:
            processor, p99 = own.serve(rate, seconds)
            mean = Estimate(curve.mean, "s", Provenance.MEASURED, "wall time", machine="here")
            hour = given(price, "USD/h", "--price")
            cost = serving_cost(curve, mean, hour, OfferedLoad((load,), "--load"))
            rows.append(
                AtLoad(
                    case.name, own.engine, own.layout.instances, own.layout.threads,
                    median(own.seconds), median(own.processor), curve.capacity(),
                    price / curve.saturated / 3600 * 1e6, cost.at_load.value if cost else None,
                    rate, processor, p99,
                )
            )  # fmt: skip
        return rows


def table(rows: list[AtLoad], load: float) -> Table:
    """One line for each deployment."""
    found = Table(box=None)
    headings = (
        "instances", "threads", "ms", "cpu ms", "calls/s in p99", "$/1M full",
        f"$/1M at {load:g}/s", "calls/s", "cpu ms then", "p99 ms then",
    )  # fmt: skip
    for heading in (rows[0].model, *headings):
        found.add_column(heading, justify="right")
    for row in rows:
        cost = "not in p99" if row.at_load is None else f"{row.at_load:.3f}"
        found.add_row(
            row.engine, str(row.instances), str(row.threads), f"{row.seconds * 1e3:.3f}",
            f"{row.processor * 1e3:.3f}", f"{row.capacity:.1f}", f"{row.saturated:.3f}", cost,
            f"{row.rate:.0f}", f"{row.idle_processor * 1e3:.3f}", f"{row.p99 * 1e3:.2f}",
        )  # fmt: skip
    return found


def main(
    models: Annotated[str, typer.Option(help="Names of the zoo, folders, files; commas between.")],
    price: Annotated[float, typer.Option(help="Of an hour of this machine.")] = 0.1,
    load: Annotated[float, typer.Option(help="Calls per second of all machines.")] = 10000.0,
    cores: Annotated[int, typer.Option(help="Of this machine.")] = 2,
    seconds: Annotated[float, typer.Option(help="For which calls come for real.")] = 10.0,
    output: Annotated[Path | None, typer.Option("--json", help="Results.")] = None,
) -> None:
    """Measure engines in layouts, and say what they cost at a load."""
    rows: list[AtLoad] = []
    with tempfile.TemporaryDirectory(prefix="at-load-") as scratch:
        for case in find_cases(models.split(","), Path(scratch)):
            own = measured(case, cores, price, load, seconds)
            rows += own
            log.print(table(own, load))
    if output is not None:
        told = {"machine": machine(), "revision": revision(), "price": price, "load": load}
        output.write_text(json.dumps({**told, "results": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    typer.run(main)
