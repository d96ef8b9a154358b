"""Numbers that say where they come from: what was measured is never blended with a guess."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import product
from typing import Any

MARK = "~"  # in front of what is modelled


class Provenance(StrEnum):
    """measured: on a machine that is named. modelled: computed from a model of one. given: told by
    the user (a price, a load)."""

    MEASURED = "measured"
    MODELLED = "modelled"
    GIVEN = "given"


class MixedEstimatesError(TypeError):
    """Arithmetic on numbers of different kinds, units or machines, which nobody has allowed."""


@dataclass(frozen=True)
class Estimate:
    """A number with its unit and origin.

    method: how it was found, in a phrase. interval: bounds at 95 %, None where none is known.
    machine: where it was measured, or for which it was modelled. date: ISO 8601, of the measurement
    or source. Sums, differences and comparisons are of one kind, unit and machine; numbers scale
    any. Whatever joins kinds goes through `combined`, which names them all.
    Raises ValueError for a number or bounds that are NaN, and bounds that do not hold the number.
    """

    value: float
    unit: str
    kind: Provenance
    method: str
    interval: tuple[float, float] | None = None
    machine: str = ""
    date: str = ""

    def __post_init__(self) -> None:
        low, high = self.interval or (self.value, self.value)
        if not low <= self.value <= high:
            raise ValueError(f"the interval {low} .. {high} does not hold {self.value}")

    @property
    def low(self) -> float:
        """The lower bound, or the number."""
        return self.interval[0] if self.interval else self.value

    @property
    def high(self) -> float:
        """The upper bound, or the number."""
        return self.interval[1] if self.interval else self.value

    def __add__(self, other: Estimate) -> Estimate:
        self._like(other)
        return self._joined(other, self.value + other.value, self.low + other.low,
                            self.high + other.high)  # fmt: skip

    def __sub__(self, other: Estimate) -> Estimate:
        self._like(other)
        return self._joined(other, self.value - other.value, self.low - other.high,
                            self.high - other.low)  # fmt: skip

    def __mul__(self, factor: float) -> Estimate:
        self._number(factor)
        ends = None if self.interval is None else (self.low * factor, self.high * factor)
        interval = None if ends is None else (min(ends), max(ends))
        return replace(self, value=self.value * factor, interval=interval)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Estimate:
        self._number(divisor)
        return self * (1.0 / divisor)

    def __lt__(self, other: Estimate) -> bool:
        self._like(other)
        return self.value < other.value

    def __le__(self, other: Estimate) -> bool:
        self._like(other)
        return self.value <= other.value

    def _number(self, factor: object) -> None:
        if isinstance(factor, Estimate):
            raise MixedEstimatesError(
                f"{self.unit} and {factor.unit} make another unit: name it, in `combined`"
            )

    def _like(self, other: Estimate) -> None:
        for name in ("kind", "unit", "machine"):
            own, theirs = getattr(self, name), getattr(other, name)
            if own != theirs:
                raise MixedEstimatesError(
                    f"estimates of different {name}: '{own}' and '{theirs}'; `combined` joins them"
                )

    def _joined(self, other: Estimate, value: float, low: float, high: float) -> Estimate:
        known = self.interval is not None or other.interval is not None
        return replace(
            self, value=value, interval=(low, high) if known else None,
            method=_methods((self, other)), date=_oldest((self, other)),
        )  # fmt: skip

    def __format__(self, spec: str) -> str:
        """The number as `spec` says (default .4g), with `~` in front where it is modelled."""
        mark = MARK if self.kind is Provenance.MODELLED else ""
        return f"{mark}{self.value:{spec or '.4g'}}"

    def to_json(self) -> dict[str, Any]:
        """For `plan.json`; what is infinite is null."""
        finite = None if self.interval is None else [_finite(end) for end in self.interval]
        return {
            "value": _finite(self.value), "unit": self.unit, "kind": str(self.kind),
            "method": self.method, "interval": finite, "machine": self.machine, "date": self.date,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Estimate:
        """What `to_json` wrote. Raises ValueError or KeyError for anything else."""
        ends = data["interval"]
        low, high = (None, None) if ends is None else ends
        interval = (
            None
            if ends is None
            else (-math.inf if low is None else low, math.inf if high is None else high)
        )
        value = math.inf if data["value"] is None else float(data["value"])
        return cls(
            value=value,
            unit=data["unit"],
            kind=Provenance(data["kind"]),
            method=data["method"],
            interval=interval,
            machine=data["machine"],
            date=data["date"],
        )


def given(value: float, unit: str, method: str, date: str = "") -> Estimate:
    """What the user told."""
    return Estimate(value, unit, Provenance.GIVEN, method, date=date)


def combined(
    function: Callable[..., float], parts: Sequence[Estimate], unit: str, method: str
) -> Estimate:
    """What a function makes of estimates of any kinds and machines.

    It is modelled where a part is, else measured where a part is, else given. The interval has the
    least and greatest value at the ends of the parts' intervals: the function has to rise or fall
    in each. method: what the function does; those of the parts follow.
    """
    value = function(*(part.value for part in parts))
    interval = None
    if any(part.interval for part in parts):
        ends = [(part.low, part.high) if part.interval else (part.value,) for part in parts]
        found = [value, *(function(*corner) for corner in product(*ends))]
        interval = (min(found), max(found))
    kinds = {part.kind for part in parts}
    order = (Provenance.MODELLED, Provenance.MEASURED, Provenance.GIVEN)
    kind = next(kind for kind in order if kind in kinds)
    machines = dict.fromkeys(part.machine for part in parts if part.machine)
    return Estimate(
        value, unit, kind, f"{method}: {_methods(parts)}", interval, ", ".join(machines),
        _oldest(parts),
    )  # fmt: skip


def machines_of(estimates: Iterable[Estimate]) -> tuple[str, ...]:
    """The machines that numbers are of, in order: a table that ranks those of several says so."""
    return tuple(dict.fromkeys(own.machine for own in estimates if own.machine))


def _methods(parts: Sequence[Estimate]) -> str:
    texts = dict.fromkeys(f"{part.method} ({part.kind})" if part.method else "" for part in parts)
    return ", ".join(filter(None, texts))


def _oldest(parts: Sequence[Estimate]) -> str:
    return min((part.date for part in parts if part.date), default="")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
