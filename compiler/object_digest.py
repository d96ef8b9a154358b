"""A digest of what an ELF object computes: bytes of code and constants, whatever they are called.

Layout: System V ABI, chapter 4 (Object Files); relocations with addends, as x86-64 and AArch64 use.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from .errors import InternalError

DIGITS = 16
_SYMTAB, _RELA, _NOBITS = 2, 4, 8
_ALLOCATED = 2
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
# what describes code for debuggers and unwinding, and is not run
_ASIDE = (".eh_frame", ".note", ".comment", ".llvm")


@dataclass(frozen=True)
class _Section:
    name: str
    type: int
    flags: int
    data: bytes
    link: int
    info: int


def object_digest(data: bytes) -> str:
    """A short digest of the sections that are loaded, and of what their relocations mean.

    Fields that a linker fills are blank in such objects; what they refer to counts by its place, or
    by its name where another object has it. Raises InternalError for no 64-bit ELF object.
    """
    sections = _sections(data)
    digest = hashlib.sha256()
    for number, section in enumerate(sections):
        if not section.flags & _ALLOCATED or section.name.startswith(_ASIDE):
            continue
        moved = [s for s in sections if s.type == _RELA and s.info == number]
        lines = [
            f"{offset} {kind} {target} {addend}"
            for table in moved
            for offset, kind, target, addend in _relocations(table, sections)
        ]
        digest.update(f"{section.name} {section.flags} {len(section.data)}\n".encode())
        digest.update(section.data + "\n".join(sorted(lines)).encode())
    return digest.hexdigest()[:DIGITS]


def _sections(data: bytes) -> list[_Section]:
    if data[:5] != b"\x7fELF\x02":
        raise InternalError("the code generator gave no 64-bit ELF object")
    fields = _HEADER.unpack_from(data)
    start, size, count, names = fields[6], fields[11], fields[12], fields[13]
    rows = [_SECTION.unpack_from(data, start + size * n) for n in range(count)]
    texts = data[rows[names][4] : rows[names][4] + rows[names][5]]
    found = []
    for name, kind, flags, _, offset, length, link, info, *_ in rows:
        content = b"" if kind == _NOBITS else data[offset : offset + length]
        text = texts[name : texts.index(b"\0", name)].decode()
        found.append(_Section(text, kind, flags, content, link, info))
    return found


def _relocations(table: _Section, sections: list[_Section]) -> Iterator[tuple[int, int, str, int]]:
    """(offset, kind, what is meant, addend) of every relocation."""
    symbols = sections[table.link]
    texts = sections[symbols.link].data
    for offset, info, addend in _RELOCATION.iter_unpack(table.data):
        number, kind = info >> 32, info & 0xFFFFFFFF
        name, _, _, section, value, _ = _SYMBOL.unpack_from(symbols.data, number * _SYMBOL.size)
        if section:  # defined here, or a number
            target = f"{sections[section].name if section < len(sections) else section}+{value}"
        else:
            target = texts[name : texts.index(b"\0", name)].decode()
        yield offset, kind, target, addend
