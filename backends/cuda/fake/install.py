"""Puts the fake driver into this process: what then opens libcuda.so.1 gets it.

It is compiled once for a user, and asks this process to compute what kernels do: each by Triton's
interpreter, from the source that the manifest of its model holds.
"""

from __future__ import annotations

import ctypes
import json
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from ....compiler.errors import InternalError, UsageError
from ....compiler.target import GpuTarget
from ...common.host_library import host_library
from ...common.toolchain import RUNTIME
from .interpreter import Program

_HERE = Path(__file__).parent
SOURCES = tuple(_HERE / f"{name}.c" for name in ("driver", "modules", "memory", "streams"))
SONAME = "libcuda.so.1"
_LAUNCH = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_int,
    ctypes.POINTER(ctypes.c_void_p),
)  # fmt: skip
_IDLE = _LAUNCH(lambda *_: 0)
_INTERPRETING = threading.Lock()  # the interpreter has state of the process


class FakeDriver:
    """The driver in this process."""

    def __init__(self, path: Path) -> None:
        self.library = ctypes.CDLL(str(path))
        for name in ("live_bytes", "live_objects", "graph_launches", "early_launches"):
            getattr(self.library, f"tensmith_fake_{name}").restype = ctypes.c_size_t
        self._launch = _LAUNCH(_launched)  # kept: the library holds its address
        self.library.tensmith_fake_launches(self._launch)

    def be(self, capability: int, shared: int, count: int = 1) -> None:
        """Pretend to have GPUs of a compute capability (80: 8.0) and shared memory in bytes."""
        self.library.tensmith_fake_device(count, capability, shared)

    def version(self, cuda: tuple[int, int]) -> None:
        """Pretend to be a driver of that CUDA, by its two numbers."""
        self.library.tensmith_fake_version(1000 * cuda[0] + 10 * cuda[1])

    def fail(self, function: str, after: int, error: int, times: int = 1) -> None:
        """Have so many calls of the driver fail: from number `after` from now on (1: the next)."""
        self.library.tensmith_fake_failure(function.encode(), after, error, times)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Have launches compute nothing meanwhile: for what calls of the driver are made."""
        self.library.tensmith_fake_launches(_IDLE)
        try:
            yield
        finally:
            self.library.tensmith_fake_launches(self._launch)

    @contextmanager
    def timed(self, milliseconds: Callable[[str, int], float]) -> Iterator[None]:
        """Have a launch of so many programs of a kernel take so long meanwhile, by what events
        tell."""
        advance = self.library.tensmith_fake_advance

        def launched(file: bytes, kernel: bytes, programs: int, count: int, given: Any) -> int:
            advance(ctypes.c_double(milliseconds(kernel.decode(), programs)))
            return _launched(file, kernel, programs, count, given)

        own = _LAUNCH(launched)
        self.library.tensmith_fake_launches(own)
        try:
            yield
        finally:
            self.library.tensmith_fake_launches(self._launch)

    @property
    def graph_launches(self) -> int:
        """Graphs that were launched so far."""
        return int(self.library.tensmith_fake_graph_launches())

    @property
    def early_launches(self) -> int:
        """Launches so far that were allowed to overlap with the one before."""
        return int(self.library.tensmith_fake_early_launches())

    @property
    def live(self) -> tuple[int, int]:
        """Bytes of memory, and objects, that were not given back."""
        return (
            int(self.library.tensmith_fake_live_bytes()),
            int(self.library.tensmith_fake_live_objects()),
        )


@cache
def install() -> FakeDriver:
    """Load the fake driver. Raises UsageError where another one is loaded already."""
    with suppress(OSError):
        found = ctypes.CDLL(SONAME, mode=ctypes.DEFAULT_MODE | 4)  # RTLD_NOLOAD
        if not hasattr(found, "tensmith_fake_device"):
            raise UsageError("this process uses NVIDIA's driver already")
    return FakeDriver(_built())


def stand_in(target: GpuTarget) -> None:
    """Have models for a target run in this process without a GPU."""
    install().be(target.architectures[0], target.shared_bytes)


def _built() -> Path:
    """The compiled driver, from the cache or made anew."""
    headers = (_HERE / "state.h", RUNTIME / "cuda" / "driver.h")
    return host_library(SONAME, SOURCES, headers, "-ldl", "-lpthread")


def _launched(file: bytes, kernel: bytes, programs: int, count: int, parameters: Any) -> int:
    """Run a kernel; other than 0 where that fails, and stderr says why."""
    try:
        program = _programs(file.decode())[kernel.decode()]
        given = len(program.signature)
        if count not in (given, given + 2):
            raise InternalError(f"the code takes {count} parameters, its source {given}")
        values = [
            ctypes.cast(parameters[n], ctypes.POINTER(ctypes.c_int64)).contents.value
            for n in range(given)
        ]
        with _INTERPRETING:
            program.run(programs, values)
    except Exception:
        traceback.print_exc(file=sys.stderr)
        return 1
    return 0


@cache
def _programs(file: str) -> dict[str, Program]:
    """The functions of the model in a shared library, by name."""
    library = ctypes.CDLL(file)
    library.ts_model_get.restype = ctypes.c_void_p
    library.ts_manifest.restype = ctypes.c_char_p
    library.ts_manifest.argtypes = (ctypes.c_void_p,)
    manifest = json.loads(library.ts_manifest(library.ts_model_get()))
    return {
        function["symbol"]: Program(function["source"], function["symbol"], function["signature"])
        for kernel in manifest["kernels"]
        for function in kernel["functions"]
    }
