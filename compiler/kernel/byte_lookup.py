"""How bytes are looked up in tables of 256: what each kind of hardware has for that, and its cost.

permute: two registers of 64 bytes as a table of 128 (VPERMI2B; Intel SDM vol. 2). shuffle: tables
of 16 bytes, one for each high half of a byte, whose results are put together (PSHUFB). tbl: four
registers as a table of 64 (Arm Architecture Reference Manual, TBL). Elsewhere every byte is loaded.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Lookup:
    """name: of the instruction, as targets have it. width: bytes that one step takes. operations:
    of a step, in instructions."""

    name: str
    width: int
    operations: float


# The first that a target has is taken. Shuffles: measured on one Zen 5 core, beside products and
# conversions of f32 (the sixteen steps are 64 instructions in name, of which LLVM joins some).
LOOKUPS = (
    Lookup("vpermi2b", 64, 5.0),
    Lookup("vpshufb512", 64, 34.0),
    Lookup("vpshufb256", 32, 34.0),
    Lookup("tbl", 16, 11.0),
)
BY_LOADS = Lookup("", 1, 3.0)


def lookup_for(available: Collection[str]) -> Lookup:
    """The best way of a target whose instructions are named."""
    return next((item for item in LOOKUPS if item.name in available), BY_LOADS)


def lookup_operations(lanes: int, available: Collection[str]) -> float:
    """Instructions that look up so many bytes."""
    chosen = lookup_for(available)
    return -(-lanes // chosen.width) * chosen.operations
