"""TOSA graphs as command streams, run on the simulator in memory that is garbage elsewhere."""

from __future__ import annotations

import struct
from functools import lru_cache

import numpy as np

from tensmith.backends.ethosu.simulator import HARDWARE, SimulationReport, simulate
from tensmith.backends.ethosu.simulator.driver_payload import read_instructions, read_payload
from tensmith.backends.ethosu.simulator.register_map import command_map
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


def assembled(target: str, *commands: tuple[str, dict[str, int]]) -> bytes:
    """A payload of commands (name, fields) and a STOP."""
    hardware = HARDWARE[target]
    codes = {f.name: (key, f) for key, f in command_map(hardware.product).items()}
    words = []
    for name, fields in (*commands, ("STOP", {"mask": 0xFFFF})):
        (second, code), format = codes[name]
        value = sum(number << format.fields[field].bit for field, number in fields.items())
        words.append(code | second << 14 | (value & 0xFFFF) << 16)
        words += [value >> 16] * second
    version = 0x20007000 if hardware.product == "u85" else 0x10066001
    header = [0x31504F43, 0x100001, hardware.config_word, version, 5, 5, 5, 2 | len(words) << 16]
    return struct.pack(f"<{len(header) + len(words)}I", *header, *words)


class StreamEditor:
    """A stream whose commands can be changed: [format, value] of each."""

    def __init__(self, stream: CommandStream) -> None:
        self.stream = stream
        payload = read_payload(stream.commands)
        found = read_instructions(payload).values()
        self.commands = [[command.format, command.value] for command in found]

    def places(self, name: str) -> list[int]:
        """Where commands of a name are."""
        return [i for i, (format, _) in enumerate(self.commands) if format.name == name]

    def remove(self, name: str, which: int = 0) -> None:
        del self.commands[self.places(name)[which]]

    def get(self, name: str, field: str = "value", which: int = 0) -> int:
        format, value = self.commands[self.places(name)[which]]
        return format.fields[field].of(value)

    def set(self, name: str, which: int = 0, **fields: int) -> None:
        """Set fields of a command."""
        command = self.commands[self.places(name)[which]]
        for field, value in fields.items():
            place = command[0].fields[field]
            mask = ((1 << place.width) - 1) << place.bit
            command[1] = command[1] & ~mask | value << place.bit

    @property
    def words(self) -> list[int]:
        """The stream as it is now."""
        codes = {id(f): key for key, f in command_map(self._product()).items()}
        words = []
        for format, value in self.commands:
            second, code = codes[id(format)]
            words.append(code | second << 14 | (value & 0xFFFF) << 16)
            words += [value >> 16] * second
        return words

    def _product(self) -> str:
        return read_payload(self.stream.commands).hardware.product

    def payload(self, words: list[int] | None = None) -> bytes:
        """A driver payload with the stream as it is, or of other words, for the same processor."""
        words = self.words if words is None else words
        header = list(struct.unpack("<8I", self.stream.commands[: 4 * HEADER_WORDS]))
        header[-1] = 2 | (len(words) >> 16) << 8 | (len(words) & 0xFFFF) << 16
        return struct.pack(f"<{len(header) + len(words)}I", *header, *words)
