"""Every error that Tensmith raises: what, where, why and what to do; each with its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

REPORT = "`tensmith reduce MODEL` makes a small model that shows it: please report that"


class TensmithError(Exception):
    """Base of all errors. `exit_code` is what the command line ends with.

    what: one sentence. where: node, operator, shape, stage. why: the cause. remedy: what to do.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        self.what, self.where, self.why, self.remedy = what, where, why, remedy
        super().__init__(self.render())

    def render(self) -> str:
        """The whole message, one line per part that is present."""
        parts = [self.what]
        for label, text in (("where", self.where), ("why", self.why), ("remedy", self.remedy)):
            if text:
                parts.append(f"  {label}: {text}")
        return "\n".join(parts)


class ModelWarning(UserWarning):
    """What a model says and does not hold, or what was decided for it."""


class InternalError(TensmithError):
    """A broken invariant of the compiler itself (a bug of Tensmith, not of the model)."""


class UsageError(TensmithError):
    """A wrong argument, a file that is not there, a model file that is malformed."""

    exit_code = 2


class InvalidModelError(UsageError):
    """The model file is malformed: truncated, cyclic, inconsistent, or absurd in size."""


@dataclass(frozen=True)
class Unsupported:
    """One node that cannot be compiled, and why."""

    node: str
    op: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        text = f"{self.op} '{self.node}': {self.reason}"
        return f"{text} ({self.remedy})" if self.remedy else text


class UnsupportedError(TensmithError):
    """Some nodes cannot be compiled for the target; `items` names every one of them."""

    exit_code = 3

    def __init__(self, items: Sequence[Unsupported], *, where: str = "", remedy: str = "") -> None:
        self.items = tuple(items)
        noun = "node is" if len(self.items) == 1 else "nodes are"
        what = f"{len(self.items)} {noun} not supported:\n" + "\n".join(
            f"  - {item}" for item in self.items
        )
        super().__init__(what, where=where, remedy=remedy)


class ScheduleError(TensmithError):
    """A schedule that is illegal for its kernel or its target."""


class VerificationError(TensmithError):
    """The compiled model disagrees with the reference."""

    exit_code = 4


class BudgetError(TensmithError):
    """A time, memory or accuracy budget that the user gave was not met."""

    exit_code = 5


class RunError(TensmithError):
    """A compiled model refused to load or to run; `code` is the status of the C interface."""

    def __init__(self, what: str, *, code: int = 1, where: str = "", remedy: str = "") -> None:
        self.code = code
        super().__init__(what, where=where, remedy=remedy)
