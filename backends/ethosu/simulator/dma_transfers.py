"""DMA transfers: what their registers say, what they touch, and the copying."""

from __future__ import annotations

from dataclasses import dataclass

from .block_traffic import moved
from .byte_ranges import NO_BYTES, ByteRanges, strided
from .hazards import DmaTransfer
from .npu_hardware import NpuHardware
from .npu_operation import Footprint
from .region_memory import Bytes, RegionMemory
from .register_file import RegisterFile
from .violations import Rule, SimulationError


@dataclass(frozen=True)
class TransferEnd:
    """Source or destination: runs of bytes from `start`, at i * stride0 + j * stride1."""

    internal: bool
    region: int
    start: int
    strides: tuple[int, int]


@dataclass(frozen=True)
class TransferShape:
    """size0 * size1 runs of `length` bytes each."""

    length: int
    size0: int = 1
    size1: int = 1

    def ranges(self, end: TransferEnd) -> ByteRanges:
        axes = [(self.size0, end.strides[0]), (self.size1, end.strides[1])]
        return strided(end.start, axes, self.length)


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
        if not shape.length:
            raise SimulationError(Rule.REGISTER_VALUE, "a transfer of no bytes", position)
        self._check_alignment(position, shape, source, target)
        read, written = (self._touched(shape, end, end is target) for end in (source, target))
        footprint = Footprint(
            position,
            "DMA transfer",
            NO_BYTES if source.internal else moved(read, self.memory.origin(source.region)),
            NO_BYTES if target.internal else moved(written, self.memory.origin(target.region)),
            read if source.internal else NO_BYTES,
            written if target.internal else NO_BYTES,
        )
        return DmaTransfer(footprint, lambda: self._move(shape, source, target))

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
        touched = shape.ranges(end)
        what = "destination of a DMA transfer" if write else "source of a DMA transfer"
        if not end.internal:
            self.memory.check(end.region, touched, what, write)
        elif touched.high > len(self.internal):
            raise SimulationError(
                Rule.OUT_OF_BOUNDS,
                f"{what}: bytes {touched.low} to {touched.high} of the internal memory, which has "
                f"{len(self.internal)}",
                self.memory.position,
            )
        return touched

    def _move(self, shape: TransferShape, source: TransferEnd, target: TransferEnd) -> None:
        read, written = (
            self.internal if end.internal else self.memory.array(end.region)
            for end in (source, target)
        )
        for j in range(shape.size1):
            for i in range(shape.size0):
                at = source.start + i * source.strides[0] + j * source.strides[1]
                to = target.start + i * target.strides[0] + j * target.strides[1]
                written[to : to + shape.length] = read[at : at + shape.length]
                if target.internal:
                    self.loaded[to : to + shape.length] = 1
