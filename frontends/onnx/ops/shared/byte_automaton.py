r"""Regular expressions as finite automata over the bytes of UTF-8.

The syntax is that of RE2 (https://github.com/google/re2/wiki/Syntax) as far as Python's `re` has
it, too; `\w`, `\d` and `\s` are ASCII, and `.` is no line feed, as there. Subsets of the states of
Thompson's construction become the states of one table.
"""

from __future__ import annotations

import platform
import re
import warnings
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from .byte_classes import ESCAPED

Array = np.ndarray[Any, Any]
Ranges = list[tuple[int, int]]  # of code points, both ends included
MAX_STATES = 2048
MAX_COPIES = 1000  # of what is repeated, as in RE2
LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
_START, _END = "^", "$"  # edges that take no byte: at the beginning, at the end
_ENDS = (0x7F, 0x7FF, 0xFFFF, LAST)  # of the code points with one more byte each


# Of an expression: escapes, classes, the beginning of a comment, `{,n}`, which is text, the rest.
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?#|\{,[0-9]*\}|.", re.DOTALL)
_ESCAPES = "aftnrvxdDsSwWbBAz01234567"
_CODES = (
    "ANY", "AT", "AT_BEGINNING", "AT_BEGINNING_STRING", "AT_END", "AT_END_STRING", "BRANCH",
    "CATEGORY", "IN", "LITERAL", "MAXREPEAT", "MAX_REPEAT", "MIN_REPEAT", "NEGATE", "NOT_LITERAL",
    "RANGE", "SUBPATTERN",
)  # fmt: skip


def _module(name: str) -> Any:
    """A part of Python's `re` that is not public; None where a version has none."""
    try:
        return import_module(name)
    except ImportError:
        return None


sre, parser = _module("re._constants"), _module("re._parser")


class NotRegular(Exception):
    """What is not described by an automaton here, with the reason."""


@dataclass(frozen=True)
class Automaton:
    """following: i32 [states, classes]; classes: i32 [256], of the bytes, 0 for byte 0, which
    stands behind a string and changes nothing; accepted: bool [states]. The first state is 0."""

    following: Array
    classes: Array
    accepted: Array


