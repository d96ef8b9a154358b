"""What an error inside the compiler is about: the node that was being worked on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .errors import InternalError, TensmithError
from .ir.graph import Node
from .kernel.kernel import Kernel


def internal_error(what: str, error: Exception) -> InternalError:
    """An InternalError for an error that some stage of the compiler met.

    Its `where` is that of the error, else the node or kernel that the innermost function had at
    hand.
    """
    if isinstance(error, TensmithError):
        why = f"{error.what}: {error.why}" if error.why else error.what
        return InternalError(what, where=error.where or _place(error), why=why)
    return InternalError(what, where=_place(error), why=f"{type(error).__name__}: {error}")


def name_at_fault(error: BaseException) -> str:
    """The name of the innermost node at hand that has one, which is a node of the model; or ""."""
    nodes = (found for found in _at_hand(error) if isinstance(found, Node))
    return next((node.name for node in nodes if node.name), "")


def _place(error: BaseException) -> str:
    found = next(_at_hand(error), None)
    if isinstance(found, Kernel):
        return f"kernel '{found.name}' ({' '.join(found.operators)})"
    if found is None:
        return ""
    return f"{found.op} '{found.name}' ({', '.join(str(v.type) for v in found.inputs[:6])})"


def _at_hand(error: BaseException) -> Iterator[Node | Kernel]:
    """What functions of the traceback (of the error's causes first) hold in a variable called
    `node` or `kernel`, the innermost first: passes, lowering and emission work on one at a time."""
    if error.__cause__ is not None:
        yield from _at_hand(error.__cause__)
    held: list[Any] = []
    trace = error.__traceback__
    while trace is not None:
        held += [trace.tb_frame.f_locals.get(name) for name in ("kernel", "node")]
        trace = trace.tb_next
    yield from (found for found in reversed(held) if isinstance(found, Node | Kernel))
