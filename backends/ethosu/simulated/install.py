"""Puts the simulated driver into this process: models that are loaded then find it."""

from __future__ import annotations

import ctypes
import sys
import traceback
from functools import cache
from pathlib import Path

import numpy as np

from ...common.host_library import host_library
from ..simulator import simulate

SOURCE = Path(__file__).with_name("driver.c")
SONAME = "libtensmith-simulated-npu.so"
_SIMULATE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_uint64),
    ctypes.POINTER(ctypes.c_size_t), ctypes.c_int,
)  # fmt: skip


@cache
def install() -> ctypes.CDLL:
    """Load the driver, where all libraries that are loaded later see it."""
    path = host_library(SONAME, [SOURCE])
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    library.tensmith_simulated_npu(_CALLBACK)
    return library


def _simulated(commands: int, count: int, bases: ctypes.Array[ctypes.c_uint64],
               sizes: ctypes.Array[ctypes.c_size_t], regions: int) -> int:  # fmt: skip
    """Run a command stream; other than 0 where the simulator refuses it, and stderr says why."""
    try:
        payload = ctypes.string_at(commands, count)
        memory = {
            region: np.ctypeslib.as_array(
                (ctypes.c_uint8 * sizes[region]).from_address(bases[region])
            )
            for region in range(regions)
            if sizes[region]
        }
        simulate(payload, memory)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return -1
    return 0


_CALLBACK = _SIMULATE(_simulated)  # kept: the library holds its address
