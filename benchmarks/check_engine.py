"""Tensmith as an engine of a checker of models: `engine(model_path)` returns `run(feed)`.

Every model is compiled for the host as a user would, saved, and loaded from the file. The
environment may set CHECK_LEVEL, the optimisation level (default 2), and CHECK_THREADS (default 1).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import tensmith

Array = np.ndarray[Any, Any]
Run = Callable[[Mapping[str, Array]], dict[str, Array]]


def engine(model_path: str) -> Run:
    """Compile and load a model file. `run` takes arrays by input name and returns copies of the
    outputs by name, so that states may be fed back. Raises whatever the compiler raises."""
    level, threads = (int(os.environ.get(f"CHECK_{name}", default)) for name, default in _SETTINGS)
    with tempfile.TemporaryDirectory(prefix="tensmith-check-") as folder:
        path = Path(folder) / "model.so"
        tensmith.compile(model_path, opt_level=level, threads=threads).save(path)
        module = tensmith.load(path, threads=threads)

    def run(feed: Mapping[str, Array]) -> dict[str, Array]:
        return {name: np.array(array) for name, array in module(feed).items()}

    return run


_SETTINGS = (("LEVEL", "2"), ("THREADS", "1"))
