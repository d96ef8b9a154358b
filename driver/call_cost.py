"""What a million calls cost on machines that always work: for tables of times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..compiler.economics.estimate import Estimate, Provenance, combined
from ..compiler.economics.prices import MachineOffer
from ..compiler.economics.serving import HOUR, MILLION
from ..compiler.host import processor_name


@dataclass(frozen=True)
class CallCost:
    """A million calls on an offer, all of its cores at work; None where a call takes more threads
    than it has cores."""

    offer: MachineOffer
    cost: Estimate | None

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        found = None if self.cost is None else self.cost.to_json()
        return {"machine": self.offer.label, "cost": found}


def call_costs(
    seconds: Estimate, threads: int, offers: Sequence[MachineOffer], *, device: bool = False
) -> list[CallCost]:
    """Of a call that takes so long with so many threads, on each offer; device: or an accelerator.

    The machine of a measured time is this one: on offers of another processor (`cpu`), or of none
    that is told, the cost is modelled.
    """
    here = processor_name().casefold()
    return [
        CallCost(
            offer, _cost(_on(seconds, offer, here), offer, offer.instances(threads, device=device))
        )
        for offer in offers
    ]


def _on(seconds: Estimate, offer: MachineOffer, here: str) -> Estimate:
    if seconds.kind is not Provenance.MEASURED or offer.cpu.casefold() == here:
        return seconds
    return Estimate(
        seconds.value, seconds.unit, Provenance.MODELLED,
        f"{seconds.method}, here, taken for {offer.cpu or offer.name}", seconds.interval,
        offer.name, seconds.date,
    )  # fmt: skip


def _cost(seconds: Estimate, offer: MachineOffer, instances: int) -> Estimate | None:
    if not instances:
        return None
    return combined(
        lambda time, price: price * time / instances / HOUR * MILLION, (seconds, offer.price),
        f"{offer.currency}/1M", f"price x time / {instances} instances, saturated",
    )  # fmt: skip


def cost_text(found: CallCost) -> str:
    """For a cell: with `~` where it is modelled."""
    return "too few cores" if found.cost is None else f"{found.cost:.4g} {found.cost.unit}"
