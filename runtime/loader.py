"""Loads a compiled shared library and runs it on numpy arrays (stdlib and numpy only)."""

from __future__ import annotations

import _ctypes
import ctypes
import json
import os
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
    """The DLTensor of one input or output, and the last shape that was written into it."""

    def __init__(self, spec: Spec, tensor: abi.DLTensor) -> None:
        self.spec, self.tensor = spec, tensor
        self.dtype = spec.numpy_dtype
        self.shape: tuple[int, ...] | None = None
        self.sizes = (ctypes.c_int64 * max(len(spec.dims), 1))()

    def set_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) > len(self.sizes):
            self.sizes = (ctypes.c_int64 * len(shape))()
        self.sizes[: len(shape)] = shape
        self.tensor.shape = ctypes.cast(self.sizes, ctypes.POINTER(ctypes.c_int64))
        self.tensor.ndim = len(shape)
        self.shape = shape


def _read_spec(info: abi.TensorInfo) -> Spec:
    name = abi.dtype_name(info.dtype)
    dims = tuple(
        info.dims[d] if info.dims[d] >= 0 else info.dim_names[d].decode() for d in range(info.ndim)
    )
    return Spec(info.name.decode(), name, dims, abi.numpy_dtype(name))


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

    def __init__(self, path: str | os.PathLike[str], threads: int = 1) -> None:
        self._handle = ctypes.c_void_p()
        self.path = Path(path).resolve()
        if not self.path.is_file():
            raise ModuleError(f"cannot load '{path}': no such file")
        self._library = _open_library(self.path)
        try:
            self._create(threads)
        except BaseException:
            self.close()
            raise
        self._lock = threading.Lock()
        self._output_shapes: dict[tuple[tuple[int, ...], ...], list[tuple[int, ...]]] = {}

    def _create(self, threads: int) -> None:
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
            os.fsencode(side_file) if side_file.is_file() else None,
        )
        status = library.ts_create(model, ctypes.byref(options), ctypes.byref(self._handle))
        if status:
            raise ModuleError(f"{self.path.name}: {self._message()}", status)
        self.threads: int = library.ts_threads(self._handle)
        self._bind()

    def _bind(self) -> None:
        """Descriptors that every call reuses."""
        self._in = (abi.DLTensor * max(len(self.inputs), 1))()
        self._out = (abi.DLTensor * max(len(self.outputs), 1))()
        library = self._library
        model = library.ts_model_get()
        self._in_slots = [_Slot(s, self._in[i]) for i, s in enumerate(self.inputs)]
        self._out_slots = [_Slot(s, self._out[i]) for i, s in enumerate(self.outputs)]
        for i, slot in enumerate(self._in_slots):
            slot.tensor.dtype = library.ts_input_info(model, i)[0].dtype
        for i, slot in enumerate(self._out_slots):
            slot.tensor.dtype = library.ts_output_info(model, i)[0].dtype
        for slot in (*self._in_slots, *self._out_slots):
            slot.tensor.device_type = abi.CPU_DEVICE
        self._names = {spec.name: i for i, spec in enumerate(self.inputs)}
        self._arguments = (
            self._handle,
            ctypes.addressof(self._in),
            len(self.inputs),
            ctypes.addressof(self._out),
            len(self.outputs),
        )
        self._predictable = not any("?" in spec.dims for spec in self.outputs)

    def _message(self) -> str:
        text: bytes = self._library.ts_last_error(self._handle)
        return text.decode(errors="replace")

    def _arrays(self, values: Sequence[Any]) -> list[Array]:
        """Inputs in model order, as arrays of the model's types."""
        if len(values) == 1 and isinstance(values[0], Mapping):
            values = self._ordered(values[0])
        if len(values) != len(self._in_slots):
            raise ModuleError(f"expected {len(self._in_slots)} inputs, got {len(values)}")
        arrays = []
        for value, slot in zip(values, self._in_slots, strict=True):
            if type(value) is np.ndarray:
                array = value
            else:
                plain = not hasattr(value, "__array__") and not hasattr(value, "__dlpack__")
                array = np.asarray(value, dtype=slot.dtype if plain else None)
            if array.dtype != slot.dtype:
                raise ModuleError(
                    f"input '{slot.spec.name}': expected element type {slot.dtype.name}, "
                    f"got {array.dtype.name}",
                    abi.ERROR_INPUT,
                )
            if not array.flags.c_contiguous:
                array = np.ascontiguousarray(array)
            arrays.append(array)
        return arrays

    def _ordered(self, values: Mapping[str, Any]) -> list[Any]:
        try:
            if len(values) == len(self._names):
                return [values[name] for name in self._names]
        except KeyError:
            pass
        missing = [name for name in self._names if name not in values]
        unknown = [name for name in values if name not in self._names]
        raise ModuleError(
            f"inputs: missing {missing}, unknown {unknown}; expected {list(self._names)}"
        )

    def _bind_inputs(self, arrays: list[Array]) -> tuple[tuple[int, ...], ...]:
        shapes = []
        for array, slot in zip(arrays, self._in_slots, strict=True):
            shape = array.shape
            if shape != slot.shape:
                slot.set_shape(shape)
            slot.tensor.data = array.__array_interface__["data"][0]
            shapes.append(shape)
        return tuple(shapes)

    def _bind_outputs(self, shapes: tuple[tuple[int, ...], ...]) -> list[Array] | None:
        """Fresh arrays for outputs whose shapes are known from an earlier run, else None."""
        known = self._output_shapes.get(shapes)
        if known is None:
            for slot in self._out_slots:
                slot.tensor.data = None
                slot.shape = None
            return None
        results = []
        for shape, slot in zip(known, self._out_slots, strict=True):
            result = np.empty(shape, slot.dtype)
            if shape != slot.shape:
                slot.set_shape(shape)
                slot.tensor.strides = None
            slot.tensor.data = result.__array_interface__["data"][0]
            results.append(result)
        return results

    def _copy_outputs(self, shapes: tuple[tuple[int, ...], ...]) -> list[Array]:
        """Copies of the outputs that the instance owns."""
        results = []
        for slot in self._out_slots:
            tensor = slot.tensor
            result = np.empty(tuple(tensor.shape[: tensor.ndim]), slot.dtype)
            if result.nbytes:
                ctypes.memmove(result.ctypes.data, tensor.data, result.nbytes)
            results.append(result)
        if self._predictable and len(self._output_shapes) < _PREDICTED_SHAPES:
            self._output_shapes[shapes] = [result.shape for result in results]
        return results

    def _raise(self, status: int) -> None:
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
            shapes = self._bind_inputs(arrays)
            results = self._bind_outputs(shapes)
            status = self._library.ts_run(*self._arguments)
            if status:
                self._raise(status)
            if results is None:
                results = self._copy_outputs(shapes)
        return dict(zip((spec.name for spec in self.outputs), results, strict=True))

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
            self._bind_outputs(self._bind_inputs(arrays))
            for slot in self._out_slots:
                slot.tensor.data = None
                slot.shape = None
            for count in (warmup, iterations):
                status = self._library.ts_bench(*self._arguments, count, durations.ctypes.data)
                if status:
                    self._raise(status)
        return durations[:iterations] * 1e-9

    def close(self) -> None:
        """Free the instance and unload the library. Closing twice does nothing."""
        if self._library is not None:
            if self._handle:
                self._library.ts_destroy(self._handle)
            handle, self._library = self._library._handle, None  # type: ignore[assignment]
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
        if getattr(self, "_library", None) is not None:
            self.close()

    def __repr__(self) -> str:
        def text(specs: tuple[Spec, ...]) -> str:
            return ", ".join(f"{s.name}: {s.dtype}[{', '.join(map(str, s.dims))}]" for s in specs)

        return f"Module({self.name}: ({text(self.inputs)}) -> ({text(self.outputs)}))"


def load(path: str | os.PathLike[str], threads: int = 1) -> Module:
    """Load a compiled `.so`. threads: 1, more, or 0 for one per CPU. Raises ModuleError."""
    return Module(path, threads)
