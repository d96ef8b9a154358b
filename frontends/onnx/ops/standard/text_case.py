"""Strings in lower or upper case, without words that are to be left out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from .....compiler.ir import DType, Value, constant
from ...containers import Content, Text
from ...site import Site
from ...table import lowers
from ..shared.byte_rows import after, before, strings_of
from .selection import true_places
from .strings import place_among

Array = np.ndarray[Any, Any]
BASIC_PLANE = 1 << 16  # characters of up to three bytes
SURROGATES = range(0xD800, 0xE000)
# Where cased letters were still to come in Unicode 14, the oldest that a supported Python knows.
# Pairs of letters that are there already never change: "Case Pair Stability" of
# https://www.unicode.org/policies/stability_policy.html
_LATER = (
    range(0x1C89, 0x1C90), range(0xA7CB, 0xA7D0), range(0xA7D2, 0xA7D3), range(0xA7D4, 0xA7D5),
    range(0xA7DA, 0xA7F2),
)  # fmt: skip


@cache
def _cases(lower: bool) -> Array:
    """The character that each of the basic plane becomes: one character of as many bytes in UTF-8
    (the simple mappings of the Unicode character database), the few others stay as they are."""
    table = np.arange(BASIC_PLANE, dtype=np.int32)
    for code in range(BASIC_PLANE):
        if code in SURROGATES:
            continue
        character = chr(code)
        other = character.lower() if lower else character.upper()
        if len(other) != 1 or len(other.encode()) != len(character.encode()):
            continue
        if not any(code in later or ord(other) in later for later in _LATER):
            table[code] = ord(other)
    return table


def in_case(s: Site, row: Value, lower: bool) -> Value:
    """The characters of UTF-8 bytes [rows, width] in one case."""
    here = s.cast(row, DType.I32)
    second, third = after(s, here), after(s, here, 2)
    two = s.op_("eq", s.op_("bitand", here, 0xE0), 0xC0)
    three = s.op_("eq", s.op_("bitand", here, 0xF0), 0xE0)
    one = s.op_("lt", here, 0x80)
    of_two = _joined(s, [s.op_("bitand", here, 0x1F), second])
    of_three = _joined(s, [s.op_("bitand", here, 0x0F), second, third])
    code = s.op_("where", one, here, s.op_("where", two, of_two, of_three))
    code = s.op_("bitand", code, BASIC_PLANE - 1)
    other = s.emit("gather", [constant(_cases(lower)), code], axis=0)
    first = s.op_("where", two, _leading(s, other, 6, 0xC0), _leading(s, other, 12, 0xE0))
    made = s.op_("where", one, other, s.op_("where", s.op_("or", two, three), first, here))
    # the second byte of two, the second and the third of three
    middle = s.op_("where", two, _following(s, other, 0), _following(s, other, 6))
    made = s.op_("where", before(s, s.op_("or", two, three)), before(s, middle), made)
    made = s.op_("where", before(s, three, 2), before(s, _following(s, other, 0), 2), made)
    return s.cast(made, DType.U8)


def _joined(s: Site, bits: Sequence[Value]) -> Value:
    """The code of a character: bits of its first byte, six of each that follows."""
    code = bits[0]
    for byte in bits[1:]:
        code = s.op_("bitor", s.op_("mul", code, 64), s.op_("bitand", byte, 0x3F))
    return code


def _leading(s: Site, code: Value, shift: int, mark: int) -> Value:
    return s.op_("bitor", s.op_("div", code, 1 << shift), mark)


def _following(s: Site, code: Value, shift: int) -> Value:
    return s.op_("bitor", s.op_("bitand", s.op_("div", code, 1 << shift), 0x3F), 0x80)


@lowers("StringNormalizer")
def string_normalizer(s: Site) -> Sequence[Content]:
    """The strings that are no stop words, in one case; an empty string where none is left."""
    strings = strings_of(s)
    shape = strings.shape
    if len(shape) not in (1, 2):
        raise ValueError(f"strings in {len(shape)} dimensions: it takes [C] and [1, C]")
    if len(shape) == 2:
        s.require(shape[0], "==", 1, "it takes strings in [C] and [1, C]")
    action = s.text("case_change_action", "NONE")
    if action not in ("LOWER", "UPPER", "NONE"):
        raise ValueError(f"case_change_action '{action}' is not LOWER, UPPER or NONE")
    row = strings.data
    made = row if action == "NONE" else in_case(s, row, action == "LOWER")
    words = s.texts("stopwords", [])
    if not words:
        return [Text(s.reshape(made, (*shape, made.shape[-1])))]
    exact = bool(s.integer("is_case_sensitive"))
    judged = row if exact else in_case(s, row, lower=True)
    stops = list(dict.fromkeys(words if exact else [_lower(word) for word in words]))
    _, found = place_among(s, Text(judged), stops)
    kept = true_places(s, s.op_("not", found))
    (count,) = kept.shape
    (length,) = s.dims(s.op_("max", s.emitter.virtual([count]), 1))
    left = s.emit("gather", [made, kept], axis=0)
    left = s.emit("pad", [left, s.scalar(0, DType.U8)], pads=(0, 0, 1, 0), mode="constant")
    left = s.slice(left, 0, 0, length)
    return [Text(s.reshape(left, (*(1,) * (len(shape) - 1), length, left.shape[-1])))]


def _lower(word: str) -> str:
    table = _cases(lower=True)
    return "".join(chr(table[ord(c)]) if ord(c) < BASIC_PLANE else c for c in word)
