"""What a run of a whole model is predicted to take on a GPU: its launches, one behind the other.

Nothing of it was measured: rates, bandwidth and clocks are of data sheets (`targets.py`), what
launches take and wait for is assumed (`candidates.py`, `tuning/spaces.py`), and so is the speed of
the bus to the host.
"""

from __future__ import annotations

from ...compiler.compilation import CompileOptions, Stages
from ...compiler.economics.estimate import Estimate, Provenance
from ...compiler.errors import InternalError, UsageError
from ...compiler.ir.dims import substitute
from ...compiler.ir.graph import Graph
from ...compiler.kernel.cost.cost import kernel_cost
from ...compiler.kernel.cost.machine import assumed_machine
from ...compiler.kernel.cost.model_cost import RunEstimate, arena_at, site_cost
from ...compiler.kernel.kernel import Kernel
from ...compiler.kernel.plan.plan import Plan
from ...compiler.kernel.plan.sites import KernelSite, copies_of, functions_of, sites_of
from ...compiler.kernel.schedule.schedule import Schedule, StageSchedule
from ...compiler.kernel.schedule.tiles import Tiles
from ...compiler.target import GpuTarget
from .candidates import LAUNCH
from .emit.function import parts_of
from .kernels import GpuKernels
from .pipeline import form_kernels, launch_kernels
from .tuning.spaces import space_of

SPREAD = (0.3, 3.0)  # of a prediction that no GPU has confirmed
BUS, BUS_LATENCY = 20e9, 10e-6  # bytes per second of PCIe 4.0 with 16 lanes; seconds of a copy


def estimate_cuda(
    graph: Graph, target: GpuTarget, options: CompileOptions, stages: Stages
) -> RunEstimate:
    """What a run of a graph is predicted to need for `options.sizes`; the graph is rewritten.

    Raises UsageError for a target that several GPUs are meant by.
    """
    if len(target.architectures) > 1:
        raise UsageError(
            f"'{target.name}' is code for several GPUs, of which each takes another time",
            remedy="name one: --target cuda:sm_90",
        )
    plan, kernels = form_kernels(graph, target, options, stages)
    sizes, uncounted = options.sizes, []
    seconds, flops = 0.0, 0
    for site in sites_of(plan, sizes, fitting=True):
        found = _site(plan, site, kernels, target)
        if found is None:
            uncounted.append(plan.kernels[site.number].symbol)
            continue
        seconds += site.calls * found[0]
        flops += site.calls * found[1]
    launch_kernels(plan, kernels)
    for copy in copies_of(plan, sizes):
        seconds += copy.times * (BUS_LATENCY + (copy.size or 0) / BUS)
        uncounted += ["a copy"] * (copy.size is None)
    uncounted += functions_of(plan.steps)
    method = (
        f"launch by launch, at a data sheet's {target.clock / 1e9:.3g} GHz, no GPU has confirmed it"
    )
    low, high = (seconds * end for end in SPREAD)
    told = Estimate(seconds, "s", Provenance.MODELLED, method, (low, high), target.name)
    return RunEstimate(
        told, flops, plan.weight_bytes, arena_at(plan, sizes), tuple(uncounted),
        target.clock, device=True,
    )  # fmt: skip


def _site(
    plan: Plan, site: KernelSite, kernels: GpuKernels, target: GpuTarget
) -> tuple[float, int] | None:
    """Seconds and floating-point operations of a call; None where its sizes are not known."""
    if site.number in kernels.reasons:
        host = site_cost(plan, site, target.host, assumed_machine(target.host))
        return None if host is None else (host.seconds, host.flops)
    if site.sizes is None:
        return None
    planned, known = plan.kernels[site.number], dict(site.sizes)
    kernel = planned.kernel.map_dims(lambda dim: substitute(dim, known))
    cycles, flops = 0.0, 0
    try:
        for part, tiles in zip(parts_of(kernel), planned.schedule.tiles, strict=True):
            own = _launch(part, tiles, target)
            cycles, flops = cycles + own[0], flops + own[1]
    except InternalError:
        return None
    return LAUNCH * len(planned.schedule.tiles) + cycles / target.clock, flops


def _launch(part: Kernel, tiles: Tiles, target: GpuTarget) -> tuple[float, int]:
    """Cycles and operations of a launch: the longer of what its programs take, as tuning predicts
    them, and of what memory takes for all that is read and written."""
    schedule = Schedule(tuple(StageSchedule() for _ in part.stages), 0)
    cost = kernel_cost(part, schedule, target.host, assumed_machine(target.host), {})
    programs = space_of(part, tiles, {}, maps=False, busy=1).cycles(tiles, target)
    return max(programs, cost.bytes / target.bandwidth), cost.flops
