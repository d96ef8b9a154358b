"""The tasks of a planned model, with what their candidates are made of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ....compiler.errors import InternalError
from ....compiler.ir.dims import evaluate
from ....compiler.ir.graph import Node
from ....compiler.kernel.cost.cost import KernelCost, kernel_cost
from ....compiler.kernel.cost.machine import Machine, assumed_machine
from ....compiler.kernel.kernel import kernel_text
from ....compiler.kernel.plan.parameters import parametrised
from ....compiler.kernel.plan.plan import Plan
from ....compiler.kernel.plan.sites import KernelSite, sites_of
from ....compiler.target import CpuTarget
from ....compiler.tuning.task import PROTOCOL, Task, digest
from ..emit.work import is_divided
from ..emit.work import work as operations_of
from .groups import Called, FormedGroup

MOST_EVICTED = 256 << 20  # bytes; measurers read no more than twice their largest cache


@dataclass(frozen=True, eq=False)
class Work:
    """A task: a group's kernel with its sizes, as the plan has it.

    node: of the formed graph. env: sizes of the model's symbols. aliased: parameters that may lie
    in the same memory. constant_bytes: of all constants of the model.
    """

    task: Task
    group: FormedGroup
    node: Node
    env: Mapping[str, int]
    aliased: frozenset[str]
    constant_bytes: int

    @property
    def constants(self) -> frozenset[str]:
        """Parameters that are constants."""
        return frozenset(name for name, v in self.group.values.items() if v.is_constant)


def works_of(
    plan: Plan,
    calls: Sequence[Called],
    sizes: Mapping[str, int],
    target: CpuTarget,
    machine: Machine | None,
    threads: int,
) -> list[Work]:
    """Every kernel of a group whose sizes are known, in the order of first calls.

    Calls of one group's kernels are one task where these differ in widths of borders at most: the
    first is measured. Sizes are those of the inputs' symbols.
    machine: what was measured of one; without, a typical one's times are predicted, and no share of
    a roof.
    """
    sites = {(site.number, site.sizes): site for site in sites_of(plan, sizes)}
    regime = {"evicted_bytes": _evicted_bytes(plan, sizes)}
    found: dict[str, Work] = {}
    firsts: dict[object, str] = {}  # kernels that differ in nothing but the widths of borders
    shares = _calls(sites, calls, sizes)
    for position, called in enumerate(calls):
        known_sizes = _sizes(called, plan, sizes)
        site = None if known_sizes is None else sites.get((called.step.kernel, known_sizes))
        if site is None or not called.chosen.key or not shares[position]:
            continue
        task = _task(plan, called, site, target, threads, regime)
        same = (called.chosen.key, site.sizes, called.chosen.choice)
        first = firsts.setdefault(same, task.key)
        if first in found:
            known = found[first]
            more = replace(known.task, calls=known.task.calls + shares[position])
            found[first] = replace(known, task=more)
            continue
        task = replace(task, calls=shares[position])
        found[task.key] = Work(
            _timed(task, plan, called, site, target, machine),
            called.group,
            called.node,
            dict(sizes),
            plan.kernels[site.number].aliased,
            plan.weight_bytes,
        )
    return list(found.values())


def _sizes(
    called: Called, plan: Plan, sizes: Mapping[str, int]
) -> tuple[tuple[str, int], ...] | None:
    """The sizes of a call's kernel; None where only a run knows them."""
    names = plan.kernels[called.step.kernel].kernel.symbols
    try:
        values = [evaluate(dim, sizes) for dim in called.step.sizes]
    except InternalError:
        return None
    return tuple(zip(names, values, strict=True))


def _calls(
    sites: Mapping[tuple[int, tuple[tuple[str, int], ...] | None], KernelSite],
    calls: Sequence[Called],
    sizes: Mapping[str, int],
) -> list[int]:
    """How many calls of a run each entry of `calls` stands for: those of a kernel in equal parts,
    as a step in a loop stands for many."""
    steps = Counter(called.step.kernel for called in calls)
    total = Counter[int]()
    for site in sites.values():
        total[site.number] += site.calls
    return [
        max(1, round(total[c.step.kernel] / steps[c.step.kernel])) if total[c.step.kernel] else 0
        for c in calls
    ]


def _task(
    plan: Plan,
    called: Called,
    site: KernelSite,
    target: CpuTarget,
    threads: int,
    regime: Mapping[str, int],
) -> Task:
    general, _ = parametrised(called.group.request.kernel)
    facts = (target.triple, target.cpu, target.tune, target.features, target.instructions)
    parts = (
        PROTOCOL, kernel_text(general), called.chosen.key, site.sizes, threads,
        sorted(regime.items()), sorted(site.constants), facts,
        target.vector_bits, target.l1_bytes, target.l2_bytes,
    )  # fmt: skip
    return Task(
        key=digest("\n".join(map(str, parts))),
        name=plan.kernels[site.number].symbol,
        choice_key=called.chosen.key,
        sizes=dict(site.sizes or ()),
        threads=threads,
        regime=regime,
    )


def _timed(
    task: Task,
    plan: Plan,
    called: Called,
    site: KernelSite,
    target: CpuTarget,
    machine: Machine | None,
) -> Task:
    planned = plan.kernels[site.number]
    cost = kernel_cost(
        planned.kernel,
        planned.schedule,
        target,
        machine or assumed_machine(target),
        dict(site.sizes or ()),
        constants=site.constants,
        constant_bytes=plan.weight_bytes,
    )
    divided = is_divided(planned, operations_of(planned, called.step.sizes))
    cores = task.threads if divided else 1
    seconds = cost.seconds / cores
    least = 0.0 if machine is None else _least_seconds(cost, machine, plan.weight_bytes, cores)
    share = min(1.0, least / seconds) if seconds else 0.0
    return replace(task, seconds=seconds, roof_share=share)


def _least_seconds(cost: KernelCost, machine: Machine, constant_bytes: int, cores: int) -> float:
    """That any schedule takes: of the arithmetic, and of reading every operand once, which several
    cores may do several times as fast."""
    total = {True: float(constant_bytes), False: 0.0}
    for operand in cost.operands:
        total[operand.constant] += 0.0 if operand.constant else operand.bytes
    reading = 0.0
    for constant, held in total.items():
        home = next(level for level in machine.levels if held <= level.capacity)
        count = sum(o.bytes for o in cost.operands if o.constant is constant)
        reading = max(reading, count / home.bandwidth)
    return max(cost.least_seconds, reading) / cores


def _evicted_bytes(plan: Plan, sizes: Mapping[str, int]) -> int:
    """What a run touches between two calls of a kernel."""
    try:
        arena = evaluate(plan.arena_bytes, sizes)
    except InternalError:  # symbols that only a run knows
        arena = 0
    return min(plan.weight_bytes + arena, MOST_EVICTED)
