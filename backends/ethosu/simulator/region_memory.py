"""The memory that a command stream runs on: regions of bytes, every access inside its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ....compiler.errors import UsageError
from .violations import Rule, SimulationError

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
REGIONS = 8


class RegionMemory:
    """Regions by number. Buffers are used in place; what only can be read may not be written."""

    def __init__(self, regions: Mapping[int, Any] | Sequence[Any]) -> None:
        pairs = regions.items() if isinstance(regions, Mapping) else enumerate(regions)
        self._arrays: dict[int, Bytes] = {}
        for number, buffer in pairs:
            if buffer is not None:
                self._arrays[number] = _bytes(number, buffer)
        self.position = 0  # of the operation that accesses it, for errors
        self.chains: dict[int, Any] = {}  # results in the buffers between chained operations

    def array(self, region: int) -> Bytes:
        """All bytes of a region."""
        if region not in self._arrays:
            raise SimulationError(Rule.REGION, f"region {region} is not given", self.position)
        return self._arrays[region]

    def chained(self, number: int, shape: tuple[int, ...], dtype: Any) -> Any:
        """What an operation before has left in a chaining buffer, which has to fit."""
        values = self.chains.get(number)
        if values is None or values.shape != shape or values.dtype != dtype:
            found = "nothing" if values is None else f"{values.dtype} {values.shape}"
            raise SimulationError(
                Rule.CHAIN, f"buffer {number}: {found} for {dtype} {shape}", self.position
            )
        return values

    def origin(self, region: int) -> int:
        """The address of a region's first byte: regions may share memory."""
        return int(self.array(region).ctypes.data)

    def check(self, region: int, low: int, high: int, what: str, write: bool = False) -> None:
        """Raise SimulationError unless the offsets of an access, low to high, lie in a region."""
        array = self.array(region)
        if low < 0 or high > len(array):
            raise SimulationError(
                Rule.OUT_OF_BOUNDS,
                f"{what}: bytes {low} to {high} of region {region}, which has {len(array)}",
                self.position,
            )
        if write and not array.flags.writeable:
            raise SimulationError(Rule.READ_ONLY, f"{what}: region {region}", self.position)

    def read(self, region: int, start: int, length: int, what: str) -> Bytes:
        """A view of some bytes of a region."""
        self.check(region, start, start + length, what)
        return self.array(region)[start : start + length]


def _bytes(number: int, buffer: Any) -> Bytes:
    if not isinstance(number, int) or not 0 <= number < REGIONS:
        raise UsageError(f"region {number!r}", why=f"regions are 0 to {REGIONS - 1}")
    array = buffer if isinstance(buffer, np.ndarray) else np.frombuffer(buffer, np.uint8)
    if not array.flags.c_contiguous:
        raise UsageError(
            f"region {number} is not contiguous", remedy="give one contiguous buffer for a region"
        )
    return array.reshape(-1).view(np.uint8)
