"""What became of a budget, and of every group of products."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...compiler.errors import BudgetError
from .drops import Drop

NO_FASTER = "int8 is no faster"


@dataclass(frozen=True)
class GroupDecision:
    """Products that read one tensor, and what they are computed in.

    precision: "int8" or "fp32". error: noise in the outputs, as a share of them, where the group
    alone is integer. fp32_seconds, int8_seconds: of its products in a run; None: not timed.
    reason: why it stays in floats, "" where it does not.
    """

    data: str
    products: tuple[str, ...]
    precision: str
    error: float
    fp32_seconds: float | None
    int8_seconds: float | None
    reason: str = ""

    @property
    def decibels(self) -> float:
        """How far the noise lies below the outputs."""
        return -10.0 * math.log10(max(self.error, 1e-12)) if math.isfinite(self.error) else -120.0


@dataclass(frozen=True)
class BudgetReport:
    """metric: its name. given: the budget as it was given. limit: in the unit of the metric. drop:
    of what was chosen, in that unit; None: nothing is in lower precision. met: whether that is
    within the limit. evaluations: of whole models. kept: results of an earlier search that were
    taken over. own_data: whether the data are evaluation data, not those of calibration.
    """

    metric: str
    given: str
    limit: float
    drop: Drop | None
    met: bool
    evaluations: int
    kept: int = 0
    own_data: bool = True
    groups: tuple[GroupDecision, ...] = ()

    @property
    def proved(self) -> bool:
        """Whether the data show, with 95 % confidence, that the budget is met."""
        return self.drop is None or self.drop.proves(self.limit)

    def to_json(self) -> dict[str, Any]:
        """The entry of a manifest; what is not finite is null."""
        rows = self.drop.rows_to_prove(self.limit) if self.drop else None
        told: dict[str, Any] = {
            "metric": self.metric,
            "given": self.given,
            "limit": self.limit,
            "met": self.met,
            "proved": self.proved,
            "drop": self.drop.to_json() if self.drop else None,
            "results_to_prove": None if self.proved else rows,
            "evaluations": self.evaluations,
            "own_data": self.own_data,
            "groups": [asdict(group) for group in self.groups],
        }
        found: dict[str, Any] = _finite(told)
        return found

    def summary(self) -> list[str]:
        """Lines for people."""
        lines = [f"budget of {self.given} in {self.metric}: {self._verdict()}"]
        if self.drop is not None and not self.proved:
            lines.append(self._doubt(self.drop))
        if not self.own_data:
            lines.append("no evaluation data: measured on calibration samples, which took part")
        if self.groups:
            integer = sum(group.precision == "int8" for group in self.groups)
            text = f"{integer} of {len(self.groups)} groups of products in int8"
            kept = f", {self.kept} results kept from before" if self.kept else ""
            lines.append(f"{text}, {self.evaluations} evaluations{kept}")
        return lines

    def _verdict(self) -> str:
        if self.drop is None:
            return "met, nothing is in lower precision"
        drop = self.drop
        word = "met" if self.met else "NOT met"
        interval = ""
        if math.isfinite(drop.low) and math.isfinite(drop.high):
            interval = f" ({drop.low:.4g} to {drop.high:.4g} with 90 %)"
        return (
            f"{word}, drop {drop.drop:.4g}{interval} on {drop.rows} results: {drop.score:.6g}, "
            f"fp32 {drop.exact:.6g}"
        )

    def _doubt(self, drop: Drop) -> str:
        rows = drop.rows_to_prove(self.limit)
        if not self.met:
            return f"further data may lose {drop.high:.4g}"
        if rows is None or drop.rows < 2:
            return "the data are too few to prove it: give more samples"
        return (
            f"the data are too few to prove it: further ones may lose {drop.high:.4g}; about "
            f"{rows} results would tell"
        )

    def error(self) -> BudgetError | None:
        """Where the budget is not met."""
        if self.met or self.drop is None:
            return None
        return BudgetError(
            f"the budget of {self.given} in {self.metric} is not met: the best that was found "
            f"loses {self.drop.drop:.4g}, and {self.limit:.4g} is allowed",
            why="no choice of products in lower precision that was evaluated loses less",
            remedy="allow a larger --max-accuracy-drop, calibrate with more and other data, take "
            "--precision bf16, or --precision auto, which takes fp32 where nothing else will do",
        )


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def rows_of(groups: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Cells for a table of the groups of a manifest: those in floats first."""
    ordered = sorted(groups, key=lambda group: group["precision"] == "int8")
    return [
        (
            ", ".join(group["products"]),
            group["precision"],
            group["reason"],
            "?" if group["error"] is None else f"{10 * math.log10(max(group['error'], 1e-12)):.1f}",
            *(
                "" if group[name] is None else f"{group[name] * 1e6:.1f}"
                for name in ("fp32_seconds", "int8_seconds")
            ),
        )
        for group in ordered
    ]
