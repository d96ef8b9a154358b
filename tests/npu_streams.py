"""TOSA graphs as command streams, run on the simulator in memory that is garbage elsewhere."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

from tensmith.backends.ethosu.simulator import SimulationReport, simulate
from tensmith.backends.ethosu.targets import TARGETS
from tensmith.backends.ethosu.vela import CommandStream, compiled

HEADER_WORDS = 8  # of a payload, before its stream


@lru_cache(maxsize=64)
def stream_of(blob: bytes, target: str) -> CommandStream:
    """What Vela makes of a TOSA file."""
    return compiled(blob, TARGETS[target])


def memory_for(stream: CommandStream, inputs, seed: int = 7) -> dict[int, np.ndarray]:
    """Regions with weights and inputs in place; the weights may only be read."""
    rng = np.random.default_rng(seed)
    memory = {stream.weights_region: np.frombuffer(stream.weights, np.uint8)}
    sizes = {stream.scratch_region: stream.scratch_bytes, stream.fast_region: stream.fast_bytes}
    for region, size in sizes.items():
        if size:
            memory[region] = rng.integers(0, 256, size).astype(np.uint8)
    for array, place in zip(inputs, stream.inputs, strict=True):
        data = np.ascontiguousarray(array).view(np.uint8).ravel()
        memory[place.region][place.offset : place.offset + place.size] = data
    return memory


def run(stream: CommandStream, inputs) -> tuple[list[bytes], SimulationReport]:
    """The outputs' bytes."""
    memory = memory_for(stream, inputs)
    report = simulate(stream.commands, memory)
    outputs = [
        memory[place.region][place.offset : place.offset + place.size].tobytes()
        for place in stream.outputs
    ]
    return outputs, report


def words_of(stream: CommandStream) -> list[int]:
    """The words of the command stream."""
    count = len(stream.commands) // 4
    return list(struct.unpack(f"<{count}I", stream.commands))[HEADER_WORDS:]


def payload_of(stream: CommandStream, words) -> bytes:
    """A payload for the same accelerator with another stream."""
    header = list(struct.unpack("<8I", stream.commands[: 4 * HEADER_WORDS]))
    header[-1] = 2 | (len(words) >> 16) << 8 | (len(words) & 0xFFFF) << 16
    return struct.pack(f"<{len(header) + len(words)}I", *header, *words)
