"""Watches what may run at the same time: DMA transfers, operations, and blocks of two operations.

A transfer runs beside everything until a DMA_WAIT, or until its queue is full; here it moves its
bytes only then, so that what does not wait for it sees what was there before. An operation may be
unfinished until a KERNEL_WAIT, or until as many follow as its queue holds. Of two operations in
succession the first blocks of the later one overlap with the last ones of the earlier one as far as
BLOCKDEP lets them: block i of the later one, and the j-th last of the earlier one, where i + j is
less than it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .byte_ranges import ByteRanges, union
from .npu_hardware import NpuHardware
from .npu_operation import Footprint
from .violations import Rule, SimulationError


@dataclass(frozen=True)
class BlockAccess:
    """What an operation reads in its first blocks and writes in its last ones, from the end."""

    footprint: Footprint
    first_reads: Callable[[int], Sequence[ByteRanges]]
    last_writes: Callable[[int], Sequence[ByteRanges]]


@dataclass(frozen=True)
class DmaTransfer:
    """A DMA transfer that was started. move: does it."""

    footprint: Footprint
    move: Callable[[], None]


class Hazards:
    """The queues of the NPU. Raises SimulationError where a stream should have waited."""

    def __init__(self, hardware: NpuHardware) -> None:
        self.hardware = hardware
        self.transfers: deque[DmaTransfer] = deque()
        self.operations: deque[BlockAccess] = deque(maxlen=hardware.kernel_queue)
        self.last: BlockAccess | None = None
        self.before: BlockAccess | None = None  # the operation in front of the last one

    def start_transfer(self, transfer: DmaTransfer) -> None:
        """A DMA_START: nothing that is unfinished may conflict with it."""
        self._check_transfers(transfer.footprint)
        for operation in self.operations:
            _check(transfer.footprint, operation.footprint, Rule.MISSING_KERNEL_WAIT)
        if len(self.transfers) == self.hardware.dma_queue:
            self.wait_for_transfers(self.hardware.dma_queue - 1)
        self.transfers.append(transfer)

    def start_operation(
        self, operation: BlockAccess, blockdep: int, continues: bool = False
    ) -> None:
        """An operation that begins, with its BLOCKDEP; one that continues a chain is part of it."""
        self._check_transfers(operation.footprint)
        if not continues:
            self.before = self.last
        if self.before is not None and blockdep:
            _check_blocks(self.before, operation, blockdep)
        if continues and self.last is not None:
            self.operations.pop()
            operation = _chained(self.last, operation)
        self.operations.append(operation)
        self.last = operation

    def wait_for_transfers(self, left: int = 0) -> None:
        """DMA_WAIT: at most so many transfers are unfinished."""
        while len(self.transfers) > left:
            self.transfers.popleft().move()

    def wait_for_operations(self, left: int = 0) -> None:
        """KERNEL_WAIT: at most so many operations are unfinished."""
        while len(self.operations) > left:
            self.operations.popleft()
        if not left:
            self.last = None

    def _check_transfers(self, footprint: Footprint) -> None:
        for transfer in self.transfers:
            _check(footprint, transfer.footprint, Rule.MISSING_DMA_WAIT)


def _chained(first: BlockAccess, second: BlockAccess) -> BlockAccess:
    """Two operations whose blocks alternate, as one; only the last one of a chain writes."""
    one, other = first.footprint, second.footprint
    footprint = Footprint(
        one.position,
        f"{one.what}, {other.what}",
        union([one.reads, other.reads]),
        union([one.writes, other.writes]),
        union([one.internal_reads, other.internal_reads]),
        union([one.internal_writes, other.internal_writes]),
    )
    return BlockAccess(footprint, first.first_reads, second.last_writes)


def _check(later: Footprint, earlier: Footprint, rule: Rule) -> None:
    pairs = (
        (later.reads, earlier.writes),
        (later.writes, earlier.reads),
        (later.writes, earlier.writes),
        (later.internal_reads, earlier.internal_writes),
        (later.internal_writes, earlier.internal_reads),
        (later.internal_writes, earlier.internal_writes),
    )
    if any(one.common(other) is not None for one, other in pairs):
        raise SimulationError(
            rule, f"{later.what}, and {earlier.what} of word {earlier.position}", later.position
        )


def _check_blocks(earlier: BlockAccess, later: BlockAccess, blockdep: int) -> None:
    """Whether the blocks that may overlap do not touch the same bytes."""
    before, now = earlier.footprint, later.footprint
    if before.internal_reads.common(now.internal_writes) is not None:
        raise SimulationError(
            Rule.BLOCKDEP,
            f"{now.what} may overwrite the lookup table of word {before.position}",
            now.position,
        )
    if now.reads.common(before.writes) is None:
        return
    reads, writes = later.first_reads(blockdep), earlier.last_writes(blockdep)
    for i, read in enumerate(reads):
        for j, written in enumerate(writes[: blockdep - i]):
            if read.common(written) is not None:
                raise SimulationError(
                    Rule.BLOCKDEP,
                    f"{blockdep}, but block {i} of {now.what} reads what block {j} from the end "
                    f"of {before.what} of word {before.position} writes: {i + j} would do",
                    now.position,
                )
