"""Strings cut into fields and words."""

from __future__ import annotations

from collections.abc import Sequence

from .....compiler.ir import DType, Value, constant
from ...containers import Content
from ...site import NotSupported, Site
from ...table import MICROSOFT, lowers
from ..shared.byte_classes import Tokens, between, tokens_of
from ..shared.byte_rows import (
    SPACES,
    Strings,
    after,
    before,
    begins_character,
    cut,
    running,
    strings_of,
    total,
)  # fmt: skip


@lowers("StringSplit")
def string_split(s: Site) -> Sequence[Content]:
    """Fields between a delimiter, or words between spaces; how many each string has."""
    strings = strings_of(s)
    limit = s.integer("maxsplit") if s.has("maxsplit") else None
    delimiter = s.text("delimiter", "").encode()
    if delimiter:
        number, counts = _fields(s, strings, delimiter, limit)
    else:
        number, counts = _words(s, strings, limit)
    return [cut(s, strings, number, counts), s.reshape(counts, strings.shape)]


def _fields(s: Site, strings: Strings, delimiter: bytes, limit: int | None) -> tuple[Value, Value]:
    """To which field each byte belongs, and the number of fields: none in an empty string."""
    size = len(delimiter)
    if any(delimiter[:n] == delimiter[-n:] for n in range(1, size)):
        raise NotSupported(
            "its delimiter begins as it ends, so that places where it is found may overlap",
            "split the strings outside of the model",
        )
    row = strings.data
    found = s.op_("eq", row, delimiter[0])
    for step in range(1, size):
        found = s.op_("and", found, s.op_("eq", after(s, row, step), delimiter[step]))
    if limit is not None:
        found = s.op_("and", found, s.op_("le", running(s, found), limit))
    cutting = found
    for step in range(1, size):
        cutting = s.op_("or", cutting, before(s, found, step))
    inside = s.op_("and", s.op_("ne", row, 0), s.op_("not", cutting))
    number = s.op_("where", inside, running(s, found), -1)
    filled = s.op_("gt", total(s, s.op_("ne", row, 0)), 0)
    return number, s.op_("where", filled, s.op_("add", total(s, found), 1), 0)


def _words(s: Site, strings: Strings, limit: int | None) -> tuple[Value, Value]:
    """To which word each byte belongs, and the number of words; the last of as many as the limit
    allows goes to the end of the string, without the spaces there."""
    row = strings.data
    blank = s.op_("eq", row, 0)
    for byte in SPACES:
        blank = s.op_("or", blank, s.op_("eq", row, byte))
    filled = s.op_("not", blank)
    begun = running(s, s.op_("and", filled, s.op_("not", before(s, filled))))
    if limit is not None:
        begun = s.op_("min", begun, limit + 1)
        steps = s.iota((1, row.shape[1]), 1, DType.I64)
        last = s.reduce("max", s.op_("where", filled, steps, -1), [1])
        rest = s.op_("and", s.op_("gt", begun, limit), s.op_("le", steps, last))
        filled = s.op_("or", filled, rest)
    number = s.op_("where", filled, s.op_("sub", begun, 1), -1)
    return number, s.op_("add", s.reduce("max", number, [1]), 1)


@lowers("Tokenizer", domain=MICROSOFT)
def tokenizer(s: Site) -> Sequence[Content]:
    """Runs of characters that an expression describes, or that separators leave."""
    strings = strings_of(s)
    if s.integer("mark", 0):
        raise NotSupported(
            "it marks where texts begin and end", "convert the pipeline without marks (mark=0)"
        )
    expression, separators = s.text("tokenexp", ""), s.texts("separators", [])
    tokens = tokens_of(expression) if expression else between(separators)
    if tokens is None:
        raise NotSupported(
            f"tokens are not runs of characters of one class: {expression or separators}",
            r"describe them so, as [a-z0-9]+ or \w\w+ do, or split the strings outside",
        )
    least = max(tokens.least, s.integer("mincharnum"))
    number, counts = _runs(s, strings, tokens, least)
    return [cut(s, strings, number, counts, s.text("pad_value"))]


def _runs(s: Site, strings: Strings, tokens: Tokens, least: int) -> tuple[Value, Value]:
    """To which token each byte belongs, and the number of tokens of at least so many characters."""
    row = strings.data
    inside = s.emit("gather", [constant(tokens.members), s.cast(row, DType.I64)], axis=0)
    first = begins_character(s, row)
    begins = s.op_("and", inside, first if tokens.single else s.op_("not", before(s, inside)))
    counts = total(s, begins)
    number = s.op_("where", inside, s.op_("sub", running(s, begins), 1), -1)
    if least <= 1:
        return number, counts
    place = s.op_("max", number, 0)
    ones = s.cast(s.op_("and", inside, first), DType.I64)
    none = s.expand(s.scalar(0, DType.I64), row.shape)
    sizes = s.emit("scatter_elements", [none, place, ones], axis=1, reduction="add")
    long = s.op_("ge", sizes, least)
    kept = s.emit("gather_elements", [long, place], axis=1)
    renumbered = s.emit("gather_elements", [running(s, long), place], axis=1)
    inside = s.op_("and", inside, kept)
    return s.op_("where", inside, s.op_("sub", renumbered, 1), -1), total(s, long)
