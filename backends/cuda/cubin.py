"""What a cubin says of its function: parameters, registers, stack, shared memory.

A cubin is an ELF file; section `.nv.info.<function>` and `.nv.info` hold attributes of two bytes
(format, number) and a value each. Numbers and layouts: what NVIDIA's `cuobjdump -elf` prints.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ...compiler.errors import InternalError

MACHINE = 190  # e_machine of CUDA's ELF files
_REGISTERS, _FRAME, _PARAMETER = 0x2F, 0x11, 0x17  # attributes
_SIZED = 4  # the format of an attribute with bytes behind it
_NO_BITS = 8  # the type of a section that has no content
_NEW_ABI = 65  # e_ident[EI_OSABI] from CUDA 13 on: the architecture is in other bits of e_flags


@dataclass(frozen=True)
class Cubin:
    """parameters: (offset, bytes) of each, in order. registers: of a thread. stack: bytes of a
    thread, where registers are spilled to. shared: static bytes of a block."""

    architecture: int
    parameters: tuple[tuple[int, int], ...]
    registers: int
    stack: int
    shared: int


def read_cubin(data: bytes, function: str) -> Cubin:
    """What there is to know of a function. Raises InternalError for what is no cubin of it."""
    if len(data) < 64 or data[:4] != b"\x7fELF" or struct.unpack_from("<H", data, 18)[0] != MACHINE:
        raise InternalError("this is no file of code for NVIDIA's GPUs")
    sections = _sections(data)
    own = sections.get(f".nv.info.{function}")
    if own is None:
        raise InternalError(f"the cubin has no function '{function}'")
    parameters: dict[int, tuple[int, int]] = {}
    for number, value in _attributes(own[0]):
        if number == _PARAMETER:
            _, ordinal, offset, flags = struct.unpack("<IHHI", value)
            parameters[ordinal] = offset, flags >> 18
    common = list(_attributes(sections[".nv.info"][0]))
    flags = struct.unpack_from("<I", data, 48)[0]
    return Cubin(
        architecture=(flags >> 8 if data[7] == _NEW_ABI else flags) & 0xFF,
        parameters=tuple(parameters[ordinal] for ordinal in sorted(parameters)),
        registers=_largest(common, _REGISTERS),
        stack=_largest(common, _FRAME),
        shared=sections.get(f".nv.shared.{function}", (b"", 0))[1],
    )


def _largest(attributes: list[tuple[int, bytes]], wanted: int) -> int:
    """The largest value of an attribute that symbols have."""
    values = [struct.unpack("<II", value)[1] for number, value in attributes if number == wanted]
    return max(values, default=0)


def _sections(data: bytes) -> dict[str, tuple[bytes, int]]:
    """Content and size of every section, by name."""
    start = struct.unpack_from("<Q", data, 0x28)[0]
    entry, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + n * entry) for n in range(count)]
    strings = headers[names][4]
    found = {}
    for name, kind, _, _, offset, size, *_ in headers:
        end = data.index(b"\0", strings + name)
        content = b"" if kind == _NO_BITS else data[offset : offset + size]
        found[data[strings + name : end].decode()] = content, size
    return found


def _attributes(section: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(section):
        form, number, value = struct.unpack_from("<BBH", section, at)
        at += 4
        if form == _SIZED:
            yield number, section[at : at + value]
            at += value
