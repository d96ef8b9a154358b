"""Inputs and outputs of a loaded model: how arrays and the runtime's tensors meet."""

from __future__ import annotations

import ctypes
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import abi
from .arrays import as_array
from .meaning import encode, is_maps, rows_of

Array = NDArray[Any]
Shapes = tuple[tuple[int, ...] | None, ...]
_COPIED_BYTES = 16384
_KEPT_OUTPUTS = 2  # arrays per output: a loop holds the last result while the next one is made
_ROOM = 4  # times the bytes of a result that memory taken again for it has, at most


class ModuleError(RuntimeError):
    """A compiled model refused to load or to run; `code` is the `ts_status`, its name `status`."""

    def __init__(self, message: str, code: int = abi.ERROR_ARGUMENT) -> None:
        self.code = code
        self.status = abi.STATUS_NAMES[code] if 0 < code < len(abi.STATUS_NAMES) else str(code)
        super().__init__(message)


@dataclass(frozen=True)
class Spec:
    """One input or output: dims are ints, or a symbol or expression that a run makes an int.

    dtype: "f32", "i64", "bool", ...; numpy_dtype: the same for numpy. strings: it is strings, whose
    bytes are the last axis. classes: what the entries of the last axis belong to. optional: an
    input that has a default value, so that a call may leave it out. key_type: "string" or "int64"
    of an input that is maps, one per row, "" of others; its columns are the classes, or, where
    there are none, a map's values in the order of the keys.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...]
    numpy_dtype: np.dtype[Any]
    strings: bool = False
    classes: tuple[int | str, ...] = ()
    optional: bool = False
    key_type: str = ""

    @property
    def code(self) -> abi.DLDataType:
        """DLPack's element type."""
        return abi.dtype_code(self.dtype)


class Slot:
    """The DLTensor of one input or output, bound to the shape of the last call."""

    def __init__(self, spec: Spec, tensor: abi.DLTensor, dtype: abi.DLDataType) -> None:
        self.spec, self.tensor, self.dtype = spec, tensor, spec.numpy_dtype
        self.shape: tuple[int, ...] | None = None
        self._sizes = (ctypes.c_int64 * max(len(spec.dims), 1))()
        self._code = dtype

    def bind(self, shape: tuple[int, ...]) -> None:
        """Describe an array of this shape."""
        self.tensor.dtype, self.tensor.device_type = self._code, abi.CPU_DEVICE
        self._sizes = (ctypes.c_int64 * max(len(shape), 1))(*shape)
        self.tensor.shape = ctypes.cast(self._sizes, ctypes.POINTER(ctypes.c_int64))
        self.tensor.strides = None
        self.tensor.ndim = len(shape)
        self.shape = shape


class Input(Slot):
    """An input: the caller's arrays, or nothing where it has a default value."""

    def leave_out(self) -> None:
        """Describe nothing."""
        ctypes.memset(ctypes.byref(self.tensor), 0, ctypes.sizeof(self.tensor))
        self.shape = None

    def give(self, array: Array) -> None:
        """Point the tensor at an array of the bound shape."""
        self.tensor.data = array.__array_interface__["data"][0]


class _Memory(np.ndarray[Any, Any]):
    """Memory of results: numpy makes views of a view refer to what lies below it only where both
    are of one type, so that a plain array at the beginning of this one lives as long as its views.
    """


@dataclass(slots=True)
class _Kept:
    """Memory that calls take again, an array at its beginning, and its address.

    held: the result that was handed out last, while it or a view of it lives.
    """

    memory: _Memory
    array: Array
    address: int
    held: Callable[[], Array | None]

    def lent(self) -> Array:
        """A new result."""
        result = self.array.view(np.ndarray)
        self.held = weakref.ref(result)
        return result


