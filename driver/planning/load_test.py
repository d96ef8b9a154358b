"""The choice under load: calls that come by chance, whatever the program does, beside what the
queue promised."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...compiler.economics.estimate import Estimate, Provenance
from ...compiler.economics.serving import ServiceCurve
from ..journal import Journal
from .plan_request import PlanRequest
from .points import MeasuredBuild, PlanPoint
from .probe_reports import ProbeReport, probe_of
from .rounds import RunProbe, joined

SECONDS, LEAST_CALLS, MOST_SECONDS = 3.0, 2000, 20.0
WITHIN = 0.15  # of the prediction
SHORT = 100e-6  # seconds of a call, below which waking a thread is a share of it
TAKEN = 0.05  # share of the cores that others may have


@dataclass(frozen=True)
class LoadTest:
    """rate: calls per second on this machine, `share` of what it serves within the p99. predicted,
    measured: p99 of wait and service. cpu: seconds of processor time of an inference at this load.
    reason: why they differ by more than 15 %, "" where they do not.
    """

    rate: float
    share: float
    predicted: Estimate
    measured: Estimate
    cpu: Estimate
    reason: str

    @property
    def agrees(self) -> bool:
        """Whether the p99 is within 15 % of what was predicted."""
        return abs(self.measured.value / self.predicted.value - 1) <= WITHIN


def load_test(
    own: MeasuredBuild, point: PlanPoint, rows: Path, request: PlanRequest, probe: RunProbe,
    journal: Journal,
) -> LoadTest | None:  # fmt: skip
    """Measure a binary at the share of its capacity that the point has. None where this machine
    cannot keep the p99 at all."""
    assert point.cost is not None
    curve = ServiceCurve(joined(own.reports), own.layout, request.latency_p99)
    capacity = curve.capacity()
    if capacity <= 0:
        return None
    share = min(1.0, request.load.peak / point.cost.replicas / point.cost.capacity)
    rate = share * capacity
    seconds = min(MOST_SECONDS, max(SECONDS, LEAST_CALLS / rate))
    key = ("load test", own.build.variant.name, own.build.sha256, str(own.layout), f"{rate:.6g}")
    kept = journal.get(*key)
    if kept is None:
        kept = probe(own.build, own.layout, rows, seconds=seconds, load=rate).to_json()
        journal.put(kept, *key)
    report = probe_of(kept, "the load test")
    today, machine = request.today.isoformat(), own.machine
    predicted = Estimate(
        curve.p99(rate), "s", Provenance.MODELLED, "queue simulated with service times",
        machine=machine, date=today,
    )  # fmt: skip
    measured = Estimate(
        report.p99, "s", Provenance.MEASURED, f"open-loop, {report.calls} calls", machine=machine,
        date=today,
    )  # fmt: skip
    cpu = Estimate(
        report.cpu_seconds, "s", Provenance.MEASURED, f"getrusage at {rate:.4g} calls/s",
        machine=machine, date=today,
    )  # fmt: skip
    found = LoadTest(rate, share, predicted, measured, cpu, "")
    return found if found.agrees else LoadTest(**{**vars(found), "reason": _why(own, report)})


def _why(own: MeasuredBuild, report: ProbeReport) -> str:
    """Why the p99 is not what was predicted, as far as that can be told."""
    stolen = max(0.0, float(np.mean([r.stolen for r in own.reports])))
    causes = []
    if own.layout.threads == 1 and stolen > TAKEN:
        causes.append(f"other programs took {stolen:.0%} of the cores while times were measured")
    if float(np.median(own.reports[0].times)) < SHORT:
        causes.append(
            "calls are so short that waking an instance, which the queue does not know of, is a "
            "share of them"
        )
    if report.cpu_seconds > 1.3 * own.reports[0].cpu_seconds and own.layout.threads > 1:
        causes.append("threads that wait for the next call take processor time")
    return "; ".join(causes) or (
        "no cause was found: the tail of service times differs between the two measurements"
    )
