"""Loads a compiled shared library and runs it on numpy arrays (stdlib and numpy only)."""

from __future__ import annotations

import _ctypes
import ctypes
import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import abi

Array = NDArray[Any]
_PREDICTED_SHAPES = 64  # input shapes whose output shapes are remembered
_COPIED_BYTES = 16384
_UNUSED = 3  # references to an array: a tuple's, a loop's and the argument's
_KEPT_OUTPUTS = 2  # arrays per output: a loop holds the last result while the next one is made


class ModuleError(RuntimeError):
    """A compiled model refused to load or to run; `code` is the `ts_status`, its name `status`."""

    def __init__(self, message: str, code: int = abi.ERROR_ARGUMENT) -> None:
        self.code = code
        self.status = abi.STATUS_NAMES[code] if 0 < code < len(abi.STATUS_NAMES) else str(code)
        super().__init__(message)


@dataclass(frozen=True)
class Spec:
    """One input or output: dims are ints, or a symbol or expression that a run makes an int.

    dtype: "f32", "i64", "bool", ...; numpy_dtype: the same for numpy.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    numpy_dtype: np.dtype[Any]


class _Slot:
    """The DLTensor of one input or output, bound to the shape of the last call.

    Small arrays go through a buffer whose address is known: numpy takes longer to tell an
    array's address than to copy a few KiB.
    """

    def __init__(self, spec: Spec, tensor: abi.DLTensor, dtype: abi.DLDataType) -> None:
        self.spec, self.tensor, self.dtype = spec, tensor, spec.numpy_dtype
        self.shape: tuple[int, ...] | None = None
        self.buffer: Array | None = None
        self._kept: list[tuple[Array, int]] = []  # outputs' memory and its address
        self._sizes = (ctypes.c_int64 * max(len(spec.dims), 1))()
        tensor.dtype = dtype
        tensor.device_type = abi.CPU_DEVICE

    def bind(self, shape: tuple[int, ...]) -> None:
        """Describe an array of this shape."""
        self._sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self.tensor.shape = ctypes.cast(self._sizes, ctypes.POINTER(ctypes.c_int64))
        self.tensor.strides = None
        self.tensor.ndim = len(shape)
        self.shape = shape
        self.buffer = None
        self._kept = []
        if math.prod(shape) * self.dtype.itemsize <= _COPIED_BYTES:
            self.buffer = np.zeros(shape, self.dtype)
            self.tensor.data = self.buffer.ctypes.data

    def unbind(self) -> None:
        """Leave an output to the instance."""
        self.tensor.data = None
        self.shape = self.buffer = None
        self._kept = []

    def give(self, array: Array) -> None:
        """Point an input at an array of the bound shape."""
        if self.buffer is not None:
            self.buffer[...] = array
        else:
            self.tensor.data = array.__array_interface__["data"][0]

    def receive(self) -> Array:
        """Where an output of the bound shape will be.

        Memory of an earlier result that nobody refers to any more is taken again: fresh memory
        costs a page fault for every 4 KiB.
        """
        if self.buffer is not None:
            return self.buffer
        for array, address in self._kept:
            if sys.getrefcount(array) == _UNUSED:
                self.tensor.data = address
                return array.view()
        array = np.empty(self.shape or (), self.dtype)
        self.tensor.data = address = array.__array_interface__["data"][0]
        if len(self._kept) == _KEPT_OUTPUTS:
            return array
        self._kept.append((array, address))
        return array.view()

    def copy(self) -> Array:
        """A copy of an output that the instance owns."""
        shape = tuple(self.tensor.shape[d] for d in range(self.tensor.ndim))
        array = np.empty(shape, self.dtype)
        if array.nbytes:
            ctypes.memmove(array.ctypes.data, self.tensor.data, array.nbytes)
        return array


def _read_spec(info: abi.TensorInfo) -> Spec:
    name = abi.dtype_name(info.dtype)
    dims = tuple(
        info.dims[d] if info.dims[d] >= 0 else info.dim_names[d].decode() for d in range(info.ndim)
    )
    return Spec(info.name.decode(), name, dims, abi.numpy_dtype(name))


def _convert(value: Any, slot: _Slot) -> Array:
    """A contiguous array of the slot's type; numbers and lists are converted, arrays are not."""
    plain = not hasattr(value, "__array__") and not hasattr(value, "__dlpack__")
    try:
        array = np.asarray(value, dtype=slot.dtype if plain else None)
    except (TypeError, ValueError, OverflowError) as error:
        raise ModuleError(f"input '{slot.spec.name}': {error}", abi.ERROR_INPUT) from None
    if array.dtype != slot.dtype:
        raise ModuleError(
            f"input '{slot.spec.name}': expected element type {slot.dtype.name}, "
            f"got {array.dtype.name}",
            abi.ERROR_INPUT,
        )
    return np.ascontiguousarray(array).reshape(array.shape)


