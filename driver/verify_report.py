"""What a verification found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..compiler.errors import BudgetError, TensmithError, VerificationError
from .compare import Difference
from .roundings import RoundingSpread

PASSED, FAILED, INCOMPLETE = "passed", "failed", "incomplete"


@dataclass
class VerifyReport:
    """The answer. status: "passed", "failed" or "incomplete" (which is never a success).

    trials: differences of every comparison made. reason: why it failed or is incomplete.
    unusable: inputs that the other side refused, and why. refusals: inputs that it took and the
    compiled model refused (sizes of symbolic dims that do not fit together, as a rule). draws:
    sizes and seed of the random inputs compared, those that fail last. opinion: what another engine
    says of the same inputs, where one was asked (`second_opinion.py`). precision_error: against the
    model in fp32, which nothing judges. spreads: how far roundings move outputs, by the number of
    the trial that asked (`roundings.py`).
    """

    status: str
    against: str
    reason: str = ""
    trials: list[list[Difference]] = field(default_factory=list)
    seconds: float = 0.0
    unusable: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    draws: list[tuple[Mapping[str, int], int]] = field(default_factory=list)
    opinion: VerifyReport | None = None
    precision_error: VerifyReport | None = None
    spreads: dict[int, Mapping[str, RoundingSpread]] = field(default_factory=dict)

    @property
    def roundings(self) -> float:
        """How far roundings alone may move results, where a difference needed that to agree."""
        return max((d.roundings for trial in self.trials for d in trial), default=0.0)

    @property
    def disputed(self) -> bool:
        """Whether it agrees with the reference and not with another engine."""
        return self.status == PASSED and bool(self.opinion and self.opinion.status == FAILED)

    @property
    def max_abs(self) -> float:
        """The largest absolute difference seen."""
        return max((d.max_abs for trial in self.trials for d in trial), default=0.0)

    @property
    def max_share(self) -> float:
        """The largest difference seen, as a share of the largest element of its output."""
        trials = (d for trial in self.trials for d in trial if d.peak)
        return max((d.max_abs / d.peak for d in trials), default=0.0)

    def summary(self) -> str:
        """One line for people."""
        count = len(self.trials)
        done = f"{count} input set{'s' * (count != 1)}"
        if self.disputed and self.opinion:
            return (
                f"DISPUTED: agrees with the {self.against}, but {self.opinion.against} says "
                f"otherwise: {self.opinion.reason}"
            )
        if self.status == PASSED:
            sides = self.against
            if self.opinion and self.opinion.status == PASSED:
                sides += f" and {self.opinion.against}"
            text = f"verified against {sides}: {done}, max |a-b| {self.max_abs:.3g}"
            if self.roundings:
                text += f" (roundings alone: {self.roundings:.3g})"
            if self.precision_error:
                text += f"; up to {self.precision_error.max_share:.2%} of the peak away from fp32"
            return text
        if self.status == FAILED:
            return f"verification against {self.against} FAILED: {self.reason}"
        agreed = f"; {done} agreed" if count else ""
        return f"NOT VERIFIED: {self.reason}{agreed}"

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "status": self.status,
            "against": self.against,
            "reason": self.reason,
            "max_abs": self.max_abs,
            "seconds": self.seconds,
            "refusals": self.refusals,
            "trials": [[asdict(difference) for difference in trial] for trial in self.trials],
            "opinion": self.opinion.to_json() if self.opinion else None,
            "precision_error": self.precision_error.to_json() if self.precision_error else None,
        }

    def error(self) -> TensmithError | None:
        """VerificationError when it failed or is disputed, BudgetError when it is incomplete."""
        if self.status == FAILED:
            return VerificationError(
                f"the compiled model disagrees with {self.against}", why=self.reason
            )
        if self.status == INCOMPLETE:
            return BudgetError("the verification was not completed", why=self.reason)
        if self.disputed and self.opinion:
            other = self.opinion.against
            return VerificationError(
                f"the compiled model agrees with the {self.against}, but not with {other}",
                why=f"{self.opinion.reason}; one of the two reads the standard differently",
                remedy="find out which is right for the model (`tensmith reduce` makes it small); "
                "TENSMITH_SECOND_OPINION=off asks nobody else",
            )
        return None

    def raise_if_failed(self) -> None:
        """Raise VerificationError for a report of status "failed"."""
        error = self.error()
        if self.status == FAILED and error is not None:
            raise error
