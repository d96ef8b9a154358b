"""The shared RAM of the Ethos-U55 and -U65: whether an operation's buffers fit where it has them.

Sizes of buffers: the architecture model of ethos-u-vela 5.2 (regor's ArchEthosU55).
"""

from __future__ import annotations

from .byte_ranges import NO_BYTES, ByteRanges, run, union
from .npu_hardware import BANK_BYTES, LUT_BANKS, NpuHardware
from .npu_operation import NpuOperation, OperationKind, SharedRam, Upscaling
from .violations import Rule, SimulationError

_OUTPUT_BANKS = 2  # at the begin, for results on their way out
_MOST_DEPTH_UNIT = 16  # that the depth of a block is a multiple of
_LARGEST_PART = 8  # of a kernel, that is worked on at a time


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def input_block(operation: NpuOperation, hardware: NpuHardware) -> tuple[int, int, int]:
    """Height, width and depth of the IFM that one block of the OFM takes at a time."""
    height, width, depth = operation.block
    window = operation.window
    upscale = 1 if operation.upscaling is Upscaling.NONE else 2
    rounding = 1 if operation.upscaling is Upscaling.NEAREST else 0
    rows = (height - 1) * window.stride_y + min(window.dilated_height, _LARGEST_PART) + rounding
    columns = (width - 1) * window.stride_x + min(window.dilated_width, _LARGEST_PART) + rounding
    rows = _round_up(-(-rows // upscale), hardware.ofm_microblock[0])
    columns = _round_up(-(-columns // upscale), hardware.ofm_microblock[1])
    return rows, columns, input_depth(operation, hardware, depth)


def input_depth(operation: NpuOperation, hardware: NpuHardware, block_depth: int) -> int:
    """Channels of the IFM that one block takes at a time."""
    if not sums_channels(operation):
        return block_depth
    if hardware.product == "u85":
        return _u85_input_depth(operation, hardware)
    if operation.ifm.element == 2:
        return _round_up(min(operation.ifm.depth, 16), 4)
    return _round_up(min(operation.ifm.depth, 16 if operation.part_kernel else 32), 8)


def _u85_input_depth(operation: NpuOperation, hardware: NpuHardware) -> int:
    if operation.part_kernel:
        return 16
    if operation.sparse_weights and operation.ifm.element == 1:
        return 128
    few = hardware.macs <= 256 and operation.accumulation.microblock[2] == 16
    return 32 if operation.ifm.element >= 4 or (few and not operation.sparse_weights) else 64


def sums_channels(operation: NpuOperation) -> bool:
    """Whether a result depends on all channels of the IFM."""
    return operation.kind is OperationKind.CONV or operation.mode == "reduce_sum"


def check_block(operation: NpuOperation, hardware: NpuHardware) -> None:
    """Raise SimulationError for an OFM block that the accelerator does not have."""
    resize = operation.kind is OperationKind.RESIZE
    rows, columns, depth = operation.accumulation.microblock
    units = (1, 1, 1) if resize else (rows, columns, min(depth, _MOST_DEPTH_UNIT))
    pairs = zip(operation.block, units, hardware.largest_block, strict=True)
    if any(size % unit or size > most for size, unit, most in pairs):
        raise SimulationError(
            Rule.OFM_BLOCK,
            f"{operation.block}: multiples of {units} up to {hardware.largest_block}",
            operation.position,
        )


def lay_out(operation: NpuOperation, hardware: NpuHardware) -> tuple[ByteRanges, ByteRanges]:
    """The internal bytes that an operation reads, of its table, and those that it overwrites.

    Raises SimulationError where buffers are too small, overlap, or lie on a lookup table.
    """
    ram, table = operation.shared_ram, operation.activation.table
    reads = run(table.start, table.size) if table else NO_BYTES
    if ram is None:
        _check_u85_block(operation, hardware)
        return reads, NO_BYTES
    reserved = LUT_BANKS if table or hardware.banks > 16 else 0
    buffers = _Buffers(operation, hardware, ram, hardware.banks - reserved)
    buffers.check()
    accumulators = run(ram.accumulators * BANK_BYTES, buffers.accumulators * BANK_BYTES)
    return reads, union([run(0, ram.input_end * BANK_BYTES), accumulators])


def _check_u85_block(operation: NpuOperation, hardware: NpuHardware) -> None:
    """A block has to fit the accumulators, of convolutions two."""
    if operation.kind in (OperationKind.ELEMENTWISE, OperationKind.RESIZE):
        return
    count = 2 if operation.kind is OperationKind.CONV else 1
    rows, columns, depth = operation.block
    element = 4 if operation.accumulation.format == "acc32" else 8
    used = count * rows * columns * _round_up(depth, _MOST_DEPTH_UNIT) * element
    if used > hardware.accumulator_bytes:
        raise SimulationError(
            Rule.SHRAM_LAYOUT,
            f"accumulators of {used} bytes, {hardware.accumulator_bytes} are there",
            operation.position,
        )


class _Buffers:
    """The buffers of one operation, sizes in banks."""

    def __init__(
        self, operation: NpuOperation, hardware: NpuHardware, ram: SharedRam, end: int
    ) -> None:
        self.operation, self.ram, self.end = operation, ram, end
        self.elementwise = operation.kind is OperationKind.ELEMENTWISE
        granules = hardware.granules
        rows, columns, depth = input_block(operation, hardware)
        size = rows * columns * _round_up(depth * operation.ifm.element, 8)
        granule = granules.ifm32 if operation.ifm.element == 4 else granules.ifm
        self.input = _round_up(2 * -(-size // BANK_BYTES), granule)
        self.accumulators = 0
        if not self.elementwise:
            bits, granule = {"acc32": (32, granules.acc32), "acc40": (40, granules.acc40)}[
                operation.accumulation.format
            ]
            rows, columns, depth = operation.block
            if operation.ofm.height == operation.window.height == 1:
                rows = 1 if hardware.ofm_microblock[0] == 2 else rows
            size = rows * columns * _round_up(depth, 8) * bits // 8
            self.accumulators = _round_up(2 * -(-size // BANK_BYTES), granule)

    def check(self) -> None:
        ram, begin = self.ram, _OUTPUT_BANKS
        if self.elementwise and self.operation.ifm2 is not None:
            self._fit("IFM2", ram.input2_start, ram.input_end, self.input)
            self._fit("IFM", begin, ram.input2_start, self.input)
        else:
            self._fit("IFM", begin, ram.input_end, self.input)
        if ram.input_end > self.end:
            self._fail(f"inputs end at bank {ram.input_end} of {self.end}")
        if not self.elementwise:
            self._fit("accumulators", ram.accumulators, self.end, self.accumulators)
            if ram.input_end > ram.accumulators:
                self._fail(
                    f"inputs end at bank {ram.input_end}, accumulators begin at {ram.accumulators}"
                )

    def _fit(self, what: str, begin: int, end: int, banks: int) -> None:
        if end - begin < banks:
            self._fail(f"{what}: {banks} banks are needed, {max(end - begin, 0)} are there")

    def _fail(self, why: str) -> None:
        raise SimulationError(Rule.SHRAM_LAYOUT, why, self.operation.position)