class Output(Slot):
    """An output: arrays that the caller gets.

    Small ones are copies of a buffer whose address is known: numpy takes longer to tell an array's
    address than to copy a few KiB.
    """

    buffer: Array | None = None

    def __init__(self, spec: Spec, tensor: abi.DLTensor, dtype: abi.DLDataType) -> None:
        super().__init__(spec, tensor, dtype)
        self._kept: list[_Kept] = []
        self._bytes = 0

    def bind(self, shape: tuple[int, ...]) -> None:
        super().bind(shape)
        self.buffer = None
        self._bytes = math.prod(shape) * self.dtype.itemsize
        if self._bytes <= _COPIED_BYTES:
            self.buffer = np.zeros(shape, self.dtype)
            self.tensor.data = self.buffer.ctypes.data
            return
        most = _ROOM * self._bytes
        self._kept = [kept for kept in self._kept if self._bytes <= kept.memory.nbytes <= most]
        for kept in self._kept:
            kept.array = self._array(kept.memory)

    def unbind(self) -> None:
        """Leave the output to the instance."""
        self.tensor.data = None
        self.shape = self.buffer = None

    def _array(self, memory: _Memory) -> Array:
        """An array of the bound shape at the beginning of some memory."""
        return memory[: self._bytes].view(self.dtype).reshape(self.shape or ())

    def receive(self) -> Array:
        """Where an output of the bound shape will be.

        Memory of an earlier result is taken again when the result and all that refers to it are
        gone, of one up to `_ROOM` times as large, too: fresh memory costs a page fault for every
        4 KiB, and a result that is kept holds all of what it lies in. Whether it is gone a weak
        reference tells: how many references are counted differs between interpreters. (The `base`
        of a result does not hold it.)
        """
        if self.buffer is not None:
            return self.buffer
        for kept in self._kept:
            if kept.held() is None:
                self.tensor.data = kept.address
                return kept.lent()
        memory = np.empty(self._bytes, np.uint8).view(_Memory)
        address = memory.__array_interface__["data"][0]
        kept = _Kept(memory, self._array(memory), address, lambda: None)
        self.tensor.data = address
        if len(self._kept) < _KEPT_OUTPUTS:
            self._kept.append(kept)
        return kept.lent()

    def copy(self) -> Array:
        """A copy of an output that the instance owns."""
        shape = tuple(self.tensor.shape[d] for d in range(self.tensor.ndim))
        array = np.empty(shape, self.dtype)
        if array.nbytes:
            ctypes.memmove(array.ctypes.data, self.tensor.data, array.nbytes)
        return array


def read_spec(info: abi.TensorInfo, manifest: Mapping[str, Any], *, optional: bool = False) -> Spec:
    """What the runtime and the manifest tell of an input or output."""
    name = abi.dtype_name(info.dtype)
    dims = tuple(
        info.dims[d] if info.dims[d] >= 0 else info.dim_names[d].decode() for d in range(info.ndim)
    )
    strings, classes = bool(manifest.get("strings")), tuple(manifest.get("classes", ()))
    dtype = abi.numpy_dtype(name)
    key_type = str(manifest.get("key_type") or "")
    return Spec(info.name.decode(), name, dims, dtype, strings, classes, optional, key_type)


def shapes_of(arrays: Sequence[Array | None]) -> Shapes:
    """Those of a call's inputs; None for one that is left out."""
    return tuple(None if array is None else array.shape for array in arrays)


def as_given(value: Any, slot: Input) -> Array | None:
    """What a call gives an input, as an array of its type; None where it is left out."""
    if type(value) is np.ndarray and value.dtype is slot.dtype and value.flags.c_contiguous:
        return value
    return None if value is None and slot.spec.optional else convert(value, slot)


def convert(value: Any, slot: Slot) -> Array:
    """A contiguous array of the slot's type; numbers and lists are converted, arrays are not."""
    if value is None:
        raise ModuleError(
            f"input '{slot.spec.name}': None is given; give an array (an optional that is to hold "
            f"nothing is compiled with --shape {slot.spec.name}:none)",
            abi.ERROR_INPUT,
        )
    try:
        if slot.spec.key_type and is_maps(value):
            value = rows_of(value, slot.spec)
        array = _bytes_of(value, slot) if slot.spec.strings else as_array(value, slot.dtype)
    except ValueError as error:
        raise ModuleError(f"input '{slot.spec.name}': {error}", abi.ERROR_INPUT) from None
    if array.dtype != slot.dtype:
        raise ModuleError(
            f"input '{slot.spec.name}': expected element type {slot.dtype.name}, "
            f"got {array.dtype.name}; array.astype('{slot.dtype.name}') converts it",
            abi.ERROR_INPUT,
        )
    return array


def _bytes_of(value: Any, slot: Slot) -> Array:
    """Strings as the model has them, unless they are that already."""
    array = np.asarray(value)
    return as_array(array, slot.dtype) if array.dtype == slot.dtype else encode(array)