def automaton(expression: str) -> Automaton:
    """That which accepts the strings that match as a whole. Raises NotRegular."""
    written = _as_in_python(expression)
    if parser is None or not all(hasattr(sre, name) for name in _CODES):
        raise NotRegular(f"the parser of Python {platform.python_version()} is not known here")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what classes may once mean
            tree = parser.parse(written, re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise NotRegular(f"it is not read: {error}") from None
    if tree.state.flags & (re.IGNORECASE | re.MULTILINE | re.VERBOSE):
        raise NotRegular("it has flags")
    made = _States(dots=bool(tree.state.flags & re.DOTALL))
    start, end = made.new(), made.new()
    made.sequence(tree, start, end)
    return _table(made, start, end)


def _as_in_python(expression: str) -> str:
    """What is an expression of RE2 as one of Python's. Raises NotRegular."""
    found = []
    for token in _TOKEN.findall(expression):
        escapes = re.findall(r"\\(.)", token, re.DOTALL)
        bad = [e for e in escapes if (e.isalnum() or e > "\x7f") and e not in _ESCAPES]
        in_class = len(token) > 1 and token[0] == "["
        if bad or (in_class and ("[:" in token or {"A", "z", "B", "b"} & set(escapes))):
            raise NotRegular(f"{token!r} has a class by name, or an escape that is not read")
        if token == "(?#":
            raise NotRegular("it has a comment")
        if token.startswith("{,"):
            token = rf"\{token[:-1]}\}}"
        found.append(r"\Z" if token == r"\z" else token)
    return "".join(found)


@dataclass
class _States:
    """Thompson's construction: edges by bytes [low, high], and edges that take none."""

    dots: bool
    bytes_: list[list[tuple[int, int, int]]] = field(default_factory=list)
    free: list[list[tuple[str, int]]] = field(default_factory=list)

    def new(self) -> int:
        """One more state."""
        if len(self.bytes_) > 16 * MAX_STATES:
            raise NotRegular(f"it takes more than {16 * MAX_STATES} states before they are joined")
        self.bytes_.append([])
        self.free.append([])
        return len(self.bytes_) - 1

    def sequence(self, items: Iterable[tuple[Any, Any]], start: int, end: int) -> None:
        """What matches items one behind the other, between two states."""
        at = start
        for op, argument in items:
            after = self.new()
            self.item(op, argument, at, after)
            at = after
        self.free[at].append(("", end))

    def item(self, op: Any, argument: Any, start: int, end: int) -> None:
        """One item of what Python parses an expression to."""
        if op is sre.BRANCH:
            for branch in argument[1]:
                self.sequence(branch, start, end)
        elif op is sre.SUBPATTERN:
            _, added, removed, inside = argument
            if added or removed:
                raise NotRegular("it has flags inside")
            self.sequence(inside, start, end)
        elif op in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            least, most, inside = argument
            self.repeated(least, most, inside, start, end)
        elif op is sre.AT and argument in (sre.AT_BEGINNING, sre.AT_BEGINNING_STRING):
            self.free[start].append((_START, end))
        elif op is sre.AT and argument in (sre.AT_END, sre.AT_END_STRING):
            self.free[start].append((_END, end))
        else:
            self.characters(_ranges(op, argument, self.dots), start, end)

    def repeated(self, least: int, most: Any, inside: Any, start: int, end: int) -> None:
        """`least` to `most` times the same."""
        bounded = most is not sre.MAXREPEAT
        if least > MAX_COPIES or (bounded and most > MAX_COPIES):
            raise NotRegular(f"it repeats something more than {MAX_COPIES} times")
        at = start
        for _ in range(least):
            after = self.new()
            self.sequence(inside, at, after)
            at = after
        if not bounded:
            loop = self.new()
            self.free[at].append(("", loop))
            self.sequence(inside, loop, loop)
            self.free[loop].append(("", end))
            return
        for _ in range(most - least):
            self.free[at].append(("", end))
            after = self.new()
            self.sequence(inside, at, after)
            at = after
        self.free[at].append(("", end))

    def characters(self, ranges: Ranges, start: int, end: int) -> None:
        """One character of some ranges."""
        for low, high in ranges:
            for steps in _byte_ranges(max(low, 1), high):
                at = start
                for place, (first, last) in enumerate(steps):
                    after = end if place == len(steps) - 1 else self.new()
                    self.bytes_[at].append((first, last, after))
                    at = after

    def closure(self, states: Iterable[int], passing: str) -> frozenset[int]:
        """The states that are reached without a byte; passing: which places this is."""
        found = set(states)
        waiting = list(found)
        while waiting:
            for kind, state in self.free[waiting.pop()]:
                if (not kind or kind in passing) and state not in found:
                    found.add(state)
                    waiting.append(state)
        return frozenset(found)


def _ranges(op: Any, argument: Any, dots: bool) -> Ranges:
    """The code points that an item for one character matches."""
    if op is sre.LITERAL:
        return [(argument, argument)]
    if op is sre.NOT_LITERAL:
        return _others([(argument, argument)])
    if op is sre.ANY:
        return [(0, LAST)] if dots else _others([(10, 10)])
    if op is not sre.IN:
        raise NotRegular(f"it has {str(op).lower()}")
    negated = bool(argument) and argument[0][0] is sre.NEGATE
    found: Ranges = []
    for kind, value in argument[negated:]:
        if kind is sre.LITERAL:
            found.append((value, value))
        elif kind is sre.RANGE:
            found.append(tuple(value))
        elif kind is sre.CATEGORY:
            found += _category(str(value).rpartition("_")[2].lower(), "NOT" in str(value))
        else:
            raise NotRegular(f"it has {str(kind).lower()}")
    return _others(found) if negated else found


def _category(name: str, negated: bool) -> Ranges:
    members = ESCAPED[{"digit": "d", "space": "s", "word": "w"}[name]]
    found = [(byte, byte) for byte in sorted(members)]
    return _others(found) if negated else found


def _others(ranges: Ranges) -> Ranges:
    """All other code points."""
    found, at = [], 0
    for low, high in sorted(ranges):
        if low > at:
            found.append((at, low - 1))
        at = max(at, high + 1)
    return found + ([(at, LAST)] if at <= LAST else [])


def _byte_ranges(low: int, high: int) -> Iterator[list[tuple[int, int]]]:
    """Sequences of ranges of bytes that are the UTF-8 of code points from one to another.

    As in RE2 (Cox, "Regular expression matching in the wild", 2010): split where the number of
    bytes changes, and where a range does not cover all that follows a byte.
    """
    if low > high:
        return
    for first, last in ((low, min(high, _SURROGATES[0] - 1)), (max(low, _SURROGATES[1] + 1), high)):
        if (first, last) != (low, high) and low <= _SURROGATES[1] and high >= _SURROGATES[0]:
            yield from _byte_ranges(first, last)
    if low <= _SURROGATES[1] and high >= _SURROGATES[0]:
        return
    for end in _ENDS:
        if low <= end < high:
            yield from _byte_ranges(low, end)
            yield from _byte_ranges(end + 1, high)
            return
    for place in range(1, len(chr(high).encode())):
        below = (1 << 6 * place) - 1
        if low & ~below != high & ~below:
            if low & below:
                yield from _byte_ranges(low, low | below)
                yield from _byte_ranges((low | below) + 1, high)
                return
            if high & below != below:
                yield from _byte_ranges(low, (high & ~below) - 1)
                yield from _byte_ranges(high & ~below, high)
                return
    yield list(zip(chr(low).encode(), chr(high).encode(), strict=True))


def _table(made: _States, start: int, end: int) -> Automaton:
    """The automaton whose states are sets of states."""
    cuts = sorted(
        {0, 1, *(b for edges in made.bytes_ for lo, hi, _ in edges for b in (lo, hi + 1))}
    )
    cuts = [cut for cut in cuts if cut < 256]
    first = made.closure([start], _START)
    numbers, waiting = {first: 0}, deque([first])
    following: list[list[int]] = []
    accepted = [end in made.closure(first, _START + _END)]
    while waiting:
        states = waiting.popleft()
        row = [numbers[states]]
        for byte in cuts[1:]:
            edges = (edge for state in states for edge in made.bytes_[state])
            after = made.closure({to for low, high, to in edges if low <= byte <= high}, "")
            if after not in numbers:
                if len(numbers) == MAX_STATES:
                    raise NotRegular(f"it takes more than {MAX_STATES} states")
                numbers[after] = len(numbers)
                waiting.append(after)
                accepted.append(end in made.closure(after, _END))
            row.append(numbers[after])
        following.append(row)
    classes = np.searchsorted(cuts, np.arange(256), side="right") - 1
    table = np.array(following, np.int32)
    return Automaton(table, classes.astype(np.int32), np.array(accepted))
