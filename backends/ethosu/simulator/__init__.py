"""A simulator of command streams for the Ethos-U: exact to the bit, and strict about hazards.

It runs a COP1 driver payload on buffers that stand for the memory regions, as the driver would hand
it to the hardware, and refuses whatever the hardware would get wrong: missing waits, too large a
BLOCKDEP, buffers in the shared RAM that overlap, accesses outside their region, registers of values
that do not exist. What it does not know ends the run as NOT_SIMULATED: the built-in sigmoid and
tanh, and branches on results. It claims nothing about time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .driver_payload import read_payload
from .npu_hardware import HARDWARE
from .npu_machine import NpuMachine
from .region_memory import RegionMemory
from .violations import Rule, SimulationError

__all__ = ["HARDWARE", "Rule", "SimulationError", "SimulationReport", "simulate"]


@dataclass(frozen=True)
class SimulationReport:
    """What a stream did. accelerator: as `ethos-u55-128`; operations: how many of each kind.

    macs: products of inputs and weights; words: of the command stream.
    """

    accelerator: str
    operations: Mapping[str, int]
    macs: int
    words: int


def simulate(
    payload: bytes | bytearray | memoryview,
    regions: Mapping[int, Any] | Sequence[Any],
    accelerator: str | None = None,
) -> SimulationReport:
    """Run a COP1 driver payload; the regions are changed in place.

    regions: a contiguous buffer (numpy array, bytearray, memoryview) for each region that the
    stream uses, by number or in order, None for one it does not; read-only ones, such as `bytes`,
    may be read only. accelerator: a name of `HARDWARE`, when the payload has to be for that one.
    Raises SimulationError, with the `rule` that was broken, for the first violation; the regions
    are then left as they are at that point. Raises UsageError for regions that are no buffers.
    """
    parsed = read_payload(payload)
    if accelerator is not None and parsed.hardware.name != accelerator:
        raise SimulationError(Rule.CONFIG, f"made for {parsed.hardware.name}, run on {accelerator}")
    machine = NpuMachine(parsed, RegionMemory(regions))
    machine.run()
    return SimulationReport(
        parsed.hardware.name, dict(machine.counts), machine.datapath.macs, len(parsed.stream)
    )
