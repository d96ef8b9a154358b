r"""Regular expressions whose matches are runs of characters of one class: `[a-z]+`, `\w\w+`, `.`.

The syntax is that of RE2 (https://github.com/google/re2/wiki/Syntax), whose `\w`, `\d` and `\s` are
ASCII; `.` is any character, as in ONNX Runtime.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
WORD = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
ESCAPED = {
    "w": WORD, "d": frozenset(b"0123456789"), "s": frozenset(b"\t\n\f\r "),
    "t": frozenset(b"\t"), "n": frozenset(b"\n"), "r": frozenset(b"\r"), "f": frozenset(b"\f"),
}  # fmt: skip
ALL = frozenset(range(1, 256))
_ATOM = re.compile(r"\\.|\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^\\\[\](){}*+?|^$]", re.DOTALL)


@dataclass(frozen=True)
class Tokens:
    """members: of the 256 bytes, which may be in a token. least: how many characters a token has.
    single: whether each of these is a token of its own, instead of each run of them."""

    members: Array
    least: int = 1
    single: bool = False


def tokens_of(expression: str) -> Tokens | None:
    """What an expression matches one behind the other in a string; None: no such runs."""
    text = expression.removeprefix("(?u)")
    bounded = text.startswith(r"\b") or text.endswith(r"\b")
    text = text.removeprefix(r"\b").removesuffix(r"\b")
    body, more = text.removesuffix("+"), text.endswith("+")
    atoms = _ATOM.findall(body)
    if "".join(atoms) != body or not atoms:
        return None
    sets = {byte_set(atom) for atom in atoms}
    (members,) = sets if len(sets) == 1 else (None,)
    if members is None or (bounded and members != WORD) or (len(atoms) > 1 and not more):
        return None
    if bounded and not more:
        return None  # a word of one character
    return Tokens(_flags(members), len(atoms), single=not more)


def between(separators: list[str]) -> Tokens | None:
    """What lies between separators of one character of ASCII each; None where one is longer."""
    if separators == [""]:
        return Tokens(_flags(ALL), single=True)
    cutting: set[int] = set()
    for separator in separators:
        atom = separator.removesuffix("+") if len(separator) > 1 else separator
        members = byte_set(atom) if _ATOM.fullmatch(atom) else None
        if members is None or any(byte > 127 for byte in members):
            return None
        cutting |= members
    return Tokens(_flags(ALL - cutting))


def byte_set(atom: str) -> frozenset[int] | None:
    """The bytes of the characters that one atom of an expression matches; None where characters
    beyond ASCII are told apart."""
    if atom == ".":
        return ALL
    if atom.startswith("["):
        return _bracketed(atom[1:-1])
    if atom.startswith("\\"):
        return _escape(atom[1])
    return frozenset(atom.encode()) if atom.isascii() else None


def _escape(letter: str) -> frozenset[int] | None:
    if letter in ESCAPED:
        return ESCAPED[letter]
    if letter in "WDS":
        return ALL - ESCAPED[letter.lower()]
    return None if letter.isalnum() or not letter.isascii() else frozenset(letter.encode())


def _bracketed(inside: str) -> frozenset[int] | None:
    negated = inside.startswith("^")
    items = re.findall(r"\\.|.", inside[negated:], re.DOTALL)
    members: set[int] = set()
    place = 0
    while place < len(items):
        found = _in_brackets(items[place])
        if items[place] == "[" and items[place + 1 : place + 2] == [":"]:
            return None  # a class by name
        if place + 2 < len(items) and items[place + 1] == "-":
            found = _range(found, _in_brackets(items[place + 2]))
            place += 2
        if found is None:
            return None
        members |= found
        place += 1
    return ALL - members if negated else frozenset(members)


def _in_brackets(item: str) -> frozenset[int] | None:
    """The bytes of an escape, or of a character, none of which is special there."""
    if len(item) == 2:
        return _escape(item[1])
    return frozenset(item.encode()) if item.isascii() else None


def _range(lower: frozenset[int] | None, upper: frozenset[int] | None) -> frozenset[int] | None:
    """The bytes from one to another; None where an end is not one
    byte, or the lower one is above the upper."""
    if lower is None or upper is None or len(lower) != 1 or len(upper) != 1:
        return None
    return frozenset(range(min(lower), min(upper) + 1)) or None


def _flags(members: frozenset[int]) -> Array:
    flags = np.zeros(256, np.bool_)
    flags[list(members)] = True
    return flags
