"""Feature maps in memory: tiles, strides and the two formats, as the DMA of the NPU walks them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from .byte_ranges import NO_BYTES, ByteRanges, extent, strided, union
from .region_memory import RegionMemory
from .violations import Rule, SimulationError

Array = np.ndarray[Any, np.dtype[Any]]
_MOST_READINGS = 16  # of one byte of memory, by one operation
BRICK = 16  # channels that lie together in the format NHCWB16
_TYPES = {
    (1, True): np.int8,
    (1, False): np.uint8,
    (2, True): np.int16,
    (2, False): np.uint16,
    (4, True): np.int32,
    (4, False): np.uint32,
    (8, True): np.int64,
}


@dataclass(frozen=True)
class Box:
    """A part of a feature map: from y0, x0, c0 to y1, x1, c1, which are not in it."""

    y0: int
    x0: int
    c0: int
    y1: int
    x1: int
    c1: int

    def clipped(self, height: int, width: int, depth: int) -> Box:
        """The part inside a feature map of that shape."""
        return Box(
            max(self.y0, 0),
            max(self.x0, 0),
            max(self.c0, 0),
            min(self.y1, height),
            min(self.x1, width),
            min(self.c1, depth),
        )


@dataclass(frozen=True)
class _Piece:
    """Elements that strides reach from one address: rows y, columns x, of channels c."""

    start: int
    rows: slice
    columns: slice
    channels: slice
    bricks: int  # of 16 channels each; 0: the channels lie together


class Storage(Enum):
    """Where a feature map is: in memory, in a buffer between chained operations, or nowhere."""

    MEMORY = 0
    CHAINED = 2
    NOWHERE = 3


@dataclass(frozen=True)
class FeatureMap:
    """A tensor of height, width, depth in a region.

    bases: of the four tiles, left and right of column `width0`; the upper left one has `height0`
    rows, the upper right one `height1`. strides: of rows, columns and (NHCWB16) bricks, in bytes.
    element: bytes of one. bricked: in the format NHCWB16. storage: of one that is CHAINED `region`
    is the chaining buffer. axes: which of height, width and depth (0, 1, 2) are rows, columns and
    channels in memory; reversed_axis: which of these come backwards. Only results are stored so.
    """

    name: str
    region: int
    bases: tuple[int, int, int, int]
    height0: int
    height1: int
    width0: int
    strides: tuple[int, int, int]
    element: int
    signed: bool
    bricked: bool
    zero_point: int
    height: int
    width: int
    depth: int
    storage: Storage = Storage.MEMORY
    axes: tuple[int, int, int] = (0, 1, 2)
    reversed_axis: int | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.depth

    @property
    def plain(self) -> bool:
        """Whether elements lie in memory as they are counted."""
        return self.axes == (0, 1, 2) and self.reversed_axis is None

    @property
    def stored(self) -> FeatureMap:
        """What lies in memory."""
        height, width, depth = (self.shape[axis] for axis in self.axes)
        return replace(
            self, height=height, width=width, depth=depth, axes=(0, 1, 2), reversed_axis=None
        )

    @property
    def whole(self) -> Box:
        return Box(0, 0, 0, self.height, self.width, self.depth)

    @property
    def dtype(self) -> Any:
        return np.dtype(_TYPES[self.element, self.signed])

    def _column_stride(self) -> int:
        return BRICK * self.element if self.bricked else self.strides[1]

    def _tiles(self, box: Box) -> Iterator[tuple[int, slice, slice]]:
        """(address of the first element, rows, columns) of the parts of a box in each tile."""
        left, right = (box.x0, min(box.x1, self.width0)), (max(box.x0, self.width0), box.x1)
        for side, (x0, x1) in enumerate((left, right)):
            split = self.height1 if side else self.height0
            upper, lower = (box.y0, min(box.y1, split)), (max(box.y0, split), box.y1)
            for below, (y0, y1) in enumerate((upper, lower)):
                if x0 >= x1 or y0 >= y1:
                    continue
                base = self.bases[side + 2 * below]
                base += (y0 - split * below) * self.strides[0]
                base += (x0 - self.width0 * side) * self._column_stride()
                yield base, slice(y0, y1), slice(x0, x1)

    def _channels(self, box: Box) -> Iterator[tuple[int, slice, int]]:
        """(bytes from channel 0, channels, bricks) of the parts of a box along the depth."""
        if not self.bricked:
            yield box.c0 * self.element, slice(box.c0, box.c1), 0
            return
        at = box.c0
        while at < box.c1:
            brick, lane = divmod(at, BRICK)
            whole = (box.c1 - at) // BRICK if not lane else 0
            end = at + whole * BRICK if whole else min(box.c1, (brick + 1) * BRICK)
            offset = brick * self.strides[2] + lane * self.element
            yield offset, slice(at, end), whole
            at = end

    def _pieces(self, box: Box) -> Iterator[_Piece]:
        for base, rows, columns in self._tiles(box):
            for offset, channels, bricks in self._channels(box):
                yield _Piece(base + offset, rows, columns, channels, bricks)

    def ranges(self, box: Box | None = None) -> ByteRanges:
        """The bytes of a box (None: all), as offsets in the region; all, where it is not plain."""
        if self.storage is not Storage.MEMORY:
            return NO_BYTES
        if not self.plain:
            return self.stored.ranges()
        pieces = self._pieces(box or self.whole)
        return union(strided(piece.start, *self._runs(piece)) for piece in pieces)

    def _runs(self, piece: _Piece) -> tuple[list[tuple[int, int]], int]:
        """Counts and strides of runs of bytes, and their length."""
        rows, columns = (s.stop - s.start for s in (piece.rows, piece.columns))
        axes = [(rows, self.strides[0]), (columns, self._column_stride())]
        if piece.bricks:
            return [*axes, (piece.bricks, self.strides[2])], BRICK * self.element
        return axes, (piece.channels.stop - piece.channels.start) * self.element

    def check(self, memory: RegionMemory, write: bool = False) -> None:
        """Raise SimulationError for unaligned addresses and for bytes outside the region."""
        if self.storage is not Storage.MEMORY:
            return
        if not self.plain:
            self.stored.check(memory, write)
            return
        unit = BRICK if self.bricked else self.element
        used = [self.bases[0]]
        used += [self.bases[1]] * (self.width > self.width0)
        used += [self.bases[2]] * (self.height > self.height0)
        used += [self.bases[3]] * (self.width > self.width0 and self.height > self.height1)
        strides = self.strides[::2] if self.bricked else self.strides[:2]
        if any(number % unit for number in (*used, *strides)):
            raise SimulationError(
                Rule.ALIGNMENT,
                f"{self.name}: bases {used} and strides {list(strides)} have to be multiples of "
                f"{unit}",
                memory.position,
            )
        for piece in self._pieces(self.whole):
            low, high = extent(piece.start, *self._runs(piece))
            memory.check(self.region, low, high, self.name, write)
        size, there = math.prod(self.shape) * self.element, len(memory.array(self.region))
        if size > _MOST_READINGS * there:
            raise SimulationError(
                Rule.GEOMETRY,
                f"{self.name}: {size} bytes out of a region of {there}, over and over",
                memory.position,
            )

    def _view(self, memory: RegionMemory, piece: _Piece) -> Array:
        """The elements of a piece in place: rows, columns, [bricks,] channels."""
        rows, columns = (s.stop - s.start for s in (piece.rows, piece.columns))
        shape = [rows, columns, piece.channels.stop - piece.channels.start]
        strides = [self.strides[0], self._column_stride(), self.element]
        if piece.bricks:
            shape[2:] = [piece.bricks, BRICK]
            strides[2:] = [self.strides[2], self.element]
        array = memory.array(self.region)
        return np.ndarray(shape, self.dtype, array, piece.start, strides)

    def load(self, memory: RegionMemory) -> Array:
        """A copy of all elements, as they are stored."""
        if self.storage is Storage.CHAINED:
            return np.asarray(memory.chained(self.region, self.shape, self.dtype))
        if self.storage is Storage.NOWHERE:
            raise SimulationError(
                Rule.REGISTER_VALUE, f"{self.name} is read, and stored nowhere", memory.position
            )
        values = np.empty(self.shape, self.dtype)
        for piece in self._pieces(self.whole):
            part = values[piece.rows, piece.columns, piece.channels]
            part[...] = self._view(memory, piece).reshape(part.shape)
        return values

    def store(self, memory: RegionMemory, values: Array) -> None:
        """Write all elements, whose values are in the range of their type."""
        if self.storage is Storage.CHAINED:
            memory.chains[self.region] = values
        if self.storage is not Storage.MEMORY:
            return
        if not self.plain:
            values = values.transpose(self.axes)
            if self.reversed_axis is not None:
                values = np.flip(values, self.reversed_axis)
            self.stored.store(memory, values)
            return
        for piece in self._pieces(self.whole):
            view = self._view(memory, piece)
            view[...] = values[piece.rows, piece.columns, piece.channels].reshape(view.shape)
