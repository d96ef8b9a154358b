"""How many calls come: a rate, or a trace of rates; and the carbon of a kilowatt-hour."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from ..errors import UsageError
from .csv_rows import CsvRow, csv_rows, require_columns
from .estimate import Estimate, given

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
INTERVALS, MINUTE = 10, 60.0  # of a trace of requests: at least so many, of a minute at most
_FORM = re.compile(r"\s*(\d+(?:\.\d*)?(?:e\d+)?|\.\d+)\s*(?:/\s*([a-z]+))?\s*")


@dataclass(frozen=True)
class OfferedLoad:
    """Calls per second: how many on average, and at the peak that has to be served.

    rates: of intervals that are equally long; one where there is no trace. method: where from.
    keys: of requests in their order, where a trace names them: equal ones are equal inputs.
    """

    rates: tuple[float, ...]
    method: str
    keys: tuple[str, ...] = ()

    @property
    def mean(self) -> float:
        """Calls per second over all intervals."""
        return float(np.mean(self.rates))

    @property
    def peak(self) -> float:
        """Calls per second in the busiest interval."""
        return max(self.rates)

    def scaled(self, factor: float) -> OfferedLoad:
        """So many times as many calls."""
        return replace(self, rates=tuple(rate * factor for rate in self.rates))


def load_of(text: str) -> OfferedLoad:
    """What "200/s", "12000/min" or "3e6/d" says; a number alone is one of calls per second.

    Raises UsageError for anything else, and for no calls.
    """
    found = _FORM.fullmatch(text)
    seconds = _SECONDS.get(found[2] or "s") if found else None
    if not found or seconds is None or float(found[1]) <= 0:
        raise UsageError(f"'{text}' is no load", remedy="write calls per time: 200/s, 12000/min")
    return OfferedLoad((float(found[1]) / seconds,), f"--load {text}, arrivals by chance (Poisson)")


def read_trace(path: Path) -> OfferedLoad:
    """A CSV file with the columns `seconds` (when an interval begins, in equal steps) and `rate`
    (calls per second in it); or, of single requests, `seconds` and `key`, which is the same where
    the input is: rates are then those of intervals of a minute, of a tenth of a shorter trace.

    Raises UsageError that names the row where there is no number, or time does not go on equally.
    """
    columns, rows = csv_rows(path, "trace")
    if "key" in columns:
        return _requests(path, rows)
    require_columns(columns, ("seconds", "rate"), path, ("seconds", "rate"))
    starts = [row.number("seconds") for row in rows]
    rates = [row.number("rate") for row in rows]
    steps = [after - before for before, after in pairwise(starts)]
    for row, step in zip(rows[1:], steps, strict=True):
        if step <= 0 or abs(step - steps[0]) > 1e-6 * steps[0]:
            raise UsageError(
                f"{row.where}: {step:g} s after the row before, and the first two are "
                f"{steps[0]:g} s apart",
                remedy="give a row for every interval, all equally long",
            )
    if max(rates) <= 0:
        raise UsageError(f"the trace '{path}' has no calls: every rate is 0")
    return OfferedLoad(tuple(rates), f"trace '{path.name}', within intervals by chance (Poisson)")


def _requests(path: Path, rows: Sequence[CsvRow]) -> OfferedLoad:
    """The load of single requests."""
    moments = [row.number("seconds") for row in rows]
    for row, (before, after) in zip(rows[1:], pairwise(moments), strict=True):
        if after < before:
            raise UsageError(f"{row.where}: time goes back", remedy="sort the rows by seconds")
    span = moments[-1] - moments[0]
    if span <= 0:
        raise UsageError(f"the trace '{path}' takes no time", remedy="give a longer one")
    count = max(INTERVALS, round(span / MINUTE))
    found, _ = np.histogram(moments, count, (moments[0], moments[-1]))
    rates = tuple((found * count / span).tolist())
    method = f"trace '{path.name}' of {len(rows)} requests, within intervals by chance (Poisson)"
    return OfferedLoad(rates, method, tuple(row.text("key") for row in rows))


def read_carbon(path: Path) -> dict[str, Estimate]:
    """Grams of CO2 for a kWh by region, of a CSV file with the columns `region`, `grams_per_kwh`
    and, if known, `source` and `date`.

    Raises UsageError that names the row where there is no number or a region twice.
    """
    columns, rows = csv_rows(path, "carbon")
    needed = ("region", "grams_per_kwh")
    require_columns(columns, needed, path, (*needed, "source", "date"))
    found: dict[str, Estimate] = {}
    for row in rows:
        region = row.text("region")
        if region in found:
            raise UsageError(f"{row.where}: the region '{region}' has a row before")
        method = ", ".join(filter(None, (row.texts.get("source", ""), row.where)))
        when = row.day("date") if row.texts.get("date") else ""
        found[region] = given(row.number("grams_per_kwh"), "g/kWh", method, when)
    return found
