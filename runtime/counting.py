"""What a loaded model has done since it was loaded."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

from . import abi


@dataclass(frozen=True)
class Counters:
    """calls: that succeeded. rows: of a cascade (`tensmith cascade`), over all calls; deferred:
    those that the first stage has not answered; answered: by each stage, the smallest first. Of a
    model that is no cascade rows and deferred are 0 and answered is empty.
    """

    calls: int
    rows: int
    deferred: int
    answered: tuple[int, ...]


def read_counters(library: Any, handle: ctypes.c_void_p) -> Counters | int:
    """The counters of an instance of a loaded library; or the status that says why not."""
    table = abi.CounterTable(ctypes.sizeof(abi.CounterTable))
    status: int = library.ts_read_counters(handle, ctypes.byref(table))
    if status:
        return status
    answered = tuple(table.answered[: table.stages])
    return Counters(table.calls, table.rows, table.deferred, answered)
