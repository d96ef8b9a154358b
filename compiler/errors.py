"""Every error that Tensmith raises: what, where, why and what to do; each with its exit code."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

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
    """A schedule, choice or form that is illegal for its kernel or its target."""

    exit_code = 2


class VerificationError(TensmithError):
    """The compiled model disagrees with the reference."""

    exit_code = 4


class BudgetError(TensmithError):
    """A time, memory or accuracy budget that the user gave was not met.

    best: what was found all the same (of an accuracy budget an `Artifact`), or None.
    """

    exit_code = 5
    best: Any = None


class RunError(TensmithError):
    """A compiled model refused to load or to run; `code` is the status of the C interface."""

    def __init__(self, what: str, *, code: int = 1, where: str = "", remedy: str = "") -> None:
        self.code = code
        super().__init__(what, where=where, remedy=remedy)


_FULL = {
    errno.ENOSPC: "free some space, or choose another folder for the output",
    errno.EDQUOT: "free some of your quota, or choose another folder for the output",
    errno.EFBIG: "raise the limit of file sizes (`ulimit -f`)",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.ENFILE: "end programs that hold many files open",
    errno.ENOMEM: "end other programs, or raise the limit of memory",
    errno.EAGAIN: "raise the limit of processes (`ulimit -u`)",
    errno.ENAMETOOLONG: "choose a shorter name",
}
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE)
_KNOBS = "; TENSMITH_WORK_DIR says where intermediate files go, TENSMITH_CACHE_DIR the kept ones"


@contextmanager
def system_refusals(what: str = "the system refused a file") -> Iterator[None]:
    """Turn what the system refuses inside (full disks, missing rights) into a UsageError.

    Other errors, which may be faults of the program, pass.
    """
    try:
        yield
    except OSError as error:
        refusal = system_refusal(error, what)
        if refusal is None:
            raise
        raise refusal from error


def system_refusal(error: OSError, what: str = "the system refused a file") -> UsageError | None:
    """The UsageError for what the system refused, with what to do; None for any other error."""
    partly = error.errno is None and "written" in str(error)  # numpy's, of a full disk
    code = errno.ENOSPC if partly else error.errno or 0
    if code == errno.ENOENT and not error.filename:
        return UsageError("the current folder is not there any more", remedy="change to another")
    if code not in _FULL and code not in _REFUSED:
        return None
    return UsageError(
        what,
        where=str(error.filename or ""),
        why=error.strerror or str(error),
        remedy=_FULL.get(
            code, "give a file or folder that you may read, write and, for programs, execute in"
        )
        + _KNOBS,
    )
