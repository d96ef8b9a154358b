"""What single blocks of an operation read and write, and what all of it touches.

Blocks come with the depth innermost, then along the width, then the height. The first blocks read
block after block of the IFM's depth where results depend on all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .byte_ranges import NO_BYTES, ByteRanges, run, union
from .feature_map import Box, FeatureMap, Storage
from .hazards import BlockAccess
from .npu_hardware import NpuHardware
from .npu_operation import Footprint, NpuOperation, OperationKind, Upscaling
from .region_memory import RegionMemory
from .shared_ram import input_depth, sums_channels
from .violations import Rule, SimulationError


def moved(ranges: ByteRanges, origin: int) -> ByteRanges:
    """Ranges as addresses from an origin on."""
    return ByteRanges(ranges.starts + origin, ranges.ends + origin)


@dataclass(frozen=True)
class BlockTraffic:
    """The accesses of one operation to memory."""

    operation: NpuOperation
    memory: RegionMemory
    hardware: NpuHardware

    def access(self, internal_reads: ByteRanges, internal_writes: ByteRanges) -> BlockAccess:
        """For the watch over hazards; checks bounds and alignment of all that is accessed."""
        operation = self.operation
        reads = [self._whole(feature_map) for feature_map in operation.input_maps]
        reads += self._streams()
        writes = self._whole(operation.ofm, write=True)
        footprint = Footprint(
            operation.position,
            operation.label,
            union(reads),
            writes,
            internal_reads,
            internal_writes,
        )
        return BlockAccess(footprint, self.first_reads, self.last_writes)

    def _whole(self, feature_map: FeatureMap, write: bool = False) -> ByteRanges:
        feature_map.check(self.memory, write)
        return self._addresses(feature_map, feature_map.ranges())

    def _addresses(self, feature_map: FeatureMap, ranges: ByteRanges) -> ByteRanges:
        """Parts of a feature map as addresses; of one that is not in memory, none."""
        if feature_map.storage is not Storage.MEMORY:
            return NO_BYTES
        return moved(ranges, self.memory.origin(feature_map.region))

    def _streams(self) -> list[ByteRanges]:
        """Weights and scales, whose places and lengths are multiples of 16 bytes."""
        found = []
        named = [("weights", s) for s in self.operation.weights]
        named += [("scales", s) for s in self.operation.scales]
        for what, stream in named:
            if stream.start % 16 or stream.length % 16:
                raise SimulationError(
                    Rule.ALIGNMENT,
                    f"{what}: {stream.length} bytes at {stream.start}: both have to be multiples "
                    f"of 16",
                    self.operation.position,
                )
            touched = run(stream.start, stream.length)
            self.memory.check(stream.region, touched.low, touched.high, what)
            found.append(moved(touched, self.memory.origin(stream.region)))
        return found

    def last_writes(self, count: int) -> list[ByteRanges]:
        """What the last blocks write, the very last one first."""
        ofm, (rows, columns, depth) = self.operation.ofm, self.operation.block
        sizes = ((ofm.height, rows), (ofm.width, columns), (ofm.depth, depth))
        blocks = [-(-size // block) for size, block in sizes]
        total = blocks[0] * blocks[1] * blocks[2]
        found = []
        for number in range(total - 1, max(total - 1 - count, -1), -1):
            spatial, z = divmod(number, blocks[2])
            y, x = divmod(spatial, blocks[1])
            box = Box(
                y * rows, x * columns, z * depth, (y + 1) * rows, (x + 1) * columns, (z + 1) * depth
            ).clipped(ofm.height, ofm.width, ofm.depth)
            found.append(self._addresses(ofm, ofm.ranges(box)))
        return found

    def first_reads(self, count: int) -> list[ByteRanges]:
        """What the first blocks read."""
        found = []
        for number, box in zip(range(count), self._input_boxes(), strict=False):
            parts = []
            for feature_map in self.operation.input_maps:
                parts.append(self._addresses(feature_map, self._in_map(feature_map, box)))
            found.append(union([*parts, *(self._streams() if not number else ())]))
        return found

    @staticmethod
    def _in_map(feature_map: FeatureMap, box: Box) -> ByteRanges:
        """A box in a map of which sizes of 1 stand for all of an axis."""
        height, width, depth = feature_map.height, feature_map.width, feature_map.depth
        box = Box(
            0 if height == 1 else box.y0,
            0 if width == 1 else box.x0,
            0 if depth == 1 else box.c0,
            1 if height == 1 else box.y1,
            1 if width == 1 else box.x1,
            1 if depth == 1 else box.c1,
        )
        return feature_map.ranges(box.clipped(height, width, depth))

    def _input_boxes(self) -> Iterator[Box]:
        """Parts of the IFM in the order of the blocks that read them."""
        operation = self.operation
        ofm, (rows, columns, depth) = operation.ofm, operation.block
        deep = operation.ifm.depth if sums_channels(operation) else ofm.depth
        step = input_depth(operation, self.hardware, depth) if sums_channels(operation) else depth
        for y in range(0, ofm.height, rows):
            height = min(rows, ofm.height - y)
            for x in range(0, ofm.width, columns):
                width = min(columns, ofm.width - x)
                for z in range(0, deep, step):
                    yield self._reach(y, x, z, height, width, step)

    def _reach(self, y: int, x: int, z: int, height: int, width: int, depth: int) -> Box:
        """The part of the IFM that results from y, x on need, channels from z on."""
        window = self.operation.window
        y0, x0 = y * window.stride_y - window.top, x * window.stride_x - window.left
        y1 = y0 + (height - 1) * window.stride_y + window.dilated_height
        x1 = x0 + (width - 1) * window.stride_x + window.dilated_width
        if self.operation.upscaling is not Upscaling.NONE:
            y0, x0, y1, x1 = max(y0, 0) // 2, max(x0, 0) // 2, -(-y1 // 2), -(-x1 // 2)
        return Box(y0, x0, z, y1, x1, z + depth)


def _elsewhere(one: FeatureMap, other: FeatureMap) -> bool:
    """Whether one of two is not in memory."""
    return Storage.MEMORY is not one.storage or Storage.MEMORY is not other.storage


def check_in_place(operation: NpuOperation, access: BlockAccess) -> None:
    """Raise SimulationError where results overwrite inputs that later blocks read.

    Elementwise operations, and others that read one element for each result, may write where they
    read: block by block, in the same order.
    """
    if access.footprint.writes.common(access.footprint.reads) is None:
        return
    window = operation.window
    alone = operation.kind is OperationKind.ELEMENTWISE or (
        operation.kind is OperationKind.POOL
        and operation.mode != "reduce_sum"
        and (window.height, window.width, window.stride_y, window.stride_x) == (1, 1, 1, 1)
    )
    ofm = operation.ofm
    for feature_map in operation.input_maps:
        same = (
            alone
            and ofm.plain
            and feature_map.bases == ofm.bases
            and feature_map.strides == ofm.strides
            and feature_map.bricked == ofm.bricked
            and feature_map.element == ofm.element
            and (feature_map.height, feature_map.width, feature_map.depth)
            == (ofm.height, ofm.width, ofm.depth)
        )
        if not same and feature_map.region == ofm.region and not _elsewhere(feature_map, ofm):
            touched = feature_map.ranges().common(ofm.ranges())
            if touched is not None:
                raise SimulationError(
                    Rule.OVERLAP,
                    f"{feature_map.name} and OFM of {operation.label} share byte {touched} of "
                    f"region {ofm.region}",
                    operation.position,
                )
