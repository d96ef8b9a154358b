"""What one core of a machine can do at most: arithmetic, and bandwidth of each memory level."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...target import CpuTarget

CLOCK = 3e9  # Hz, of a core about which nothing was measured
# Bytes per cycle of one core reading from each level, typical of current x86 and Arm cores.
_L2, _L3, _MEMORY = 32.0, 10.0, 4.0
_L3_BYTES = 16 << 20


@dataclass(frozen=True)
class Peak:
    """Measured f32 peak in FLOP/s (a fused multiply-add counts two), and how it was measured."""

    flops_per_second: float
    label: str


@dataclass(frozen=True)
class Level:
    """One level of memory. capacity: bytes. bandwidth: bytes/s that one core reads from it."""

    name: str
    capacity: float
    bandwidth: float


@dataclass(frozen=True)
class Machine:
    """One core. flops_per_second: f32, a fused multiply-add counts two.

    levels: from the first-level cache outwards; the last is the memory, without end.
    label: where the numbers come from.
    """

    flops_per_second: float
    levels: tuple[Level, ...]
    label: str

    @property
    def operations_per_byte(self) -> float:
        """f32 operations in the time in which a byte arrives from memory."""
        return self.flops_per_second / self.levels[-1].bandwidth

    def clock(self, target: CpuTarget) -> float:
        """Cycles per second at which `target.fma_ports` units reach the peak."""
        return self.flops_per_second / (2 * target.lanes(32) * target.fma_ports)


def assumed_machine(target: CpuTarget) -> Machine:
    """A typical machine of the target, for where nothing can be measured."""
    levels = (
        Level("L1", target.l1_bytes, CLOCK * target.vector_bits / 8 * 2),
        Level("L2", target.l2_bytes, CLOCK * _L2),
        Level("L3", _L3_BYTES, CLOCK * _L3),
        Level("memory", math.inf, CLOCK * _MEMORY),
    )
    flops = 2.0 * CLOCK * target.lanes(32) * target.fma_ports
    return Machine(flops, levels, f"assumed: {CLOCK / 1e9:.0f} GHz, bandwidths typical of a core")
