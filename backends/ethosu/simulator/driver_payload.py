"""Reads driver payloads (COP1): what they are for, and the command stream in them.

Layout as the CMSIS Ethos-U driver reads it: the letters COP1, then actions, each a word of kind (8
bits), high and low length; the stream begins at a multiple of 16 bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from .npu_hardware import NpuHardware, hardware_of
from .register_map import CommandFormat, command_map
from .violations import Rule, SimulationError

Words = np.ndarray[Any, np.dtype[np.uint32]]
_CONFIG, _STREAM, _NOTHING = 1, 2, 5
_CODE, _SECOND_WORD, _RESERVED = 0x3FF, 0x4000, 0xBC00


@dataclass(frozen=True)
class DriverPayload:
    """A payload taken apart. stream: the words of the command stream."""

    hardware: NpuHardware
    stream: Words


@dataclass(frozen=True)
class StreamCommand:
    """One command of the stream. position: of its first word; following: of the next command's.

    value: what the command carries, low bits from its first word (`register_map`).
    """

    position: int
    following: int
    format: CommandFormat
    value: int

    def field(self, name: str) -> int:
        return self.format.fields[name].of(self.value)


def read_payload(payload: bytes | bytearray | memoryview) -> DriverPayload:
    """Take a COP1 payload apart. Raises SimulationError where it is malformed."""
    data = bytes(payload)
    if data[:4] != b"COP1":
        raise SimulationError(Rule.PAYLOAD, "it does not begin with COP1")
    if len(data) % 4:
        raise SimulationError(Rule.PAYLOAD, f"{len(data)} bytes are no whole number of words")
    words = np.frombuffer(data, "<u4")
    hardware, at = None, 1
    while at < len(words):
        word = int(words[at])
        kind = word & 0xFF
        if kind == _NOTHING:
            at += 1
        elif kind == _CONFIG and at + 2 < len(words):
            hardware = hardware_of(int(words[at + 1]), int(words[at + 2]))
            at += 3
        elif kind == _STREAM:
            if hardware is None:
                raise SimulationError(Rule.PAYLOAD, "the stream comes before the configuration")
            return DriverPayload(hardware, _stream(words, at + 1, word))
        else:
            raise SimulationError(Rule.PAYLOAD, f"action {word:#010x} at word {at} is not known")
    raise SimulationError(Rule.PAYLOAD, "it has no command stream")


def _stream(words: Words, begin: int, tag: int) -> Words:
    length = tag >> 16 | (tag >> 8 & 0xFF) << 16
    if begin % 4:
        raise SimulationError(Rule.PAYLOAD, f"the stream begins at byte {4 * begin}, not of 16")
    if begin + length != len(words):
        raise SimulationError(
            Rule.PAYLOAD, f"a stream of {length} words, but {len(words) - begin} follow"
        )
    return words[begin:]


def read_instructions(payload: DriverPayload) -> Mapping[int, StreamCommand]:
    """All commands of a stream by position, checked to be known. Raises SimulationError."""
    commands = command_map(payload.hardware.product)
    words = [int(word) for word in payload.stream]
    found, at = {}, 0
    while at < len(words):
        found[at] = instruction = _instruction(words, at, commands)
        at = instruction.following
    return found


def _instruction(words: list[int], at: int, commands: Mapping[Any, CommandFormat]) -> StreamCommand:
    word = words[at]
    second = bool(word & _SECOND_WORD)
    known = commands.get((second, word & _CODE))
    if known is None:
        raise SimulationError(Rule.OPCODE, f"{word:#010x}", at)
    if second and at + 1 == len(words):
        raise SimulationError(Rule.TRUNCATED, f"{known.name} lacks its second word", at)
    value = word >> 16 | (words[at + 1] << 16 if second else 0)
    if word & _RESERVED or value & ~known.mask:
        raise SimulationError(Rule.RESERVED_BITS, f"{known.name} is {value:#x}", at)
    for name, field in known.fields.items():
        if field.legal is not None and field.of(value) not in field.legal:
            raise SimulationError(
                Rule.REGISTER_VALUE, f"{known.name}: {name} is {field.of(value)}", at
            )
    return StreamCommand(at, at + 1 + second, known, value)
