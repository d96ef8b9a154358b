"""Where an artifact came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .samples import Sampler
from .shapes import ShapeSpecs


@dataclass(frozen=True)
class ModelSource:
    """Where an artifact came from; enough to import the model again.

    path: the model that was compiled; given: the file that it was made of.
    """

    path: Path
    given: Path
    shapes: ShapeSpecs
    threads: int
    target: str
    sampler: Sampler
    notes: tuple[str, ...]
