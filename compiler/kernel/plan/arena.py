"""Memory planning: offsets in one arena for tensors whose lifetimes are intervals of steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

from ...ir.dims import Dim, ceildiv, dmax, estimate, evaluate, is_nonnegative
from .plan import ALIGNMENT, ArenaBuffer

NOMINAL = 64  # assumed value of a symbol where sizes are compared


def assign_offsets(buffers: list[ArenaBuffer]) -> Dim:
    """Set the offset of every buffer; returns the arena's size in bytes.

    Buffers of known size are placed one by one, each at the lowest offset that is free throughout
    its lifetime; of several orders (greedy by size, Pisarchyk and Lee 2020, arXiv:2001.03288; by
    size times lifetime; by time) the one with the smallest arena is kept. Behind them lie slots
    for buffers of symbolic size; buffers share a slot one after another, and it is as large as
    the largest of them.
    """
    total: Dim = _place_static([b for b in buffers if isinstance(b.size, int)])
    for slot in _slots([b for b in buffers if not isinstance(b.size, int)]):
        for buffer in slot.buffers:
            buffer.offset = total
        total = total + slot.bytes
    return total


def lower_bound(buffers: list[ArenaBuffer]) -> int:
    """Most bytes that buffers of known size need at one step; no arena can be smaller."""
    static = [b for b in buffers if isinstance(b.size, int)]
    return max(
        (sum(_rounded(b) for b in static if b.first <= step <= b.last)
         for step in {b.first for b in static}),
        default=0,
    )  # fmt: skip


def live_bytes(buffers: list[ArenaBuffer], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """Bytes of tensors that are alive at each step, for sizes of the inputs' symbols.

    Raises InternalError where only a run knows a size.
    """
    last = max((buffer.last for buffer in buffers), default=-1)
    found = [0] * (last + 1)
    for buffer in buffers:
        size = evaluate(buffer.size, sizes)
        for step in range(buffer.first, buffer.last + 1):
            found[step] += size
    return tuple(found)


# buffers of symbolic size ------------------------------------------------------------------


@dataclass
class _Slot:
    """Memory for buffers one after another. sizes: none of them is certainly covered by another."""

    sizes: list[Dim]
    buffers: list[ArenaBuffer]

    def add(self, buffer: ArenaBuffer) -> None:
        self.buffers.append(buffer)
        if any(is_nonnegative(size - buffer.size) for size in self.sizes):
            return
        self.sizes = [s for s in self.sizes if not is_nonnegative(buffer.size - s)]
        self.sizes.append(buffer.size)

    @property
    def bytes(self) -> Dim:
        size = reduce(dmax, self.sizes)
        return ceildiv(size, ALIGNMENT) * ALIGNMENT


def _slots(buffers: list[ArenaBuffer]) -> list[_Slot]:
    """Slots for all buffers, those that are probably large first."""
    nominal = {id(b): estimate(b.size, NOMINAL) for b in buffers}
    slots: list[_Slot] = []
    for buffer in sorted(buffers, key=lambda b: (-nominal[id(b)], b.first)):
        free = [s for s in slots if not any(_overlap(buffer, other) for other in s.buffers)]
        if not free:
            free = [_Slot([], [])]
            slots += free
        slot = next((s for s in free if buffer.size in s.sizes), free[-1])
        slot.add(buffer)
    return slots


# buffers of known size ---------------------------------------------------------------------


def _overlap(a: ArenaBuffer, b: ArenaBuffer) -> bool:
    return a.first <= b.last and b.first <= a.last


def _rounded(buffer: ArenaBuffer) -> int:
    size = buffer.size if isinstance(buffer.size, int) else 0
    return -(-size // ALIGNMENT) * ALIGNMENT


_ORDERS: tuple[Callable[[ArenaBuffer], tuple[int, ...]], ...] = (
    lambda b: (-_rounded(b), b.first),
    lambda b: (-_rounded(b) * (b.last - b.first + 1), b.first),
    lambda b: (b.first, -_rounded(b)),
)


def _place_static(buffers: list[ArenaBuffer]) -> int:
    """Place buffers of known size; returns the end of the highest."""
    best: list[int] = []
    best_end = -1
    for order in _ORDERS:
        offsets, end = _place_in_order(
            buffers, sorted(range(len(buffers)), key=lambda n: order(buffers[n]))
        )
        if best_end < 0 or end < best_end:
            best, best_end = offsets, end
    for buffer, offset in zip(buffers, best, strict=True):
        buffer.offset = offset
    return best_end


def _place_in_order(buffers: list[ArenaBuffer], order: list[int]) -> tuple[list[int], int]:
    """(offset of every buffer, end of the highest) when placed in the order given."""
    offsets = [0] * len(buffers)
    placed: list[int] = []
    total = 0
    for number in order:
        buffer, offset = buffers[number], 0
        size = _rounded(buffer)
        busy = sorted(
            (offsets[n], _rounded(buffers[n])) for n in placed if _overlap(buffer, buffers[n])
        )
        for start, length in busy:
            if offset + size <= start:
                break
            offset = max(offset, start + length)
        offsets[number] = offset
        placed.append(number)
        total = max(total, offset + size)
    return offsets, total
