"""Targets that this machine cannot run: what the cost model says, priced, and ranked with nothing
that was measured."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...compiler.economics.estimate import Estimate, Provenance
from ...compiler.economics.prices import MachineOffer
from ...compiler.economics.serving import ServiceCurve, ServingCost, ServingLayout, serving_cost
from ...compiler.errors import TensmithError, UsageError
from ...compiler.kernel.cost.model_cost import RunEstimate
from ..halves import HALVES
from ..preflight import predicted_run, preflight
from ..request import FP32, CompileRequest
from .plan_request import PlanRequest
from .variants import Variant

CLOCK_COLUMN = "clock_mhz"  # of a price row: the clock of its processor


@dataclass(frozen=True)
class ModelledPoint:
    """A variant on a target that does not run here. seconds: of a run; None: nothing tells. offer,
    cost: of a price row whose `target` it is; None where there is none, or none that can be priced.
    note: what is missing, or assumed."""

    variant: Variant
    seconds: Estimate | None
    offer: MachineOffer | None
    cost: ServingCost | None
    note: str

    def to_json(self) -> dict[str, Any]:
        """For `plan.json`."""
        cost = self.cost
        return {
            "name": self.variant.name, "target": self.variant.target,
            "precision": self.variant.precision,
            "seconds": None if self.seconds is None else self.seconds.to_json(),
            "machine": None if self.offer is None else self.offer.label,
            "replicas": None if cost is None else cost.replicas,
            "saturated": None if cost is None else cost.saturated.to_json(),
            "at_load": None if cost is None else cost.at_load.to_json(),
            "p99": None if cost is None else cost.p99.to_json(),
            "note": self.note,
        }  # fmt: skip


def modelled_points(variant: Variant, request: PlanRequest) -> list[ModelledPoint]:
    """A point for every price row of the variant's target; one without a machine where there is
    none. Nothing is compiled, and nothing is said of accuracy."""
    try:
        cycles, run = _predicted(variant, request)
    except TensmithError as error:
        return [ModelledPoint(variant, None, None, None, error.what)]
    if cycles is None and run is None:
        return [ModelledPoint(variant, None, None, None, "nothing predicts its time")]
    offers = [own for own in request.prices if own.target == variant.target]
    if not offers:
        note = f"no price row has the target {variant.target}"
        return [ModelledPoint(variant, run.seconds if run else None, None, None, note)]
    return [_priced(variant, cycles, run, offer, request) for offer in offers]


def _predicted(variant: Variant, request: PlanRequest) -> tuple[int | None, RunEstimate | None]:
    """Cycles of a processor with command streams, or what a cost model says."""
    asked = CompileRequest(
        target=variant.target, threads=variant.threads, shapes=dict(variant.shapes),
        precision=variant.precision if variant.precision in HALVES else FP32,
    )  # fmt: skip
    backend, _ = asked.resolve()
    if backend.estimate is not None:
        return None, predicted_run(variant.path, asked)
    if backend.integers is not None:
        found = preflight(variant.path, asked).npu
        if found is None:
            raise UsageError(f"{variant.target}: {backend.available() or 'it takes no part of it'}")
        return int(found["estimated_cycles"]), None
    return None, None


def _priced(
    variant: Variant, cycles: int | None, run: RunEstimate | None, offer: MachineOffer,
    request: PlanRequest,
) -> ModelledPoint:  # fmt: skip
    clock = offer.extra.get(CLOCK_COLUMN, "")
    try:
        hertz = float(clock) * 1e6 if clock else 0.0
    except ValueError:
        raise UsageError(
            f"{offer.label}: {CLOCK_COLUMN} is '{clock}'", remedy="give megahertz, such as 400"
        ) from None
    seconds, note = _seconds(cycles, run, offer, hertz)
    if seconds is None:
        return ModelledPoint(variant, None, offer, None, note)
    device = run is not None and run.device
    instances = max(1, offer.instances(variant.threads, device=device))
    layout = ServingLayout(instances, variant.threads, variant.batch)
    curve = ServiceCurve(np.full(1, seconds.value), layout, request.latency_p99)
    cost = serving_cost(curve, seconds, offer.price, request.load)
    if cost is None:
        note = "; ".join(filter(None, (note, "no number of machines keeps the p99")))
    return ModelledPoint(variant, seconds, offer, cost, note)


def _seconds(
    cycles: int | None, run: RunEstimate | None, offer: MachineOffer, hertz: float
) -> tuple[Estimate | None, str]:
    """Seconds of a run at the clock of an offer, and what is assumed of it."""
    if cycles is not None:
        if not hertz:
            return None, f"{cycles} cycles; give the column {CLOCK_COLUMN} to price them"
        method = f"{cycles} cycles, estimated by the command stream's compiler, at {hertz:.4g} Hz"
        return Estimate(cycles / hertz, "s", Provenance.MODELLED, method, machine=offer.name), ""
    assert run is not None
    own = run.seconds
    if not hertz:
        return replace(own, machine=offer.name), f"a clock of {run.clock:.3g} Hz is assumed"
    scaled = own * (run.clock / hertz)
    return replace(scaled, machine=offer.name, method=f"{own.method}, at {hertz:.4g} Hz"), ""
