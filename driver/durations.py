"""Durations as options have them: 50ms, 90s, 10m, 1.5h, 30d."""

from __future__ import annotations

import re

from ..compiler.errors import UsageError

UNITS = {
    "": 1.0,
    "us": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
_FORM = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)\s*")


def seconds_of(text: str, *, needs_unit: bool = False) -> float:
    """Seconds; a number alone is one of seconds, unless the unit has to be told.

    Raises UsageError for any other text."""
    found = _FORM.fullmatch(text)
    if not found or found[2] not in UNITS or (needs_unit and not found[2]):
        raise UsageError(f"'{text}' is no duration", remedy="write 90s, 10m, 1.5h or 30d")
    return float(found[1]) * UNITS[found[2]]


def duration_of(given: str | float) -> float:
    """Seconds of a text, or a number of them. Raises UsageError for what is no duration."""
    return seconds_of(given) if isinstance(given, str) else float(given)


def human_duration(seconds: float) -> str:
    """A duration for people: 12 s, 3:20 min, 1:05 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
