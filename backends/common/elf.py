"""The little of ELF that linking needs: a file as an object, symbols made local, code aligned.

Layouts: System V ABI, chapter 4, 64-bit little-endian.
"""

from __future__ import annotations

import mmap
import shutil
import struct
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

MACHINES = {"x86_64": 62, "aarch64": 183}

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_IDENT = b"\x7fELF\x02\x01\x01" + bytes(9)
_REL_FILE = 1
_NULL, _PROGBITS, _SYMTAB, _STRTAB, _RELA, _REL, _GROUP = 0, 1, 2, 3, 4, 9, 17
_ADDRSIG = 0x6FFF4C03
_ALLOC, _EXECUTED = 2, 4
_LOCAL, _GLOBAL, _WEAK = 0, 1, 2
_OBJECT, _HIDDEN = 1, 2


def write_data_object(path: Path, arch: str, symbol: str, data: Path, alignment: int) -> None:
    """Write a relocatable object that holds the file `data` as read-only data named `symbol`.

    The symbol is global and hidden; its section starts on a multiple of `alignment` bytes.
    """
    size = data.stat().st_size
    names = b"\0.rodata.weights\0.symtab\0.strtab\0.note.GNU-stack\0"
    strings = b"\0" + symbol.encode() + b"\0"
    info = _GLOBAL << 4 | _OBJECT
    symbols = bytes(_SYMBOL.size) + _SYMBOL.pack(1, info, _HIDDEN, 1, 0, size)
    tables = symbols + strings + names
    start = alignment
    after = start + size
    sections_at = (after + len(tables) + 7) // 8 * 8

    def name(text: bytes) -> int:
        return names.index(b"\0" + text + b"\0") + 1

    strings_at, names_at = after + len(symbols), after + len(symbols) + len(strings)
    sections = [
        bytes(_SECTION.size),
        _SECTION.pack(
            name(b".rodata.weights"), _PROGBITS, _ALLOC, 0, start, size, 0, 0, alignment, 0
        ),
        _SECTION.pack(name(b".symtab"), _SYMTAB, 0, 0, after, len(symbols), 3, 1, 8, _SYMBOL.size),
        _SECTION.pack(name(b".strtab"), _STRTAB, 0, 0, strings_at, len(strings), 0, 0, 1, 0),
        _SECTION.pack(name(b".strtab"), _STRTAB, 0, 0, names_at, len(names), 0, 0, 1, 0),
        _SECTION.pack(name(b".note.GNU-stack"), _PROGBITS, 0, 0, names_at, 0, 0, 0, 1, 0),
    ]
    header = _HEADER.pack(
        _IDENT, _REL_FILE, MACHINES[arch], 1, 0, 0, sections_at, 0, 64, 0, 0, 64, len(sections), 4
    )
    with path.open("wb") as file, data.open("rb") as source:
        file.write(header.ljust(start, b"\0"))
        shutil.copyfileobj(source, file, 1 << 20)
        file.write(tables.ljust(sections_at - after, b"\0"))
        file.write(b"".join(sections))


def localize_symbols(path: Path, keep: Collection[str], weak: Collection[str]) -> None:
    """Make every defined global symbol of a relocatable object local, in place.

    `keep` stay as they are; `weak` become weak, so that several objects may define them.
    """
    with path.open("r+b") as file:
        _localize(file, keep, weak)


def _localize(file: BinaryIO, keep: Collection[str], weak: Collection[str]) -> None:
    with mmap.mmap(file.fileno(), 0) as image:
        sections_at, count = _HEADER.unpack_from(image)[6], _HEADER.unpack_from(image)[12]
        offsets = [sections_at + i * _SECTION.size for i in range(count)]
        sections = [_SECTION.unpack_from(image, offset) for offset in offsets]
        index = next(i for i, section in enumerate(sections) if section[1] == _SYMTAB)
        table = sections[index]
        strings_at = sections[table[6]][4]
        symbols = [list(s) for s in _SYMBOL.iter_unpack(image[table[4] : table[4] + table[5]])]
        for symbol in symbols:
            end = image.find(b"\0", strings_at + symbol[0])
            name = image[strings_at + symbol[0] : end].decode()
            defined, bind = symbol[3] != 0, symbol[1] >> 4
            if not defined or bind == _LOCAL or name in keep:
                continue
            bind = _WEAK if name in weak else _LOCAL
            symbol[1] = bind << 4 | symbol[1] & 15
            if bind == _LOCAL:
                symbol[2] = 0
        order = sorted(range(len(symbols)), key=lambda i: symbols[i][1] >> 4 != _LOCAL)
        moved = {old: new for new, old in enumerate(order)}
        packed = b"".join(_SYMBOL.pack(*symbols[old]) for old in order)
        image[table[4] : table[4] + table[5]] = packed
        locals_count = sum(symbol[1] >> 4 == _LOCAL for symbol in symbols)
        struct.pack_into("<I", image, offsets[index] + 44, locals_count)
        for section, offset in zip(sections, offsets, strict=True):
            if section[6] == index:
                _renumber(image, section, offset, moved)


def _renumber(
    image: mmap.mmap, section: tuple[int, ...], offset: int, moved: dict[int, int]
) -> None:
    """Follow the symbols of one section that refers to the symbol table."""
    kind, at, size, entry = section[1], section[4], section[5], section[9]
    if kind in (_RELA, _REL):
        for info_at in range(at + 8, at + size, entry):
            (info,) = struct.unpack_from("<Q", image, info_at)
            info = moved[info >> 32] << 32 | info & 0xFFFFFFFF
            struct.pack_into("<Q", image, info_at, info)
    elif kind == _GROUP:
        struct.pack_into("<I", image, offset + 44, moved[section[7]])
    elif kind == _ADDRSIG:  # only a hint for merging identical code; dropped
        struct.pack_into("<I", image, offset + 4, _NULL)


def with_aligned_code(data: bytes, alignment: int) -> bytes:
    """A relocatable object whose sections of code begin at multiples of `alignment` bytes."""
    changed = bytearray(data)
    sections_at, count = _HEADER.unpack_from(data)[6], _HEADER.unpack_from(data)[12]
    for at in range(sections_at, sections_at + count * _SECTION.size, _SECTION.size):
        fields = list(_SECTION.unpack_from(data, at))
        if fields[2] & _EXECUTED:
            fields[8] = max(fields[8], alignment)
            _SECTION.pack_into(changed, at, *fields)
    return bytes(changed)
