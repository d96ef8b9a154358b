"""Python's search for reference cycles, paused where it only costs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 20_000


class _Blocks:
    """Threads share the threshold: the first to open a block changes it, the last one restores."""

    def __init__(self) -> None:
        self._lock, self._open = threading.Lock(), 0
        self._before = gc.get_threshold()

    def opened(self) -> None:
        with self._lock:
            if not self._open:
                self._before = first, *others = gc.get_threshold()
                gc.set_threshold(max(first, SELDOM) if first else 0, *others)
            self._open += 1

    def closed(self) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                gc.set_threshold(*self._before)


_blocks = _Blocks()


@contextmanager
def collector_paused() -> Iterator[None]:
    """No search for cycles in the block; afterwards as before.

    Code generation makes millions of objects that all live until it ends, and every search looks
    at all of them anew (measured: 4 % of the time for a detector of symbolic sizes, and 6 % more
    memory at most). What is in no cycle is freed as ever.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def collector_seldom() -> Iterator[None]:
    """Searches for cycles in the block begin after `SELDOM` new objects; afterwards as before.

    Passes make many small objects that live long, and Python's own number of 700 has each of them
    looked at several times (measured: 9 % of the time for a quantised transformer). Unlike in a
    pause, constants that a pass has replaced are freed before long.
    """
    _blocks.opened()
    try:
        yield
    finally:
        _blocks.closed()
