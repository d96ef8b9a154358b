"""Threads that sleep between runs: results are what they are of threads that spin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.runtime.loader import ModuleError, load

pytestmark = needs_x86


def test_threads_may_park_between_calls(tmp_path: Path) -> None:
    library = link(make_model("parallel", tmp_path), "so", tmp_path / "p.so", MANIFEST)[0]
    x = np.arange(1000, dtype=np.float32)
    with load(library, 3, idle="park") as parks:
        for _ in range(3):
            np.testing.assert_array_equal(parks(x)["visits"], np.full(1000, 50))
    with pytest.raises(ModuleError, match="expected spin or park"):
        load(library, 3, idle="dream")
