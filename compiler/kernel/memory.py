"""Memory planning: offsets in one arena for tensors whose lifetimes are intervals of steps."""

from __future__ import annotations

from ..ir.dims import Dim, ceildiv
from .plan import ALIGNMENT, ArenaBuffer


def assign_offsets(buffers: list[ArenaBuffer]) -> Dim:
    """Set the offset of every buffer; returns the arena's size in bytes.

    Buffers of known size are placed first, largest first, each at the lowest offset that is free
    throughout its lifetime (greedy by size, Pisarchyk and Lee 2020, arXiv:2001.03288). Buffers of
    symbolic size follow in slots that are shared by buffers of equal size.
    """
    static = [b for b in buffers if isinstance(b.size, int)]
    total: Dim = _place_static(static)
    slots: list[tuple[Dim, Dim, int]] = []  # size, offset, last step in use
    for buffer in sorted((b for b in buffers if not isinstance(b.size, int)), key=_first):
        for number, (size, offset, busy) in enumerate(slots):
            if size == buffer.size and busy < buffer.first:
                buffer.offset = offset
                slots[number] = (size, offset, buffer.last)
                break
        else:
            buffer.offset = total
            slots.append((buffer.size, total, buffer.last))
            total = total + ceildiv(buffer.size, ALIGNMENT) * ALIGNMENT
    return total


def _first(buffer: ArenaBuffer) -> int:
    return buffer.first


def _size(buffer: ArenaBuffer) -> int:
    return buffer.size if isinstance(buffer.size, int) else 0


def _place_static(buffers: list[ArenaBuffer]) -> int:
    placed: list[ArenaBuffer] = []
    total = 0
    for buffer in sorted(buffers, key=lambda b: (-_size(b), b.first)):
        rounded = -(-_size(buffer) // ALIGNMENT) * ALIGNMENT
        overlapping = [p for p in placed if p.first <= buffer.last and buffer.first <= p.last]
        offset = 0
        for other in sorted(overlapping, key=lambda p: int(p.offset)):  # type: ignore[arg-type]
            start = int(other.offset)  # type: ignore[arg-type]
            if offset + rounded <= start:
                break
            end = start + -(-_size(other) // ALIGNMENT) * ALIGNMENT
            offset = max(offset, end)
        buffer.offset = offset
        placed.append(buffer)
        total = max(total, offset + rounded)
    return total
