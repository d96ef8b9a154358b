"""What a session tells those who watch it: a screen, a line now and then, lines of JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

STARTED, WAVE, BUILT, TURN, VERDICT = "started", "wave", "built", "turn", "verdict"
MODEL, STOPPING, FINISHED, WORKER = "model", "stopping", "finished", "worker"


@dataclass(frozen=True)
class Event:
    """Something that happened. kind: one of the words above. task: its key, or "". spent: seconds
    of the budget that were used, and trials. data: by kind, values that JSON can hold."""

    kind: str
    task: str = ""
    spent: float = 0.0
    trials: int = 0
    data: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


Listener = Callable[[Event], None]
