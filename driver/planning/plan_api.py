"""The Python interface to plans: `tensmith.plan`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

from ...compiler.economics.loads import load_of, read_carbon, read_trace
from ...compiler.economics.prices import read_prices
from ...compiler.errors import BudgetError, UsageError
from .. import api
from ..argument_checks import check_file
from ..budget.metrics import UserMetric
from ..calibration import CalibrationData
from ..durations import duration_of
from ..request import Progress
from ..shapes import DimSpec, shape_of
from .plan_files import write_plan
from .plan_request import PlanRequest
from .plan_table import verdict
from .plan_tools import PlanTools
from .planning import Planning, PlanResult
from .probe_reports import read_probes


class PlanUnmetError(BudgetError):
    """Nothing that was tried keeps what was promised; `best` is the PlanResult."""


class PlanOptions(TypedDict, total=False):
    """What `plan` takes besides the model, the folder and the p99.

    load: inferences per second, or "200/s"; or trace: a CSV of rates. eval, metric,
    metric_direction, max_accuracy_drop, calibration, shapes: as for `compile`. candidates: ONNX
    files of the model's interface, which are judged by it. targets, precisions, batches, threads:
    what is tried. prices, carbon: CSV files (docs/plan.md). measured: reports of programs that ran
    on other machines. objective: what is small: "cost", "energy", "latency" or "carbon".
    time_budget: seconds, or "10m", after which nothing more is compiled. fresh: what earlier runs
    have found is not taken over.
    """

    load: str | float | None
    trace: str | Path | None
    eval: CalibrationData | None
    metric: str | UserMetric | None
    metric_direction: str
    max_accuracy_drop: str | float
    calibration: CalibrationData | None
    candidates: Sequence[str | Path]
    targets: Sequence[str]
    precisions: Sequence[str]
    batches: Sequence[int]
    threads: Sequence[int]
    prices: str | Path | None
    carbon: str | Path | None
    measured: Sequence[str | Path]
    objective: str
    time_budget: str | float | None
    shapes: Mapping[str, Sequence[DimSpec] | str] | None
    fresh: bool
    progress: Progress | None


def plan(
    model: str | Path, *, output: str | Path, latency_p99: str | float,
    **options: Unpack[PlanOptions],
) -> PlanResult:  # fmt: skip
    """What binary serves a load on which machines for the least, within a p99 and an accuracy.

    output: a folder for the results, and for all that is found on the way: the same call goes on
    with it. latency_p99: of wait and run, seconds or "50ms". options: see `PlanOptions`.

    Raises UsageError for files and options that cannot be, and PlanUnmetError, whose `best` is the
    result, where nothing keeps what was promised.
    """
    request = plan_request(model, output=output, latency_p99=latency_p99, **options)
    result, _ = planned(request, PlanTools(api.compile_request))
    if (error := error_of_plan(result)) is not None:
        raise error
    return result


def plan_request(
    model: str | Path, *, output: str | Path, latency_p99: str | float,
    **options: Unpack[PlanOptions],
) -> PlanRequest:  # fmt: skip
    """The request of `plan`. Raises UsageError for files and options that cannot be."""
    load, trace = options.get("load"), options.get("trace")
    if (load is None) == (trace is None):
        raise UsageError(
            "a plan needs the load: how many inferences come",
            remedy="give either load (--load 200/s) or trace (--trace FILE)",
        )
    prices, carbon = options.get("prices"), options.get("carbon")
    budget, shapes = options.get("time_budget"), options.get("shapes") or {}
    candidates, measured = options.get("candidates", ()), options.get("measured", ())
    read: dict[str, Any] = {
        "model": check_file(Path(model), "model"),
        "output": Path(output),
        "latency_p99": duration_of(latency_p99),
        "load": read_trace(Path(trace)) if trace is not None else load_of(str(load)),
        "candidates": tuple(check_file(Path(path), "candidate") for path in candidates),
        "prices": () if prices is None else read_prices(Path(prices)),
        "carbon": {} if carbon is None else read_carbon(Path(carbon)),
        "probes": read_probes([Path(path) for path in measured]),
        "time_budget": None if budget is None else duration_of(budget),
        "shapes": {key: shape_of(key, dims) for key, dims in shapes.items()},
    }
    for name in ("targets", "precisions", "batches", "threads"):
        if name in options:
            read[name] = tuple(options[name])
    left_out = (*read, "trace", "measured")
    as_given: dict[str, Any] = {n: v for n, v in options.items() if n not in left_out}
    request = PlanRequest(**read, **as_given)
    if request.output.exists() and not request.output.is_dir():
        raise UsageError(f"'{request.output}' is a file", remedy="name a folder (-o, output=)")
    return request


def planned(request: PlanRequest, tools: PlanTools) -> tuple[PlanResult, list[Path]]:
    """The result, and the files that were written, whether or not the promise is kept."""
    request.output.mkdir(parents=True, exist_ok=True)
    result = Planning(request, tools).run()
    return result, write_plan(result)


def error_of_plan(result: PlanResult) -> PlanUnmetError | None:
    """The error of a plan that keeps no promise."""
    if result.chosen is not None:
        return None
    error = PlanUnmetError(
        verdict(result), remedy="allow more of what binds, or give other candidates or machines"
    )
    error.best = result
    return error
