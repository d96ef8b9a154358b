"""Memory of this process that nothing uses any more."""

from __future__ import annotations

import ctypes
import gc


def give_back_memory() -> None:
    """Return freed memory to the system: C libraries keep it, in case it is needed again.

    Graphs hold references in circles, so they are collected first. Where the C library has no
    `malloc_trim`, that is all.
    """
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
