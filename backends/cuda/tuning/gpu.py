"""The GPU of this machine by NVIDIA's driver, as far as launches are timed."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from typing import Any

from ....compiler.errors import RunError
from ..table import USUAL_SHARED

_NON_BLOCKING, _MOST_SHARED = 1, 8  # CU_STREAM_NON_BLOCKING; the attribute of a function
_NAME_BYTES = 128
_NOT_READY = 600  # CUDA_ERROR_NOT_READY
MOST_SECONDS = 30.0  # that launches which are waited for may take; longer, they do not end
_ASKED_AGAIN = 2e-4  # seconds between two looks at a GPU that is not done


class GpuHangsError(RunError):
    """What was launched does not end. Only the end of the process takes it off the GPU; until then
    the driver would never answer whoever waits for the stream, or gives memory back."""


class _Config(ctypes.Structure):
    """CUlaunchConfig, of the driver's documented interface."""

    _fields_ = [
        *((name, ctypes.c_uint) for name in ("gx", "gy", "gz", "bx", "by", "bz", "shared")),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("count", ctypes.c_uint),
    ]


class Gpu:
    """The first GPU, its primary context and a stream. Raises RunError where the driver refuses
    something; so do all methods."""

    def __init__(self) -> None:
        self._driver = ctypes.CDLL("libcuda.so.1")
        self._modules: list[ctypes.c_void_p] = []
        self._blocks: list[int] = []
        self._device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", 0)
        self._call("cuDeviceGet", ctypes.byref(self._device), 0)
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), self._device)
        self._call("cuCtxPushCurrent_v2", context)
        self._stream = ctypes.c_void_p()
        self._call("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)
        self._hangs = False
        self._events = [ctypes.c_void_p(), ctypes.c_void_p()]
        for event in self._events:
            self._call("cuEventCreate", ctypes.byref(event), 0)

    @property
    def name(self) -> str:
        """What the driver calls it."""
        text = ctypes.create_string_buffer(_NAME_BYTES)
        self._call("cuDeviceGetName", text, _NAME_BYTES, self._device)
        return text.value.decode()

    def load(self, image: bytes, symbol: str, shared: int) -> ctypes.c_void_p:
        """A function, which is to be launched with so many bytes of shared memory."""
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuModuleLoadData", ctypes.byref(module), image)
        self._modules.append(module)
        self._call("cuModuleGetFunction", ctypes.byref(function), module, symbol.encode())
        if shared > USUAL_SHARED:
            self._call("cuFuncSetAttribute", function, _MOST_SHARED, shared)
        return function

    def memory(self, data: bytes) -> int:
        """The address of memory that holds some bytes."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, len(data))))
        self._blocks.append(address.value)
        self.fill(address.value, data)
        return address.value

    def fill(self, address: int, data: bytes) -> None:
        """Put bytes there, behind all launches."""
        if data:
            self._wait()
            size = ctypes.c_size_t(len(data))
            to = ctypes.c_uint64(address)
            self._call("cuMemcpyHtoDAsync_v2", to, data, size, self._stream)
            self._call("cuStreamSynchronize", self._stream)

    def read(self, address: int, size: int) -> bytes:
        """The bytes there, behind all launches."""
        self._wait()
        data = ctypes.create_string_buffer(size)
        source = ctypes.c_uint64(address)
        self._call("cuMemcpyDtoHAsync_v2", data, source, ctypes.c_size_t(size), self._stream)
        self._call("cuStreamSynchronize", self._stream)
        return data.raw

    def launch(
        self,
        function: ctypes.c_void_p,
        programs: int,
        threads: int,
        shared: int,
        given: Sequence[int],
    ) -> None:
        """Launch so many programs of a function, each of so many threads. given: all that the code
        takes, addresses and sizes, with the two pointers that are Triton's own."""
        values = [ctypes.c_uint64(number) for number in given]
        pointers = (ctypes.c_void_p * len(values))(
            *(ctypes.cast(ctypes.byref(value), ctypes.c_void_p) for value in values)
        )
        config = _Config(programs, 1, 1, threads, 1, 1, shared, self._stream, None, 0)
        self._call("cuLaunchKernelEx", ctypes.byref(config), function, pointers, None)

    def begin(self) -> None:
        """Begin to time what is launched from now on."""
        self._call("cuEventRecord", self._events[0], self._stream)

    def end(self) -> float:
        """Seconds from `begin` until all is done."""
        took = ctypes.c_float()
        self._wait()
        self._call("cuEventElapsedTime", ctypes.byref(took), *self._events)
        return took.value * 1e-3

    def _wait(self) -> None:
        """Wait until all is done, which the second event is recorded behind. Raises GpuHangsError
        where that takes too long."""
        self._call("cuEventRecord", self._events[1], self._stream)
        begun = time.monotonic()
        while (status := self._driver.cuEventQuery(self._events[1])) == _NOT_READY:
            if time.monotonic() - begun > MOST_SECONDS:
                self._hangs = True
                raise GpuHangsError(f"it did not end within {MOST_SECONDS:g} s on the GPU")
            time.sleep(_ASKED_AGAIN)
        self._check("cuEventQuery", status)

    def clear(self) -> None:
        """Give back functions and memory."""
        for module in self._modules:
            self._driver.cuModuleUnload(module)
        for address in self._blocks:
            self._driver.cuMemFree_v2(ctypes.c_uint64(address))
        self._modules, self._blocks = [], []

    def close(self) -> None:
        """Give back everything; of a GPU that hangs nothing can be given back."""
        if self._hangs:
            return
        self.clear()
        for event in self._events:
            self._driver.cuEventDestroy_v2(event)
        self._driver.cuStreamDestroy_v2(self._stream)
        popped = ctypes.c_void_p()
        self._driver.cuCtxPopCurrent_v2(ctypes.byref(popped))
        self._driver.cuDevicePrimaryCtxRelease_v2(self._device)

    def _call(self, name: str, *arguments: Any) -> None:
        self._check(name, getattr(self._driver, name)(*arguments))

    def _check(self, name: str, error: int) -> None:
        if error:
            text = ctypes.c_char_p()
            self._driver.cuGetErrorString(error, ctypes.byref(text))
            raise RunError(f"{name} failed on the GPU: {(text.value or b'').decode()} ({error})")