def _open_library(path: Path) -> ctypes.CDLL:
    """dlopen, but the file of today: a path that was loaded before would give the old library."""
    try:
        with tempfile.TemporaryDirectory(prefix="tensmith-") as folder:
            alias = Path(folder) / path.name
            alias.symlink_to(path)
            return ctypes.CDLL(str(alias))
    except OSError as error:
        raise ModuleError(f"cannot load '{path}': {error}") from error


class Module:
    """A loaded model. Calls from several threads take turns; `threads` work inside one call."""

    def __init__(self, path: str | os.PathLike[str], threads: int = 1, max_trips: int = 0) -> None:
        self._handle = ctypes.c_void_p()
        self._lock = threading.Lock()
        self._life = threading.Lock()  # held while the instance is destroyed, or cancelled
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise ModuleError(f"cannot load '{path}': no such file")
        self._library: Any = _open_library(self.path)
        try:
            self._create(threads, max_trips)
        except BaseException:
            self.close()
            raise

    def _create(self, threads: int, max_trips: int) -> None:
        library = self._library
        try:
            abi.declare(library)
        except AttributeError as error:
            raise ModuleError(f"'{self.path}' is not a compiled model: {error}") from None
        if library.ts_abi_version() != abi.ABI_VERSION:
            raise ModuleError(
                f"'{self.path}' has ABI version {library.ts_abi_version()}, this loader "
                f"{abi.ABI_VERSION}",
                abi.ERROR_VERSION,
            )
        model = library.ts_model_get()
        self.name: str = library.ts_name(model).decode()
        self.inputs = tuple(
            _read_spec(library.ts_input_info(model, i)[0])
            for i in range(library.ts_input_count(model))
        )
        self.outputs = tuple(
            _read_spec(library.ts_output_info(model, i)[0])
            for i in range(library.ts_output_count(model))
        )
        self.manifest: dict[str, Any] = json.loads(library.ts_manifest(model))
        side_file = Path(f"{self.path}.weights")
        options = abi.Options(
            ctypes.sizeof(abi.Options),
            threads,
            os.fsencode(side_file if side_file.is_file() else self.path.parent),
            max_trips,
        )
        status = library.ts_create(model, ctypes.byref(options), ctypes.byref(self._handle))
        if status:
            raise ModuleError(f"{self.path.name}: {self._message()}", status)
        self.threads: int = library.ts_threads(self._handle)
        self._bind()

    def _bind(self) -> None:
        """Descriptors that every call reuses."""
        library = self._library
        model = library.ts_model_get()
        self._in = (abi.DLTensor * max(len(self.inputs), 1))()
        self._out = (abi.DLTensor * max(len(self.outputs), 1))()
        self._in_slots = [
            _Slot(spec, self._in[i], library.ts_input_info(model, i)[0].dtype)
            for i, spec in enumerate(self.inputs)
        ]
        self._out_slots = [
            _Slot(spec, self._out[i], library.ts_output_info(model, i)[0].dtype)
            for i, spec in enumerate(self.outputs)
        ]
        self._names = [spec.name for spec in self.inputs]
        self._output_names = [spec.name for spec in self.outputs]
        self._arguments = (
            self._handle,
            ctypes.addressof(self._in),
            len(self.inputs),
            ctypes.addressof(self._out),
            len(self.outputs),
        )
        # A "?" depends on the values of the inputs, other dimensions on their shapes alone.
        self._predictable = not any("?" in spec.dims for spec in self.outputs)
        self._output_shapes: dict[tuple[tuple[int, ...], ...], list[tuple[int, ...]]] = {}
        self._owned = True  # whether the instance owns the outputs of the next run
        self._run = library.ts_run

    def _message(self) -> str:
        text: bytes = self._library.ts_last_error(self._handle)
        return text.decode(errors="replace")

    def _arrays(self, values: Sequence[Any]) -> Sequence[Array]:
        """Inputs in model order, as arrays of the model's types."""
        if len(values) == 1 and isinstance(values[0], Mapping):
            values = self._ordered(values[0])
        if len(values) != len(self._in_slots):
            raise ModuleError(f"expected {len(self._in_slots)} inputs, got {len(values)}")
        for value, slot in zip(values, self._in_slots, strict=True):
            if (
                type(value) is not np.ndarray
                or value.dtype is not slot.dtype
                or not value.flags.c_contiguous
            ):
                return [_convert(v, s) for v, s in zip(values, self._in_slots, strict=True)]
        return values

    def _ordered(self, values: Mapping[str, Any]) -> list[Any]:
        try:
            if len(values) == len(self._names):
                return [values[name] for name in self._names]
        except KeyError:
            pass
        missing = [name for name in self._names if name not in values]
        unknown = [name for name in values if name not in self._names]
        raise ModuleError(f"inputs: missing {missing}, unknown {unknown}; expected {self._names}")

    def _bind_call(self, arrays: Sequence[Array]) -> None:
        """Point the inputs at the arrays; where shapes changed, prepare the outputs for them."""
        changed = self._owned
        for array, slot in zip(arrays, self._in_slots, strict=True):
            if array.shape != slot.shape:
                slot.bind(array.shape)
                changed = True
            slot.give(array)
        if not changed:
            return
        known = self._output_shapes.get(tuple(array.shape for array in arrays))
        self._owned = known is None
        if known is None:
            for slot in self._out_slots:
                slot.unbind()
        else:
            for shape, slot in zip(known, self._out_slots, strict=True):
                slot.bind(shape)

    def _execute(self, arrays: Sequence[Array]) -> list[Array]:
        self._bind_call(arrays)
        if self._owned:
            self._check(self._run(*self._arguments))
            results = [slot.copy() for slot in self._out_slots]
            if self._predictable and len(self._output_shapes) < _PREDICTED_SHAPES:
                shapes = tuple(array.shape for array in arrays)
                self._output_shapes[shapes] = [result.shape for result in results]
            return results
        results = [slot.receive() for slot in self._out_slots]
        self._check(self._run(*self._arguments))
        return [
            result.copy() if result is slot.buffer else result
            for result, slot in zip(results, self._out_slots, strict=True)
        ]

    def _check(self, status: int) -> None:
        if status:
            self._owned = True  # a failed run leaves the outputs undefined
            raise ModuleError(self._message(), status)

    def _require_open(self) -> None:
        if not self._handle:
            raise ModuleError("the module is closed")

    def __call__(self, *inputs: Mapping[str, ArrayLike] | ArrayLike) -> dict[str, Array]:
        """Run once: `module(x, y)`, or `module({"x": x, "y": y})`; returns arrays by output name.

        Arrays must have the model's element types; other values are converted. Raises ModuleError.
        """
        arrays = self._arrays(inputs)
        with self._lock:
            self._require_open()
            results = self._execute(arrays)
        return dict(zip(self._output_names, results, strict=True))

    def bench(
        self,
        *inputs: Mapping[str, ArrayLike] | ArrayLike,
        warmup: int = 10,
        iterations: int = 100,
    ) -> NDArray[np.float64]:
        """Durations of `iterations` runs in seconds, measured in C after `warmup` runs."""
        arrays = self._arrays(inputs)
        durations = np.zeros(max(warmup, iterations, 1), np.int64)
        with self._lock:
            self._require_open()
            self._bind_call(arrays)
            kept = [] if self._owned else [slot.receive() for slot in self._out_slots]
            for count in (warmup, iterations):
                self._check(self._library.ts_bench(*self._arguments, count, durations.ctypes.data))
            del kept
            self._owned = True
        return np.asarray(durations[:iterations] * 1e-9, np.float64)

    def cancel(self) -> None:
        """End the run that another thread has in progress, which raises ModuleError.

        It ends before its next round of a loop or its next kernel of weight. Without a run in
        progress nothing happens; the module can run again.
        """
        with self._life:
            if self._handle:
                self._library.ts_cancel(self._handle)

    def close(self) -> None:
        """Free the instance and unload the library. Closing twice does nothing."""
        with self._lock, self._life:
            if self._library is None:
                return
            if self._handle:
                self._library.ts_destroy(self._handle)
            handle, self._library = self._library._handle, None
            self._handle = ctypes.c_void_p()
            _ctypes.dlclose(handle)

    def __enter__(self) -> Module:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_library", None) is not None and not sys.is_finalizing():
            self.close()

    def __repr__(self) -> str:
        def text(specs: tuple[Spec, ...]) -> str:
            return ", ".join(f"{s.name}: {s.dtype}[{', '.join(map(str, s.dims))}]" for s in specs)

        return f"Module({self.name}: ({text(self.inputs)}) -> ({text(self.outputs)}))"


def load(path: str | os.PathLike[str], threads: int = 1, max_trips: int = 0) -> Module:
    """Load a compiled `.so`. Raises ModuleError.

    threads: 1, more, or 0 for one per CPU. max_trips: a run whose Loop goes on for more rounds
    fails; 0: any number.
    """
    return Module(path, threads, max_trips)
