"""What became of contractions in a lower precision, and why not more, for reports."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Decision:
    """What a contraction, or a table, has become.

    name: of the node. op: its operator. precision: "int8", "int32", "bf16", "fp16", "bf16 weights",
    "fp16 weights" or "fp32". reason: why it stays as it is, "" where it does not.
    """

    name: str
    op: str
    precision: str
    reason: str = ""


Note = Callable[[Decision], None]
