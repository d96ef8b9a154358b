"""What is asked of a plan: one value, which checks itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ...compiler.economics.estimate import Estimate
from ...compiler.economics.loads import OfferedLoad
from ...compiler.economics.prices import MachineOffer
from ...compiler.errors import UsageError
from ..argument_checks import check_choice, threads_of
from ..budget.drops import Limit
from ..budget.metrics import UserMetric, metric_of
from ..calibration import CalibrationData
from ..request import PRECISIONS, USUAL_DROP, Progress
from ..shapes import ShapeSpecs
from .probe_reports import ProbeReport

OBJECTIVES = ("cost", "energy", "latency", "carbon")


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """model, candidates: ONNX files of the same inputs and outputs; the first is what others are
    judged by. output: the folder of all results, and of what is kept for the next run.

    latency_p99: seconds of wait and service, that 99 of 100 inferences have to be within. load: how
    many come. prices: machines that can be had; none: this one, paid in hours of its cores. carbon:
    of a kWh, by region. probes: measurements of other machines. time_budget: seconds of all runs
    that go on with each other, None: as long as it takes; what is not reached is left out, and
    told. cascades: whether candidates are tried as the first stage of one. today: for the age of
    prices.
    Raises UsageError where it is made with what cannot be.
    """

    model: Path
    output: Path
    latency_p99: float
    load: OfferedLoad
    eval: CalibrationData | None = None
    metric: str | UserMetric | None = None
    metric_direction: str = "higher"
    max_accuracy_drop: str | float = USUAL_DROP
    calibration: CalibrationData | None = None
    candidates: tuple[Path, ...] = ()
    targets: tuple[str, ...] = ("native",)
    precisions: tuple[str, ...] = ("fp32", "bf16", "int8")
    batches: tuple[int, ...] = (1,)
    threads: tuple[int, ...] = (1,)
    prices: tuple[MachineOffer, ...] = ()
    carbon: Mapping[str, Estimate] = field(default_factory=dict)
    probes: tuple[ProbeReport, ...] = ()
    objective: str = "cost"
    time_budget: float | None = None
    cascades: bool = True
    shapes: ShapeSpecs = field(default_factory=dict)
    fresh: bool = False
    today: date = field(default_factory=date.today)
    progress: Progress | None = None

    def __post_init__(self) -> None:
        check_choice("objective", self.objective, OBJECTIVES)
        for precision in self.precisions:
            check_choice("precision", precision, [p for p in PRECISIONS if p != "auto"])
        object.__setattr__(self, "threads", tuple(map(threads_of, self.threads)))
        if not self.latency_p99 > 0:
            raise UsageError(
                f"a p99 of {self.latency_p99} s", remedy="give --latency-p99, such as 50ms"
            )
        if any(batch < 1 for batch in self.batches):
            raise UsageError("a batch has at least one row", remedy="give --batch 1,4")
        for name in ("targets", "precisions", "batches", "threads"):
            if not getattr(self, name):
                raise UsageError(f"no {name} to choose from", remedy=f"give --{name} a value")
        if self.objective == "carbon" and not self.carbon:
            raise UsageError(
                "least carbon needs the carbon of a kWh by region", remedy="give --carbon FILE"
            )
        if self.candidates and self.eval is None:
            raise UsageError(
                "other models are judged by evaluation data, and there are none",
                remedy="give --eval: inputs as the model gets them, with labels if you have them",
            )
        Limit.of(self.max_accuracy_drop)
        metric_of(self.metric, self.metric_direction)

    def note(self, text: str) -> None:
        """Tell what is done next."""
        if self.progress:
            self.progress(text)
