"""What a run of a whole model is predicted to take: its kernels, one behind the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...economics.estimate import Estimate, Provenance
from ...errors import InternalError
from ...ir.dims import evaluate
from ...target import CpuTarget
from ..plan.plan import Plan
from ..plan.sites import KernelSite, functions_of, parallel_iterations, sites_of
from .cost import KernelCost, kernel_cost
from .machine import CLOCK, Machine, assumed_machine

# Measured processor time by the predicted one of nine real models on a Zen 4 core: 0.42 to 1.90.
SPREAD = (0.4, 2.0)
FORK_JOIN = 2e-6  # seconds until threads have begun a kernel and are waited for


@dataclass(frozen=True)
class RunEstimate:
    """What a run is predicted to need, before any code is generated.

    seconds: of one run, modelled. flops: of the kernels that are counted. weight_bytes,
    arena_bytes: of memory; the latter None where only a run can tell. uncounted: what the
    prediction is without: kernels whose sizes only a run knows, and functions of the runtime.
    clock: cycles per second that are assumed; device: whether a run has a device, and no cores, to
    itself.
    """

    seconds: Estimate
    flops: int
    weight_bytes: int
    arena_bytes: int | None
    uncounted: tuple[str, ...] = ()
    clock: float = CLOCK
    device: bool = False


def site_cost(
    plan: Plan, site: KernelSite, target: CpuTarget, machine: Machine
) -> KernelCost | None:
    """The cost of one call on one core; None where its sizes are not known, or make no sense."""
    if site.sizes is None:
        return None
    planned = plan.kernels[site.number]
    try:
        return kernel_cost(
            planned.kernel,
            planned.schedule,
            target,
            machine,
            dict(site.sizes),
            constants=site.constants,
            constant_bytes=plan.weight_bytes,
        )
    except InternalError:
        return None


def run_estimate(
    plan: Plan, target: CpuTarget, sizes: Mapping[str, int], threads: int = 1
) -> RunEstimate:
    """The prediction for a typical machine of the target, with so many cores at work.

    sizes: of the inputs' symbols. Threads share what a kernel's loops divide; the memory is one for
    all.
    """
    machine = assumed_machine(target)
    seconds, flops, uncounted = 0.0, 0, list(functions_of(plan.steps))
    for site in sites_of(plan, sizes, fitting=True):
        cost = site_cost(plan, site, target, machine)
        if cost is None:
            uncounted.append(plan.kernels[site.number].symbol)
            continue
        seconds += site.calls * _shared(plan, site, cost, threads)
        flops += site.calls * cost.flops
    method = f"cost model, kernel by kernel, {threads} thread(s); {machine.label}"
    low, high = (seconds * end for end in SPREAD)
    told = Estimate(seconds, "s", Provenance.MODELLED, method, (low, high), target.name)
    return RunEstimate(told, flops, plan.weight_bytes, arena_at(plan, sizes), tuple(uncounted))


def arena_at(plan: Plan, sizes: Mapping[str, int]) -> int | None:
    """Bytes of the arena for sizes of the inputs' symbols; None where only a run can tell."""
    try:
        return evaluate(plan.arena_bytes, sizes)
    except InternalError:
        return None


def _shared(plan: Plan, site: KernelSite, cost: KernelCost, threads: int) -> float:
    """Seconds of a call whose loops threads share."""
    planned, sizes = plan.kernels[site.number], dict(site.sizes or ())
    parts = max(1, min(threads, parallel_iterations(planned.kernel, planned.schedule, sizes)))
    if parts == 1:
        return cost.seconds
    *near, memory = (seconds for _, seconds in cost.level_seconds)
    return FORK_JOIN + max([cost.compute_seconds / parts, memory, *(own / parts for own in near)])
