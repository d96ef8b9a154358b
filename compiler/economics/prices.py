"""Price files: offers of machines, as users write them or as SkyPilot's catalogue has them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from ..errors import UsageError
from .csv_rows import CsvRow, csv_rows, require_columns
from .estimate import Estimate, given

PURCHASES = ("ondemand", "spot", "reserved", "owned")
STALE_DAYS = 90
HOURS_OF_A_YEAR = 8766.0

_NEEDED = ("name", "vcpus", "memory_gib", "currency", "purchase", "source", "date")
_OWNED = ("purchase_price", "install", "life_years", "duty", "watts", "tariff")
COLUMNS = (
    "name", "provider", "region", "target", "cpu", "vcpus", "threads_per_core", "memory_gib",
    "accelerator", "accelerator_count", "price_per_hour", "currency", "purchase", "commitment",
    "source", "date",
)  # fmt: skip
_SKYPILOT = ("InstanceType", "vCPUs", "MemoryGiB", "Region", "Price")
_SKYPILOT_SPOT = "SpotPrice"


@dataclass(frozen=True)
class MachineOffer:
    """A machine that can be had, and what an hour of it costs.

    price: of an hour, in `currency`. target: what is compiled for it; "" where the file does not
    tell. threads_per_core: how many vCPUs are one core. watts: of the whole machine; None where the
    file does not tell. extra: columns that nothing reads. note: what was assumed.
    """

    name: str
    price: Estimate
    currency: str
    purchase: str
    vcpus: float
    memory_gib: float
    region: str = ""
    provider: str = ""
    target: str = ""
    cpu: str = ""
    threads_per_core: int = 1
    accelerator: str = ""
    accelerator_count: float = 0.0
    commitment: str = ""
    source: str = ""
    date: str = ""
    watts: float | None = None
    extra: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    @property
    def cores(self) -> int:
        """Whole cores; a vCPU that is half of one counts as half."""
        return max(1, int(self.vcpus / self.threads_per_core))

    def instances(self, threads: int, *, device: bool = False) -> int:
        """Runs of so many threads each that find cores at once; device: that have an accelerator
        each instead, of which there is one where the row does not tell."""
        return max(1, int(self.accelerator_count)) if device else self.cores // threads

    @property
    def label(self) -> str:
        """Name, region and purchase, which tell offers apart."""
        return " ".join(filter(None, (self.name, self.region, self.purchase)))


def read_prices(path: Path) -> tuple[MachineOffer, ...]:
    """The offers of a file: of the project's own columns (docs/plan.md), or of SkyPilot's.

    Raises UsageError that names the row and column where something is missing or no number, and
    for offers in several currencies, which cannot be compared.
    """
    columns, rows = csv_rows(path, "price")
    if set(_SKYPILOT) <= set(columns):
        offers = tuple(offer for row in rows for offer in _of_catalogue(row))
    else:
        require_columns(columns, _NEEDED, path, COLUMNS)
        offers = tuple(_own(row) for row in rows)
    if not offers:
        raise UsageError(f"no row of '{path}' has a price")
    currencies = sorted({offer.currency for offer in offers})
    if len(currencies) > 1:
        raise UsageError(
            f"'{path}' has prices in {' and '.join(currencies)}",
            remedy="convert them into one currency, and say at which rate in `source`",
        )
    return offers


def stale_note(offer: MachineOffer, today: date) -> str:
    """What a user is told of the age of a price; "" where it is recent."""
    if not offer.date:
        return f"{offer.label}: the price has no date"
    days = (today - date.fromisoformat(offer.date)).days
    if days < 0:
        return f"{offer.label}: the date of the price, {offer.date}, is in the future"
    return f"{offer.label}: the price is {days} days old" if days > STALE_DAYS else ""


def _own(row: CsvRow) -> MachineOffer:
    purchase = row.text("purchase")
    if purchase not in PURCHASES:
        raise UsageError(
            f"{row.where}: purchase is '{purchase}'", remedy=f"choose from {', '.join(PURCHASES)}"
        )
    when = row.day("date")
    threads = row.number("threads_per_core", 1.0, least=1.0)
    watts = row.number("watts", -1.0)
    own = {name: row.texts.get(name, "") for name in COLUMNS}
    return MachineOffer(
        name=row.text("name"),
        price=_owned(row, when) if purchase == "owned" else _rented(row, when),
        currency=row.text("currency"), purchase=purchase, vcpus=row.number("vcpus", least=0.25),
        memory_gib=row.number("memory_gib", least=0.001), region=own["region"],
        provider=own["provider"], target=own["target"], cpu=own["cpu"],
        threads_per_core=int(threads), accelerator=own["accelerator"],
        accelerator_count=row.number("accelerator_count", 0.0), commitment=own["commitment"],
        source=row.text("source"), date=when, watts=watts if watts > 0 else None,
        extra={n: text for n, text in row.texts.items() if n not in (*COLUMNS, *_OWNED)},
    )  # fmt: skip


def _rented(row: CsvRow, when: str) -> Estimate:
    price = row.number("price_per_hour", least=0.0)
    currency = row.text("currency")
    return given(price, f"{currency}/h", f"{row.text('source')}, {row.where}", when)


def _owned(row: CsvRow, when: str) -> Estimate:
    """(purchase + install) / (life * duty) + watts * tariff, of an hour in which it works.

    duty: share of its life. tariff: of a kWh.
    """
    for name in ("purchase_price", "life_years"):
        row.text(name)
    life = row.number("life_years", least=1e-3) * HOURS_OF_A_YEAR
    duty = row.number("duty", 1.0, least=1e-6)
    if duty > 1:
        raise UsageError(f"{row.where}: duty is {duty}", remedy="give the share of its life")
    invested = row.number("purchase_price") + row.number("install", 0.0)
    power = row.number("watts", 0.0) / 1000 * row.number("tariff", 0.0)
    if row.texts.get("watts") and not row.texts.get("tariff"):
        raise UsageError(f"{row.where}: tariff is missing", remedy="give the price of a kWh")
    method = f"owned: (purchase + install) / (life x duty) + watts x tariff, {row.where}"
    return given(invested / (life * duty) + power, f"{row.text('currency')}/h", method, when)


def _of_catalogue(row: CsvRow) -> list[MachineOffer]:
    """Up to two offers of a row of SkyPilot's: on demand and spot. Its prices are in dollars, and
    it tells neither dates nor cores."""
    found = []
    for column, purchase in (("Price", "ondemand"), (_SKYPILOT_SPOT, "spot")):
        if not row.texts.get(column):
            continue
        known = (*_SKYPILOT, _SKYPILOT_SPOT, "AcceleratorName", "AcceleratorCount")
        method = f"SkyPilot's catalogue, {row.where}"
        found.append(
            MachineOffer(
                name=row.text("InstanceType"), price=given(row.number(column), "USD/h", method),
                currency="USD", purchase=purchase, vcpus=row.number("vCPUs", least=0.25),
                memory_gib=row.number("MemoryGiB", least=0.001), region=row.texts["Region"],
                threads_per_core=2, accelerator=row.texts.get("AcceleratorName", ""),
                accelerator_count=row.number("AcceleratorCount", 0.0), source="SkyPilot",
                extra={name: text for name, text in row.texts.items() if name not in known},
                note="two vCPUs are taken for a core: the catalogue does not tell",
            )
        )  # fmt: skip
    return found
