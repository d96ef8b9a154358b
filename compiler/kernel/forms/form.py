"""Forms: which algorithm computes a fused group, where it is not the plain loops of its operators.

A form is chosen once, by a pass, and kept as text in the attribute `form` of the `fused` node.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ...errors import ScheduleError
from ...ir.graph import Node

ATTRIBUTE = "form"


@dataclass(frozen=True)
class WinogradForm:
    """The group's convolution by Winograd's algorithm (`winograd.py`).

    outputs: of a tile along each spatial axis; 1 where nothing is transformed. block: tiles that
    are computed together. groups: of output channels, each with blocks of its own. least: places
    of a result below which plain loops compute a picture, where only a run knows its size.
    """

    outputs: tuple[int, ...]
    block: int
    groups: int
    least: int = 0

    def __str__(self) -> str:
        tile = "x".join(map(str, self.outputs))
        bound = f" from {self.least}" if self.least else ""
        return f"winograd {tile} block {self.block}{bound} groups {self.groups}"


@dataclass(frozen=True)
class BandsForm:
    """Two convolutions in bands (`bands.py`) of so many rows of the second one's output, over
    blocks of so many channels."""

    rows: int
    block: int

    def __str__(self) -> str:
        return f"bands {self.rows} block {self.block}"


@dataclass(frozen=True)
class RowBlocksForm:
    """The fused nodes of attention in blocks of so many queries (`row_blocks.py`)."""

    rows: int

    def __str__(self) -> str:
        return f"row_blocks {self.rows}"


@dataclass(frozen=True)
class NormalisedForm:
    """The fused nodes of a norm and of the product that reads it (`normalised.py`)."""

    def __str__(self) -> str:
        return "normalised"


@dataclass(frozen=True)
class TogetherForm:
    """Loops over points of several shapes, none of which needs another's results: they may run at
    the same time."""

    def __str__(self) -> str:
        return "together"


Form = WinogradForm | BandsForm | RowBlocksForm | NormalisedForm | TogetherForm

_PATTERNS: dict[str, Callable[[re.Match[str]], Form]] = {
    r"winograd (\d+(?:x\d+)*) block (\d+)(?: from (\d+))? groups (\d+)": lambda match: WinogradForm(
        tuple(map(int, match[1].split("x"))), *(int(match[n] or 0) for n in (2, 4, 3))
    ),
    r"bands (\d+) block (\d+)": lambda match: BandsForm(int(match[1]), int(match[2])),
    r"row_blocks (\d+)": lambda match: RowBlocksForm(int(match[1])),
    "normalised": lambda _: NormalisedForm(),
    "together": lambda _: TogetherForm(),
}


def parse_form(text: str) -> Form | None:
    """The form that a text describes; None for the empty one: plain loops.

    Raises ScheduleError for any other text.
    """
    if not text:
        return None
    for pattern, make in _PATTERNS.items():
        match = re.fullmatch(pattern, text)
        if match:
            return make(match)
    raise ScheduleError(f"'{text}' is no form")


def algorithm(form: Form | None) -> str:
    """What of a form decides the bits of results: blocks of tiles, rows and channels do not."""
    if isinstance(form, WinogradForm):
        return f"winograd {'x'.join(map(str, form.outputs))}"
    return type(form).__name__ if form else ""


def form_of(node: Node) -> Form | None:
    """The form of a fused node; None: plain loops."""
    return parse_form(node.attrs[ATTRIBUTE])


def set_form(node: Node, form: Form | None) -> None:
    """Record the form of a fused node."""
    node.attrs[ATTRIBUTE] = str(form or "")
