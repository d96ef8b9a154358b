"""DMA transfers: what their registers say, what they touch, and the copying."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from .block_traffic import moved
from .byte_ranges import NO_BYTES, ByteRanges, extent, run, strided, union
from .hazards import DmaTransfer
from .npu_hardware import NpuHardware
from .npu_operation import Footprint
from .region_memory import Bytes, RegionMemory
from .register_file import RegisterFile
from .violations import Rule, SimulationError

_INDEX_BYTES = 4
_MOST_BYTES = 1 << 32  # of one transfer


@dataclass(frozen=True)
class IndexTable:
    """Numbers of 32 bits in memory that say where runs are; most: the largest that there may be.

    skip: bytes between the rows of numbers.
    """

    region: int
    start: int
    most: int
    skip: int


@dataclass(frozen=True)
class TransferEnd:
    """Source or destination: runs of bytes from `start`, at i * stride0 + j * stride1.

    indices: of runs, in place of i.
    """

    internal: bool
    region: int
    start: int
    strides: tuple[int, int]
    indices: IndexTable | None = None


@dataclass(frozen=True)
class TransferShape:
    """size0 * size1 runs of `length` bytes each."""

    length: int
    size0: int = 1
    size1: int = 1

    def axes(self, end: TransferEnd) -> list[tuple[int, int]]:
        """Counts and strides of the runs of an end, as many as there may be."""
        count = end.indices.most + 1 if end.indices else self.size0
        return [(count, end.strides[0]), (self.size1, end.strides[1])]

    def index_extent(self, indices: IndexTable) -> tuple[int, int]:
        """Where the indices begin and end."""
        row = self.size0 * _INDEX_BYTES
        return extent(indices.start, [(self.size1, row + indices.skip)], row)


def u55_transfer(
    registers: RegisterFile, hardware: NpuHardware
) -> tuple[TransferShape, TransferEnd, TransferEnd]:
    """Shape, source and destination of a transfer of the Ethos-U55 and -U65."""
    mode = registers.field("DMA0_DST_REGION", "stride_mode")
    source_mode = registers.field("DMA0_SRC_REGION", "stride_mode")
    if hardware.product == "u55" and (mode or source_mode):
        registers.fail(Rule.REGISTER_VALUE, "the Ethos-U55 has transfers of one dimension only")
    if source_mode:
        registers.fail(Rule.NOT_SIMULATED, "transfers that gather from strides")
    length = registers.address("DMA0_LEN")
    size0 = registers.value("DMA0_SIZE0") if mode else 1
    size1 = registers.value("DMA0_SIZE1") if mode == 2 else 1
    source, target = (length, length * size0), (length, length * size0)
    if mode:
        step = length + registers.stride("DMA0_SKIP0")
        skip = registers.stride("DMA0_SKIP1") if mode == 2 else 0
        target = (step, length * size0 + skip)
    ends = [
        TransferEnd(
            bool(registers.field(f"DMA0_{name}_REGION", "internal")),
            registers.field(f"DMA0_{name}_REGION", "region"),
            registers.address(f"DMA0_{name}"),
            strides,
        )
        for name, strides in (("SRC", source), ("DST", target))
    ]
    return TransferShape(length, size0, size1), ends[0], ends[1]


def u85_transfer(
    registers: RegisterFile, hardware: NpuHardware
) -> tuple[TransferShape, TransferEnd, TransferEnd]:
    """Shape, source and destination of a transfer of the Ethos-U85."""
    mode = registers.field("DMA0_SRC_REGION", "stride_mode")
    length = registers.address("DMA0_LEN")
    size0 = registers.value("DMA0_SIZE0") if mode else 1
    size1 = registers.value("DMA0_SIZE1") if mode == 2 else 1
    ends = []
    for name in ("SRC", "DST"):
        indexed = bool(registers.field(f"DMA0_{name}_REGION", "indexed"))
        stride0 = registers.stride(f"DMA0_{name}_STRIDE0") if mode or indexed else length
        stride1 = registers.stride(f"DMA0_{name}_STRIDE1") if mode == 2 else 0
        indices = None
        if indexed:
            indices = IndexTable(
                registers.field("DMA0_IDX_REGION", "region"),
                registers.address("DMA0_IDX"),
                registers.value("DMA0_IDX_MAX"),
                registers.stride("DMA0_IDX_SKIP1") if mode == 2 else 0,
            )
        ends.append(
            TransferEnd(
                bool(registers.field(f"DMA0_{name}_REGION", "internal")),
                registers.field(f"DMA0_{name}_REGION", "region"),
                registers.address(f"DMA0_{name}"),
                (stride0, stride1),
                indices,
            )
        )
    return TransferShape(length, size0, size1), ends[0], ends[1]


@dataclass(frozen=True)
class DmaUnit:
    """Makes transfers between the regions and the internal memory."""

    hardware: NpuHardware
    memory: RegionMemory
    internal: Bytes
    loaded: Bytes  # 1 for each byte of the internal memory that a transfer wrote last

    def transfer(
        self, position: int, shape: TransferShape, source: TransferEnd, target: TransferEnd
    ) -> DmaTransfer:
        """A transfer, checked. Raises SimulationError for what leaves its memory."""
        self.memory.position = position
        size = shape.length * shape.size0 * shape.size1
        if not size or size > _MOST_BYTES:
            raise SimulationError(Rule.REGISTER_VALUE, f"a transfer of {size} bytes", position)
        self._check_alignment(position, shape, source, target)
        read, written = (self._touched(shape, end, end is target) for end in (source, target))
        reads = [] if source.internal else [moved(read, self.memory.origin(source.region))]
        for indices in filter(None, (source.indices, target.indices)):
            low, high = shape.index_extent(indices)
            self.memory.check(indices.region, low, high, "indices of a DMA transfer")
            touched = run(low, high - low)
            reads.append(moved(touched, self.memory.origin(indices.region)))
        footprint = Footprint(
            position,
            "DMA transfer",
            union(reads),
            NO_BYTES if target.internal else moved(written, self.memory.origin(target.region)),
            read if source.internal else NO_BYTES,
            written if target.internal else NO_BYTES,
        )
        return DmaTransfer(footprint, lambda: self._move(position, shape, source, target))

    def _check_alignment(
        self, position: int, shape: TransferShape, source: TransferEnd, target: TransferEnd
    ) -> None:
        """All numbers are multiples of 16 on the U55; elsewhere only those of internal memory."""
        everywhere = self.hardware.product == "u55"
        numbers = [end.start for end in (source, target) if everywhere or end.internal]
        if everywhere or target.internal:
            numbers.append(shape.length)
        if any(number % 16 for number in numbers):
            raise SimulationError(
                Rule.ALIGNMENT,
                f"a transfer of {shape.length} bytes from {source.start} to {target.start}: they "
                f"have to be multiples of 16",
                position,
            )

    def _touched(self, shape: TransferShape, end: TransferEnd, write: bool) -> ByteRanges:
        low, high = extent(end.start, shape.axes(end), shape.length)
        what = "destination of a DMA transfer" if write else "source of a DMA transfer"
        if not end.internal:
            self.memory.check(end.region, low, high, what, write)
        elif low < 0 or high > len(self.internal):
            raise SimulationError(
                Rule.OUT_OF_BOUNDS,
                f"{what}: bytes {low} to {high} of the internal memory, which has "
                f"{len(self.internal)}",
                self.memory.position,
            )
        return strided(end.start, shape.axes(end), shape.length)

    def _move(
        self, position: int, shape: TransferShape, source: TransferEnd, target: TransferEnd
    ) -> None:
        read, written = (
            self.internal if end.internal else self.memory.array(end.region)
            for end in (source, target)
        )
        for j in range(shape.size1):
            places = [self._places(position, shape, end, j) for end in (source, target)]
            for at, to in zip(*places, strict=True):
                written[to : to + shape.length] = read[at : at + shape.length]
                if target.internal:
                    self.loaded[to : to + shape.length] = 1

    def _places(
        self, position: int, shape: TransferShape, end: TransferEnd, row: int
    ) -> Iterable[int]:
        """Where the runs of a row begin."""
        numbers: Iterable[int] = range(shape.size0)
        if end.indices is not None:
            count = shape.size0 * _INDEX_BYTES
            start = end.indices.start + row * (count + end.indices.skip)
            data = self.memory.array(end.indices.region)[start : start + count]
            numbers = [int(number) for number in np.frombuffer(data.tobytes(), "<i4")]
            if min(numbers) < 0 or max(numbers) > end.indices.most:
                raise SimulationError(
                    Rule.OUT_OF_BOUNDS,
                    f"indices from {min(numbers)} to {max(numbers)}: {end.indices.most} is the "
                    f"largest",
                    position,
                )
        begin = end.start + row * end.strides[1]
        return [begin + number * end.strides[0] for number in numbers]
