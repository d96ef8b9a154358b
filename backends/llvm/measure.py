"""The profile of a model on this machine: every kernel measured, and compared with its cost."""

from __future__ import annotations

import math
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from ...compiler.backend import Measures
from ...compiler.compilation import CompileOptions, KernelInfo, Stages
from ...compiler.errors import InternalError
from ...compiler.ir.dims import evaluate
from ...compiler.ir.graph import Graph
from ...compiler.kernel.cost.cost import kernel_cost
from ...compiler.kernel.cost.machine import Machine
from ...compiler.kernel.plan.arena import live_bytes
from ...compiler.kernel.plan.plan import Plan
from ...compiler.kernel.plan.sites import KernelSite, functions_of, sites_of
from ...compiler.profile import KernelProfile, Profile, ProfileOptions
from ...compiler.target import CpuTarget
from .bandwidth import measure_machine
from .harness import build_profiler
from .peak import measure_peak
from .pipeline import kernel_infos, make_plan

_MOST_EVICTED = 256 << 20  # bytes
_START_SECONDS, _SITE_SECONDS = 120.0, 20.0  # a program that takes longer hangs


def profile_cpu(
    graph: Graph,
    target: CpuTarget,
    options: CompileOptions,
    stages: Stages,
    wanted: ProfileOptions,
) -> Profile:
    """Measure every kernel of a graph on one core of this machine; the graph is rewritten in place.

    Raises InternalError when a tool fails, as `compile_cpu` otherwise. A kernel that crashes is
    reported in its own entry.
    """
    plan = make_plan(graph, target, options, stages)
    sites = sites_of(plan, wanted.sizes)
    known = [site for site in sites if not _reason(plan, site)]
    evicted = _evicted_bytes(plan, wanted.sizes, wanted.machine)
    readings: dict[KernelSite, float | str] = {}
    if known:
        with stages.stage("profiler"):
            program = build_profiler(plan, known, target, options.work_dir)
        with stages.stage("measure"):
            found = _run(program, len(known), wanted.seconds, evicted, wanted.progress)
            readings = {known[number]: reading for number, reading in found.items()}
    infos = kernel_infos(plan)
    kernels = tuple(
        _profile(plan, site, infos[site.number], target, wanted.machine, readings) for site in sites
    )
    live, arena = _memory(plan, wanted.sizes)
    return Profile(kernels, tuple(functions_of(plan.steps)), evicted, live, arena)


def _memory(plan: Plan, sizes: Mapping[str, int]) -> tuple[tuple[int, ...], int]:
    """Bytes that are alive at each step, and of the arena; none where only a run knows."""
    try:
        return live_bytes(plan.arena, sizes), evaluate(plan.arena_bytes, sizes)
    except InternalError:
        return (), 0


def _profile(
    plan: Plan,
    site: KernelSite,
    info: KernelInfo,
    target: CpuTarget,
    machine: Machine,
    readings: Mapping[KernelSite, float | str],
) -> KernelProfile:
    planned, sizes = plan.kernels[site.number], dict(site.sizes or ())
    if reason := _reason(plan, site):
        return KernelProfile(info, sizes, site.calls, site.certain, reason=reason)
    cost = kernel_cost(
        planned.kernel,
        planned.schedule,
        target,
        machine,
        sizes,
        constants=site.constants,
        constant_bytes=plan.weight_bytes,
    )
    reading = readings.get(site, "not reached")
    if isinstance(reading, str):
        return KernelProfile(info, sizes, site.calls, site.certain, cost, reason=reading)
    return KernelProfile(info, sizes, site.calls, site.certain, cost, reading)


def _reason(plan: Plan, site: KernelSite) -> str:
    """Why a site cannot be measured, or ""."""
    if site.sizes is None:
        return "only a run knows its sizes"
    sizes = dict(site.sizes)
    stages = plan.kernels[site.number].kernel.stages
    empty = all(any(evaluate(axis.extent, sizes) <= 0 for axis in s.axes) for s in stages)
    return "its results are empty with these sizes" if empty else ""


def _evicted_bytes(plan: Plan, sizes: Mapping[str, int], machine: Machine) -> int:
    """What a run touches between two calls of a kernel, at most twice what the caches hold."""
    try:
        arena = evaluate(plan.arena_bytes, sizes)
    except InternalError:  # symbols that only a run knows
        arena = 0
    held = max((level.capacity for level in machine.levels if level.capacity < math.inf), default=0)
    return min(plan.weight_bytes + arena, max(int(2 * held), 1), _MOST_EVICTED)


def _run(
    program: Path,
    count: int,
    seconds: float,
    evicted: int,
    progress: Callable[[str], None] | None,
) -> dict[int, float | str]:
    """Seconds of a call by number of the site, or why there are none."""
    found: dict[int, float | str] = {}
    while len(found) < count:
        first = len(found)
        arguments = [str(program), str(first), str(int(seconds * 1e9)), str(evicted)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            limit = threading.Timer(_START_SECONDS + count * _SITE_SECONDS, process.kill)
            limit.start()
            for number, least_and_median in enumerate(_lines(process), first):
                found[number] = least_and_median[1] * 1e-12
                if progress:
                    progress(f"measuring kernel {number + 1} of {count}")
            code = process.wait()
            limit.cancel()
        if len(found) < count:
            found[len(found)] = _ending(code)
    return found


def _lines(process: subprocess.Popen[str]) -> Iterator[tuple[int, int]]:
    """Least and median picoseconds, as the program prints them."""
    assert process.stdout is not None
    for line in process.stdout:
        _, least, median, _ = map(int, line.split())
        yield least, median


def _ending(code: int) -> str:
    if code >= 0:
        return f"the kernel's program ended with code {code}"
    if -code == signal.SIGILL:
        return "this processor lacks an instruction of the target"
    return f"the kernel was ended by {signal.Signals(-code).name}"


MEASURES = Measures(peak=measure_peak, machine=measure_machine, profile=profile_cpu)
