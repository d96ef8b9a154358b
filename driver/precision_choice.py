"""In which precision a model was compiled, and why in that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class PrecisionChoice:
    """In which precision a model was compiled, of those that were looked at.

    asked: by the request. kept: that of the binary. reason: why it is another, or why nothing was
    timed. seconds: of a run on this machine, by precision.
    """

    asked: str
    kept: str
    reason: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """With seconds, which manifests do not hold."""
        return asdict(self)

    def in_manifest(self) -> dict[str, Any]:
        """What every compilation finds again."""
        return {"asked": self.asked, "kept": self.kept, "reason": self.reason}

    def summary(self) -> str:
        """A line for people."""
        if not self.seconds:
            return f"{self.kept}, {self.reason}"
        told = ", ".join(f"{name} {s * 1e3:.4g} ms" for name, s in self.seconds.items())
        reason = f" ({self.reason})" if self.reason else ""
        return f"timed in turns: {told}; {self.kept} is kept{reason}"
