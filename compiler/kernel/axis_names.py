"""Names that are made of an axis' name, and what they were made of.

Axes are called "$1", "$2", ...; what stands for a part of one carries a mark behind its name, so
that names made of different axes differ.
"""

from __future__ import annotations

_BASE, _BAND, _START, _PAIR = "@base", "@band", "@start", "@pair"


def panel_base(axis: str) -> str:
    """In offsets: the first lane of the panel that an axis is in."""
    return axis + _BASE


def axis_of_base(name: str) -> str | None:
    """The axis of a `panel_base`; None for any other name."""
    return name.removesuffix(_BASE) if name.endswith(_BASE) else None


def band_of(row: str) -> str:
    """The loop over bands of an axis' rows, and a band's first row."""
    return row + _BAND


def start_of(axis: str) -> str:
    """The first step of the present block of a sum over an axis."""
    return axis + _START


def pair_of(axis: str) -> str:
    """Which of two neighbouring steps of a sum that goes in pairs."""
    return axis + _PAIR


def halves_of(axis: str) -> tuple[str, str]:
    """The loop over blocks of an axis that is cut, and that inside a block."""
    return axis + "o", axis + "i"


def within_part(axis: str, part: int) -> str:
    """An axis of one of the kernels that become one: those count their axes alike."""
    return f"{axis}_{part}"


def blocks_within_part(axis: str, part: int) -> str:
    """The loop over blocks of such an axis."""
    return f"{axis}b_{part}"
