"""Memory of large outputs, which calls of other shapes take again."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
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


def test_results_are_left_alone_however_references_are_counted(
    symbolic: Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interpreters count those of a frame, and of arguments, or borrow them."""
    counted = sys.getrefcount
    held: list[Array] = []
    for fewer in range(3):
        monkeypatch.setattr(sys, "getrefcount", lambda given, n=fewer: counted(given) - 1 - n)
        held += [symbolic(of(40, len(held) + n), TWOS)["scaled"] for n in range(6)]
    assert [int(array[3, 7]) for array in held] == [*range(0, 36, 2)]


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array.view(),
        lambda array: array[::2][1:].T,
        lambda array: array.reshape(-1)[1:].view(np.int32).view(np.float32),
        lambda array: array.view(np.matrix),
        lambda array: np.asarray(memoryview(array)),
        lambda array: np.frombuffer(array, np.float32),
        lambda array: np.lib.stride_tricks.as_strided(array, (3, 3)),
        lambda array: np.from_dlpack(array),
        lambda array: np.broadcast_to(array, (2, *array.shape)),
    ],
)
def test_views_of_views_hold_results(symbolic: Module, view: Callable[[Array], Array]) -> None:
    for _ in range(2):
        views = [view(view(symbolic(of(40, n), TWOS)["scaled"])[:3]) if n % 2
                 else view(symbolic(of(40, n), TWOS)["scaled"]) for n in range(6)]  # fmt: skip
        assert [{float(x) for x in np.ravel(v)} for v in views] == [{2.0 * n} for n in range(6)]


def test_small_results_do_not_hold_much_memory(symbolic: Module) -> None:
    for rows in (20, 4000):
        for _ in range(3):
            symbolic(of(rows, 1), TWOS)
    small: Any = symbolic(of(20, 1), TWOS)["scaled"]
    size = small.nbytes
    while small.base is not None:
        small = small.base
    assert small.nbytes <= 4 * size


def test_memory_that_is_too_small_goes(symbolic: Module) -> None:
    """Two arrays of the largest shape are kept, not two of each: a third place is the instance's,
    of the first call."""
    for _ in range(3):
        symbolic(of(20, 1), TWOS)
    places = {symbolic(of(80, 1), TWOS)["scaled"].ctypes.data for _ in range(9)}
    assert len(places) <= 2
