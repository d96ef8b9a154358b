"""Memory of large outputs, which calls of other shapes take again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cplans import MANIFEST, make_model, needs_x86

from tensmith.backends.common.link import link
from tensmith.runtime.loader import Module, load

pytestmark = needs_x86
Array = np.ndarray[Any, Any]
TWOS = np.full(300, 2, np.float32)


@pytest.fixture
def symbolic(tmp_path: Path) -> Iterator[Module]:
    """[N, M] and [M] to their product: rows of 1,200 bytes, and 16 KiB are not copied."""
    path, *_ = link(make_model("symbolic", tmp_path), "so", tmp_path / "m.so", MANIFEST)
    with load(path) as module:
        for rows in (20, 40, 80, 20, 40, 80):  # their shapes are known then
            module(of(rows, 0), TWOS)
        yield module


def of(rows: int, value: float) -> Array:
    return np.full((rows, 300), value, np.float32)


def test_other_shapes_take_it_again(symbolic: Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """No call but the first of the largest shape asks for new memory."""
    asked: list[int] = []
    empty = np.empty

    def counting(shape: Any, *given: Any, **more: Any) -> Array:
        asked.append(int(np.prod(shape)))
        return empty(shape, *given, **more)

    monkeypatch.setattr(np, "empty", counting)
    for value, rows in enumerate((80, 20, 80, 40, 40, 20, 80)):
        out = symbolic(of(rows, value), TWOS)["scaled"]
        assert out.shape == (rows, 300)
        assert (out == 2 * value).all()
        del out
    assert not [size for size in asked if size >= 20 * 300]


def test_results_that_are_held_are_left_alone(symbolic: Module) -> None:
    shapes = (80, 20, 40, 80, 20, 20, 80, 40, 40, 80)
    held = [symbolic(of(rows, n), TWOS)["scaled"] for n, rows in enumerate(shapes)]
    rows = [symbolic(of(count, n), TWOS)["scaled"][7:9] for n, count in enumerate(shapes)]
    for value, (whole, part) in enumerate(zip(held, rows, strict=True)):
        assert (whole == 2 * value).all()
        assert (part == 2 * value).all()


def test_memory_that_is_too_small_goes(symbolic: Module) -> None:
    """Two arrays of the largest shape are kept, not two of each: a third place is the instance's,
    of the first call."""
    for _ in range(3):
        symbolic(of(20, 1), TWOS)
    places = {symbolic(of(80, 1), TWOS)["scaled"].ctypes.data for _ in range(9)}
    assert len(places) <= 2
