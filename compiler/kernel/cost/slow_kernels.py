"""Kernels predicted to take far longer than their bytes and operations: which, why, what helps.

What is compared with the prediction is the same kernel with the lanes of every vector side by side
in memory. Accesses whose places come from data (a model's own gathers and scatters) and stages that
have to run in order are no reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ...errors import InternalError
from ...ir.dims import Dim, all_calls, coefficient, evaluate, substitute, symbol, symbols_of
from ...target import CpuTarget
from .. import expr as ex
from ..kernel import Stage
from ..plan.plan import Plan, PlannedKernel
from ..plan.sites import KernelSite, sites_of
from ..schedule.schedule import RegisterTile, StageSchedule
from ..schedule.transposing import is_transposed
from .cycles import stage_cycles
from .machine import assumed_machine
from .model_cost import site_cost

DIVISIONS = ("floordiv", "mod")
SHOWN_NODES = 3  # of a kernel, in a sentence
LEAST_FACTOR = 4.0  # predicted time by that of the kernel with its lanes side by side
LEAST_SECONDS = 200e-6  # of a run, that are lost
LEAST_SHARE = 0.1  # of the predicted time of all kernels, that is lost


@dataclass(frozen=True)
class Reason:
    """why: what makes a kernel slow. remedy: what a user can do about it."""

    why: str
    remedy: str


@dataclass(frozen=True)
class SlowKernel:
    """All calls of a kernel in one run, on one core of a typical machine of the target.

    nodes: names of those that it computes. sizes: of its symbolic dims. seconds: predicted.
    direct_seconds: what its bytes and operations need. share: of what all kernels are predicted.
    """

    kernel: str
    nodes: tuple[str, ...]
    sizes: dict[str, int]
    seconds: float
    direct_seconds: float
    share: float
    reasons: tuple[Reason, ...]

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> SlowKernel:
        """What `asdict` made a dict of, from a manifest."""
        reasons = tuple(Reason(**reason) for reason in data["reasons"])
        return cls(**{**data, "nodes": tuple(data["nodes"]), "reasons": reasons})

    def __str__(self) -> str:
        """A sentence for people: what, how slow, why, what to do."""
        names = ", ".join(map(repr, self.nodes[:SHOWN_NODES]))
        more = len(self.nodes) - SHOWN_NODES
        names += f" and {more} more" if more > 0 else ""
        sizes = ", ".join(f"{name}={size}" for name, size in self.sizes.items())
        factor = self.seconds / self.direct_seconds
        return (
            f"kernel {self.kernel} ({names or 'no named node'}) is predicted to take "
            f"{factor:.0f} times what its bytes and operations need, {self.share:.0%} of a run"
            f"{f' for {sizes}' if sizes else ''}: "
            + "; ".join(f"{reason.why} ({reason.remedy})" for reason in self.reasons)
        )


SIZES = Reason(
    "for every element an index is divided by sizes that only a run knows",
    "pin those sizes with --shape, or give sizes that are always equal one name",
)
ORDER = Reason(
    "every element is looked up by an index computed for it: a reshape, pad or slice orders them "
    "in another way than they lie",
    "move it to where the tensor is small, or let the last axis stay whole in it",
)
STRIDE = Reason(
    "elements that are read or written together lie apart",
    "choose a layout in which the axis that is gone through is the last one, or make the step "
    "where the tensor is small",
)
SCALAR = Reason(
    "it runs element by element, as its operands lie along no common axis",
    "choose a layout in which operands and results have one last axis",
)


def slow_kernels(plan: Plan, target: CpuTarget, sizes: Mapping[str, int]) -> tuple[SlowKernel, ...]:
    """The kernels that lose much of a run's time so, those that lose most first.

    sizes: of the inputs' symbols, made up or not. Calls whose sizes only a run knows, or that the
    model refuses, are left out.
    """
    machine = assumed_machine(target)
    clock = machine.clock(target)
    suspects: list[tuple[KernelSite, float]] = []
    sites = [site for site in sites_of(plan, sizes, fitting=True) if site.sizes is not None]
    for site in sites:
        planned = plan.kernels[site.number]
        with suppress(InternalError):
            whole = _cycles(planned, site, target, direct=False)
            if site.calls * whole / clock < LEAST_SECONDS:
                continue
            direct = _cycles(planned, site, target, direct=True)
            most = site.calls * (whole - direct) / clock
            if whole >= LEAST_FACTOR * direct and most >= LEAST_SECONDS:
                suspects.append((site, direct / clock))
    if not suspects:
        return ()
    costs = {site: cost for site in sites if (cost := site_cost(plan, site, target, machine))}
    total = sum(site.calls * cost.seconds for site, cost in costs.items())
    found: dict[str, tuple[float, SlowKernel]] = {}
    for site, compute in suspects:
        if site not in costs:
            continue
        planned, cost = plan.kernels[site.number], costs[site]
        least = max([compute, *(seconds for _, seconds in cost.level_seconds)])
        lost = site.calls * (cost.seconds - least)
        few = lost < max(LEAST_SECONDS, LEAST_SHARE * total)
        if few or cost.seconds < LEAST_FACTOR * least:
            continue
        slow = SlowKernel(
            kernel=planned.symbol,
            nodes=planned.nodes,
            sizes=dict(site.sizes or ()),
            seconds=site.calls * cost.seconds,
            direct_seconds=site.calls * least,
            share=site.calls * cost.seconds / total,
            reasons=_reasons(planned),
        )
        if planned.symbol not in found or found[planned.symbol][0] < lost:
            found[planned.symbol] = (lost, slow)
    return tuple(slow for _, slow in sorted(found.values(), key=lambda item: -item[0]))


def _cycles(planned: PlannedKernel, site: KernelSite, target: CpuTarget, *, direct: bool) -> float:
    """Cycles of the arithmetic of a call. direct: with all lanes side by side."""
    total, sizes = 0.0, dict(site.sizes or ())
    for stage, own in zip(planned.kernel.stages, planned.schedule.stages, strict=True):
        extents = {
            axis.name: max(1, evaluate(axis.extent, sizes))
            for axis in stage.axes + stage.reduce_axes
        }
        if direct and _is_scalar(stage, own):
            own = replace(own, tile=RegisterTile(stage.axes[-1].name, target.lanes(32)))
        total += stage_cycles(_direct(stage, own) if direct else stage, own, extents, target)
    return total


def _is_scalar(stage: Stage, own: StageSchedule) -> bool:
    """Whether a stage runs element by element that need not."""
    in_order = stage.sequential or any(r.kind.startswith("arg") for r in stage.reductions)
    chosen = any(store.dynamic for store in stage.stores) or any(map(_is_chosen, _loads(stage)))
    return bool(stage.axes) and not (own.tile.vector or in_order or chosen)


def _is_chosen(load: ex.Load) -> bool:
    """Whether data decide what is read."""
    return any(isinstance(part, ex.Load) for i, _ in load.dynamic for part in ex.walk(i))


def _direct(stage: Stage, own: StageSchedule) -> Stage:
    """The stage with the lanes of every access that no data decide side by side."""

    def placed(offset: Dim) -> Dim:
        if not own.tile.vector or coefficient(offset, own.tile.vector) in (0, 1):
            return offset
        return substitute(offset, {own.tile.vector: 0}) + symbol(own.tile.vector)

    def near(part: ex.Expr) -> ex.Expr:
        if not isinstance(part, ex.Load) or _is_chosen(part):
            return part
        if any(ex.depends_on(index, own.tile.vector) for index, _ in part.dynamic):
            offset = substitute(part.offset, {own.tile.vector: 0}) + symbol(own.tile.vector)
            return replace(part, offset=offset, dynamic=())
        return replace(part, offset=placed(part.offset))

    reductions = tuple(r.with_parts(partial(ex.rebuilt, change=near)) for r in stage.reductions)
    stores = tuple(
        replace(s, offset=placed(s.offset), value=ex.rebuilt(s.value, near)) for s in stage.stores
    )
    return replace(stage, reductions=reductions, stores=stores)


def _reasons(planned: PlannedKernel) -> tuple[Reason, ...]:
    found: dict[Reason, None] = {}
    for stage, own in zip(planned.kernel.stages, planned.schedule.stages, strict=True):
        if _is_scalar(stage, own):
            found[SCALAR] = None
        elif own.tile.vector:
            found.update(dict.fromkeys(_apart(stage, own)))
    return tuple(found)


def _apart(stage: Stage, own: StageSchedule) -> Iterator[Reason]:
    """Why lanes do not lie side by side."""
    for load in _loads(stage):
        if stage.reductions or not is_transposed(load.offset, own.tile):
            yield from _displaced(load.offset, own.tile.vector)
        for index, _ in () if _is_chosen(load) else load.dynamic:
            if ex.depends_on(index, own.tile.vector):
                yield SIZES if any(map(_is_by_size, ex.walk(index))) else ORDER
    for store in stage.stores:
        if (
            not own.tile.row or coefficient(store.offset, own.tile.row) != 1
        ):  # else moved in registers
            yield from _displaced(store.offset, own.tile.vector)


def _displaced(offset: Dim, axis: str) -> Iterator[Reason]:
    stride = coefficient(offset, axis)
    if stride is None:
        calls = [call for call in all_calls([offset]) if axis in symbols_of(call.args[0])]
        by_size = any(c.fn in DIVISIONS and not isinstance(c.args[1], int) for c in calls)
        yield SIZES if by_size else ORDER
    elif stride not in (0, 1):
        yield STRIDE


def _is_by_size(part: ex.Expr) -> bool:
    """Whether an integer is divided by one that is no constant."""
    return (
        isinstance(part, ex.Apply)
        and part.op in ("div", "mod")
        and part.dtype.is_integer
        and not any(isinstance(inner, ex.Load) for inner in ex.walk(part.args[1]))
        and any(symbols_of(index) for index in ex.all_indices(part.args[1]))
    )


def _loads(stage: Stage) -> Iterator[ex.Load]:
    for expression in stage.expressions():
        yield from (part for part in ex.walk(expression) if isinstance(part, ex.Load))
