"""What became of contractions in a lower precision, and why not more, for reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

FP32 = "fp32"


@dataclass(frozen=True)
class Decision:
    """What a contraction, or a table, has become.

    name: of the node. op: its operator. precision: "int8", "int32", "bf16", "fp16", "bf16 weights",
    "fp16 weights", "int8 weights", "int4 weights", "int2 weights" or "fp32". reason: why it stays
    as it is, "" where it does not.
    """

    name: str
    op: str
    precision: str
    reason: str = ""


def not_in_floats(name: str, compiled: Sequence[Decision]) -> Decision | None:
    """What code generation has made of a product that was left in floats before, because the model
    says itself how its operands are stored; None where it computes in floats."""
    return next((made for made in compiled if made.name == name and made.precision != FP32), None)


def with_compiled(told: Sequence[Decision], compiled: Sequence[Decision]) -> list[Decision]:
    """Decisions that were taken before code generation, and after them those about products that
    these do not name; what code generation makes of products left in floats counts."""
    rows = [(not_in_floats(d.name, compiled) or d) if d.precision == FP32 else d for d in told]
    named = {row.name for row in rows}
    return [*rows, *(made for made in compiled if made.name not in named)]


@dataclass(frozen=True)
class Saving:
    """Arithmetic that a pass has saved.

    by: the pass. name, op: of the node that does less. before, after: operations and bytes, as the
    pass counts them. reason: why the result is the same.
    """

    by: str
    name: str
    op: str
    before: float
    after: float
    reason: str


Note = Callable[[Decision], None]
Told = Callable[[Saving], None]


def tell(note: Note | None, found: Iterable[Decision]) -> None:
    """Tell of decisions, each once, if anybody wants to know; they are not looked for otherwise."""
    for told in dict.fromkeys(found) if note else ():
        if note:
            note(told)
