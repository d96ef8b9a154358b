"""What is no tensor of the graph: sequences, optionals, strings and maps, resolved while importing.

Sequences and optionals hold values and leave no trace in the graph. Strings are their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ...compiler.ir import Dim, DType, Value


@dataclass(frozen=True)
class ValueList:
    """A sequence of values of one element type; the number of them is known."""

    items: tuple[Value, ...]
    dtype: DType | None = None


@dataclass(frozen=True)
class Growing:
    """A sequence whose length a run decides: its elements one behind the other.

    data: their concatenation along `axis`, which comes first: [total, other sizes...]. sizes: i64
    [length], of the elements along that axis. each: what all of these are, where they are one.
    axis: None for elements of rank 0.
    """

    data: Value
    sizes: Value
    axis: int | None
    each: Dim | None


@dataclass(frozen=True)
class Text:
    """Strings: UTF-8 bytes, u8 [..., width], of which zeros follow the shorter strings."""

    data: Value


@dataclass(frozen=True)
class Maps:
    """Maps, one per row: what belongs to each of the keys, [rows, keys], or, where that is strings,
    their bytes, [rows, keys, width].

    keys: None: all that the maps have, in their order. key_type: "string", "int64", or "" of what
    the model makes.
    """

    data: Value
    keys: tuple[int | str, ...] | None
    is_text: bool = False
    key_type: str = ""


@dataclass(frozen=True)
class Maybe:
    """An optional, of which it is known whether it holds something."""

    content: Value | ValueList | Growing | Text | Maps | None


Content = Value | ValueList | Growing | Maybe | Text | Maps
# Operators whose lowerings look at `Site.entries`, where containers are.
TAKE_CONTAINERS = frozenset(
    {"Cast", "CastLike", "Identity", "If", "Loop", "ConcatFromSequence", "SequenceAt",
     "SequenceErase", "SequenceInsert", "SequenceLength", "SequenceMap", "Optional",
     "OptionalGetElement", "OptionalHasElement", "Equal", "StringConcat", "StringNormalizer",
     "StringSplit", "RegexFullMatch", "TfIdfVectorizer", "Unique", "ai.onnx.ml.LabelEncoder",
     "ai.onnx.ml.CategoryMapper", "ai.onnx.ml.OneHotEncoder", "ai.onnx.ml.CastMap",
     "ai.onnx.ml.DictVectorizer", "com.microsoft.MurmurHash3", "com.microsoft.Tokenizer"}
)  # fmt: skip


def flattened(entries: Sequence[Content]) -> Iterator[Value]:
    """The values inside of entries, in order."""
    for entry in entries:
        if isinstance(entry, Value):
            yield entry
        elif isinstance(entry, (Text, Maps)):
            yield entry.data
        elif isinstance(entry, ValueList):
            yield from entry.items
        elif isinstance(entry, Growing):
            yield from (entry.data, entry.sizes)
        elif entry.content is not None:
            yield from flattened([entry.content])


def shape_of(entry: Content) -> object:
    """Something that is equal for entries of one structure."""
    if isinstance(entry, Value):
        return "value"
    if isinstance(entry, Text):
        return "text"
    if isinstance(entry, Maps):
        return ("maps", entry.keys, entry.is_text)
    if isinstance(entry, Growing):
        return ("growing", entry.axis, entry.each)
    if isinstance(entry, ValueList):
        return ("list", len(entry.items))
    return ("optional", None if entry.content is None else shape_of(entry.content))


def refilled(entries: Sequence[Content], values: Iterator[Value]) -> list[Content]:
    """Entries of the same structure that hold other values."""
    made: list[Content] = []
    for entry in entries:
        if isinstance(entry, Value):
            made.append(next(values))
        elif isinstance(entry, Text):
            made.append(Text(next(values)))
        elif isinstance(entry, Maps):
            made.append(replace(entry, data=next(values)))
        elif isinstance(entry, ValueList):
            made.append(ValueList(tuple(next(values) for _ in entry.items), entry.dtype))
        elif isinstance(entry, Growing):
            made.append(Growing(next(values), next(values), entry.axis, entry.each))
        elif entry.content is None:
            made.append(entry)
        else:
            inner = refilled([entry.content], values)[0]
            made.append(Maybe(inner if not isinstance(inner, Maybe) else None))
    return made
