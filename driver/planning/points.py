"""Binaries on machines that can be had: what each costs, and what of the promise it breaks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...compiler.economics.estimate import Estimate, Provenance, combined, given
from ...compiler.economics.loads import OfferedLoad
from ...compiler.economics.pareto import ranks
from ...compiler.economics.power import carbon_of, server_power
from ...compiler.economics.prices import MachineOffer
from ...compiler.economics.queue_simulation import Times
from ...compiler.economics.serving import (
    ServiceCurve,
    ServingCost,
    ServingLayout,
    replicas_for,
    serving_cost,
)
from ...compiler.tuning.statistics import interval
from ..budget.drops import Drop
from .builds import Build
from .energy_readers import EnergyReading
from .plan_request import PlanRequest
from .probe_reports import ProbeReport
from .rounds import joined

ACCURACY, LATENCY, MEMORY = "accuracy", "p99", "memory"
GIB = float(1 << 30)


@dataclass(frozen=True)
class Miss:
    """A promise that a point breaks. by: how far beyond the limit, as its multiple; infinite where
    there is no figure. text: for people."""

    constraint: str
    by: float
    text: str


@dataclass(frozen=True)
class PlanPoint:
    """A binary on a machine.

    service: seconds of a call of a batch. cost: None where no number of machines keeps the p99.
    cpu: seconds of processor time for an inference. energy: J, carbon: g of CO2 of an inference, at
    the load; None where nothing tells. drop: what it loses; None: it is the model in fp32. misses:
    promises that it breaks.
    """

    build: Build
    offer: MachineOffer
    layout: ServingLayout
    service: Estimate
    cpu: Estimate
    cost: ServingCost | None
    energy: Estimate | None
    carbon: Estimate | None
    drop: Drop | None
    misses: tuple[Miss, ...]

    @property
    def name(self) -> str:
        """The binary and the machine."""
        return f"{self.build.variant.name} on {self.offer.label}"

    @property
    def lost(self) -> float:
        """The drop in accuracy, 0 for the model itself."""
        return self.drop.drop if self.drop else 0.0

    @property
    def may_lose(self) -> float:
        """The drop that further data may show, with 95 % confidence; 0 for the model itself."""
        return self.drop.high if self.drop else 0.0

    @property
    def servable(self) -> bool:
        """Whether it keeps all but, maybe, the accuracy."""
        return all(miss.constraint == ACCURACY for miss in self.misses)

    def figures(self, objective: str = "cost") -> tuple[float, ...]:
        """What is to be small: cost at the load, p99, the drop that may be, bytes; and energy or
        carbon, where that is the objective."""
        cost = (math.inf, math.inf)
        if self.cost is not None:
            cost = self.cost.at_load.value, self.cost.p99.value
        more = (self.objective(objective),) if objective in ("energy", "carbon") else ()
        return (*cost, self.may_lose, float(self.build.bytes), *more)

    def objective(self, name: str) -> float:
        """The figure that a plan makes small; infinite where there is none."""
        if self.cost is None:
            return math.inf
        found = {
            "cost": self.cost.at_load,
            "latency": self.cost.p99,
            "energy": self.energy,
            "carbon": self.carbon,
        }[name]
        return math.inf if found is None else found.value


@dataclass(frozen=True)
class MeasuredBuild:
    """What was measured of a binary: reports of all rounds with one layout, its drop, and its
    energy, None where nothing counts it."""

    build: Build
    layout: ServingLayout
    reports: Sequence[ProbeReport]
    drop: Drop | None
    energy: EnergyReading | None = None

    @property
    def machine(self) -> str:
        """Processor and cores that it was measured on."""
        first = self.reports[0]
        return f"{first.processor}, {first.cores} core(s)"


class Pricing:
    """Makes points; what was simulated for one serves others of the same layout.

    limit: of the drop. today: of measurements.
    """

    def __init__(self, request: PlanRequest, limit: float, today: str) -> None:
        self.request, self.limit, self.today = request, limit, today
        self._curves: dict[tuple[str, str, int], ServiceCurve] = {}

    def point(self, measured: MeasuredBuild, offer: MachineOffer) -> PlanPoint | str:
        """The point, or why there is none."""
        threads, batch = measured.layout.threads, measured.layout.batch
        instances = offer.cores // threads
        if not instances:
            return f"{offer.label} has {offer.cores} core(s), a run {threads} threads"
        layout = ServingLayout(instances, threads, batch)
        reports, own = self._reports(measured, offer, layout)
        service, cpu = self._times(reports, own, offer), self._cpu(reports, own, offer)
        curve = self._curve(measured.build.variant.name, joined(reports), layout, own)
        cost = serving_cost(curve, service, offer.price, self.request.load)
        energy = self._energy(offer, cost, measured.energy if own else None)
        grid = self.request.carbon.get(offer.region)
        carbon = carbon_of(energy, grid) if energy is not None and grid is not None else None
        point = PlanPoint(
            measured.build, offer, layout, service, cpu, cost, energy, carbon, measured.drop, ()
        )
        return self._judged(point, reports)

    def _reports(
        self, measured: MeasuredBuild, offer: MachineOffer, layout: ServingLayout
    ) -> tuple[Sequence[ProbeReport], bool]:
        """What was measured on such a machine, with all of its cores at work; else what was
        measured here. Whether it is the former."""
        for probe in self.request.probes:
            if (
                probe.model == measured.reports[0].model
                and _same(probe.processor, offer.cpu)
                and (probe.threads, probe.batch) == (layout.threads, layout.batch)
                and probe.instances == layout.instances
                and probe.load is None
            ):
                return (probe,), True
        here = measured.reports[0]
        own = _same(here.processor, offer.cpu) and measured.layout == layout
        return measured.reports, own

    def _times(self, reports: Sequence[ProbeReport], own: bool, offer: MachineOffer) -> Estimate:
        means = [report.mean for report in reports]
        return self._seconds(means, "programs in turns, all cores at work", reports, own, offer)

    def _cpu(self, reports: Sequence[ProbeReport], own: bool, offer: MachineOffer) -> Estimate:
        means = [report.cpu_seconds / report.batch for report in reports]
        return self._seconds(means, "getrusage, of all threads", reports, own, offer)

    def _seconds(
        self, values: Sequence[float], method: str, reports: Sequence[ProbeReport], own: bool,
        offer: MachineOffer,
    ) -> Estimate:  # fmt: skip
        value = sum(values) / len(values)
        bounds = interval(values) if len(values) > 1 else None
        if bounds is not None:
            bounds = min(bounds[0], value), max(bounds[1], value)
        machine = f"{reports[0].processor}, {reports[0].cores} core(s)"
        if own:
            return Estimate(value, "s", Provenance.MEASURED, method, bounds, machine, self.today)
        method = f"{method}, measured on {machine}, taken for {offer.cpu or offer.name}"
        return Estimate(value, "s", Provenance.MODELLED, method, bounds, offer.name, self.today)

    def _curve(self, name: str, times: Times, layout: ServingLayout, own: bool) -> ServiceCurve:
        key = (name, f"{layout}{own}", len(times))
        if key not in self._curves:
            self._curves[key] = ServiceCurve(times, layout, self.request.latency_p99)
        return self._curves[key]

    def _energy(
        self, offer: MachineOffer, cost: ServingCost | None, read: EnergyReading | None
    ) -> Estimate | None:
        """J of an inference at the load: of all machines that are paid, whether or not they work.

        read: of such a machine, where there is one.
        """
        if cost is None:
            return None
        if read is not None:
            return self._counted(cost, read)
        if offer.watts is not None:
            power = given(offer.watts, "W", f"watts of {offer.name}, whatever it does", offer.date)
        else:
            power = server_power(offer.vcpus, offer.memory_gib, cost.utilisation)
        rate = given(self.request.load.mean, "1/s", self.request.load.method)
        replicas = cost.replicas
        return combined(
            lambda watts, calls: replicas * watts / calls, (power, rate), "J",
            f"power of {replicas} machine(s) / calls",
        )  # fmt: skip

    def _counted(self, cost: ServingCost, read: EnergyReading) -> Estimate:
        rate = given(self.request.load.mean, "1/s", self.request.load.method)
        replicas = cost.replicas
        return combined(
            lambda net, idle, calls: net + replicas * idle / calls,
            (read.net, read.idle, rate), "J",
            f"a call, and {replicas} machine(s) that are on",
        )  # fmt: skip

    def _judged(self, point: PlanPoint, reports: Sequence[ProbeReport]) -> PlanPoint:
        misses = [self._accuracy(point.drop), self._latency(point, reports)]
        need = reports[0].peak_bytes / reports[0].instances * point.layout.instances / GIB
        if need > point.offer.memory_gib:
            text = f"needs {need:.3g} GiB, {point.offer.label} has {point.offer.memory_gib:g}"
            misses.append(Miss(MEMORY, need / point.offer.memory_gib, text))
        return PlanPoint(**{**vars(point), "misses": tuple(filter(None, misses))})

    def _accuracy(self, drop: Drop | None) -> Miss | None:
        if drop is None or drop.proves(self.limit):
            return None
        if not drop.meets(self.limit):
            by = drop.drop / self.limit if self.limit else math.inf
            return Miss(ACCURACY, by, f"loses {drop.drop:.4g}, {self.limit:.4g} is allowed")
        rows = drop.rows_to_prove(self.limit)
        more = f"; about {rows} would do" if rows else ""
        by = drop.high / self.limit if self.limit else math.inf
        return Miss(
            ACCURACY, by,
            f"a drop within {self.limit:.4g} is not shown with {drop.rows} samples: further ones "
            f"may lose {drop.high:.4g}{more}",
        )  # fmt: skip

    def _latency(self, point: PlanPoint, reports: Sequence[ProbeReport]) -> Miss | None:
        limit = self.request.latency_p99
        if point.cost is not None and point.cost.p99.value <= limit * 1.05:
            return None
        alone = max(report.service_p99 for report in reports)
        late = alone if point.cost is None else point.cost.p99.value
        text = f"a p99 of {late:.3g} s, {limit:g} s is allowed"
        return Miss(LATENCY, late / limit, text + (", without any wait" if late == alone else ""))


def _same(processor: str, cpu: str) -> bool:
    return bool(cpu) and processor.casefold() == cpu.casefold()


def this_machine(processor: str, cores: int, memory_gib: float) -> MachineOffer:
    """What stands for prices where none are given: this machine, paid in hours of its cores."""
    price = given(float(cores), "core-h/h", "no --prices: hours of cores")
    return MachineOffer(
        name="this machine", price=price, currency="core-h", purchase="owned", vcpus=cores,
        memory_gib=memory_gib, cpu=processor,
    )  # fmt: skip


@dataclass(frozen=True)
class Stability:
    """Whether the order by cost at the load stays when figures move, one at a time. moved: by what
    it did not."""

    stable: bool
    moved: tuple[str, ...]


PRICE_MOVES, LOAD_MOVES = (0.8, 1.2), (0.5, 2.0)


def stability(points: Sequence[PlanPoint], load: OfferedLoad) -> list[Stability]:
    """Of each point whether its rank by cost at the load is the same for prices 20 % lower and
    higher (each offer alone), half and double the load, and times at the ends of their intervals.
    """
    costs = [point.figures()[0] for point in points]
    base = ranks(costs)
    moved: list[list[str]] = [[] for _ in points]

    def compare(what: str, values: Sequence[float]) -> None:
        for place, (before, after) in enumerate(zip(base, ranks(values), strict=True)):
            if before != after:
                moved[place].append(what)

    for label in dict.fromkeys(point.offer.label for point in points):
        for factor in PRICE_MOVES:
            prices = [factor if point.offer.label == label else 1.0 for point in points]
            scaled = [cost * price for cost, price in zip(costs, prices, strict=True)]
            compare(f"price of {label} {factor - 1:+.0%}", scaled)
    for factor in LOAD_MOVES:
        values = []
        for point, cost in zip(points, costs, strict=True):
            if point.cost is None:
                values.append(cost)
                continue
            needed = replicas_for(load.peak * factor, point.cost.capacity)
            values.append(cost * needed / point.cost.replicas / factor)
        compare(f"load x{factor:g}", values)
    for place, point in enumerate(points):
        if point.cost is None:
            continue
        for end in (point.cost.at_load.low, point.cost.at_load.high):
            values = [end if place == other else cost for other, cost in enumerate(costs)]
            if ranks(values)[place] != base[place]:
                moved[place].append("its own interval")
                break
    return [Stability(not own, tuple(own)) for own in moved]
