"""What a loaded model has done since it was loaded; and the cache of its responses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from . import abi
from .slots import ModuleError


@dataclass(frozen=True)
class CacheCounters:
    """Calls whose inputs were, byte for byte, those of an earlier one (hits), and others (misses);
    entries and bytes that the cache holds, and entries that had to go."""

    hits: int
    misses: int
    entries: int
    bytes: int
    evicted: int


@dataclass(frozen=True)
class Counters:
    """calls: that succeeded. rows: of a cascade (`tensmith cascade`), over all calls; deferred:
    those that the first stage has not answered; answered: by each stage, the smallest first. Of a
    model that is no cascade rows and deferred are 0 and answered is empty. cache: None without one.
    """

    calls: int
    rows: int
    deferred: int
    answered: tuple[int, ...]
    cache: CacheCounters | None = None


def read_counters(library: Any, handle: ctypes.c_void_p, cache: ctypes.c_void_p) -> Counters:
    """The counters of an instance of a loaded library, and of its cache if there is one.

    Raises ModuleError where they cannot be read: of no instance.
    """
    if not handle:
        raise ModuleError("the module is closed")
    table = abi.CounterTable(ctypes.sizeof(abi.CounterTable))
    if status := library.ts_read_counters(handle, ctypes.byref(table)):
        raise ModuleError("the counters cannot be read", status)
    answered = tuple(table.answered[: table.stages])
    return Counters(table.calls, table.rows, table.deferred, answered, _of_cache(library, cache))


def make_cache(library: Any, size: int) -> ctypes.c_void_p:
    """A cache of at most so many bytes, which `ts_cache_destroy` frees; none for 0.

    Raises ModuleError where that is too few, or there is no memory.
    """
    cache, least = ctypes.c_void_p(), abi.LEAST_CACHE_BYTES
    if size and not least <= size < 1 << 64:
        raise ModuleError(f"cache_bytes: expected 0, or {least} or more, got {size}")
    if size and (status := library.ts_cache_create(size, ctypes.byref(cache))):
        raise ModuleError(f"no memory for a cache of {size} bytes", status)
    return cache


def _of_cache(library: Any, cache: ctypes.c_void_p) -> CacheCounters | None:
    if not cache:
        return None
    table = abi.CacheTable(ctypes.sizeof(abi.CacheTable))
    if status := library.ts_cache_read(cache, ctypes.byref(table)):
        raise ModuleError("the counters of the cache cannot be read", status)
    return CacheCounters(table.hits, table.misses, table.entries, table.bytes, table.evicted)
