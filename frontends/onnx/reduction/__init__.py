"""Making a model smaller, edit by edit, for a tool that asks after each whether it still fails.

`files.py` reads and writes models under reduction, `draft.py` applies edits, `edits.py` lists those
that a model allows, `anonymous.py` takes out what is private.
"""

from __future__ import annotations

from .anonymous import anonymous, random_weights
from .draft import Edit, edited
from .edits import STAGES, cuts
from .files import pin, read, size, stow, unstow, write
from .value_types import types_of

__all__ = [
    "STAGES",
    "Edit",
    "anonymous",
    "cuts",
    "edited",
    "pin",
    "random_weights",
    "read",
    "size",
    "stow",
    "types_of",
    "unstow",
    "write",
]
