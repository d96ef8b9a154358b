"""Whatever callers hold tensors in, as numpy arrays: lists, arrays of any layout, DLPack."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Set
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import abi

Array = NDArray[Any]
_FAILURES = (TypeError, ValueError, OverflowError, RuntimeError, BufferError)  # of conversions


def as_array(value: Any, dtype: np.dtype[Any]) -> Array:
    """The value as a contiguous array of native byte order.

    Numbers, lists and other buffers become arrays of `dtype` where that loses nothing but accuracy;
    arrays, numpy's and those of other libraries on the CPU, keep their element type.
    Raises ValueError, which says what cannot be done.
    """
    if value is None:
        raise ValueError("None is given for it")
    try:
        array = _array_of(value, dtype)
    except _FAILURES as error:
        raise ValueError(str(error)) from None
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return np.ascontiguousarray(array).reshape(array.shape)


def _array_of(value: Any, dtype: np.dtype[Any]) -> Array:
    if not hasattr(value, "__array__"):
        return from_dlpack(value) if hasattr(value, "__dlpack__") else _converted(value, dtype)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError("elements of it are masked; array.filled(number) gives them a value")
    try:
        return np.asarray(value)
    except _FAILURES:
        if not hasattr(value, "__dlpack__"):
            raise
    return from_dlpack(value)  # numpy lacks its element type, or it belongs to a gradient's tape


def _converted(value: Any, dtype: np.dtype[Any]) -> Array:
    """Numbers in any nesting; floats are not cut to integers."""
    if isinstance(value, str | bytes | bytearray):
        raise ValueError(
            f"{type(value).__name__} is given for {dtype.name}; of raw bytes "
            f"np.frombuffer(data, '{dtype.name}') makes an array"
        )
    if isinstance(value, Iterator | Set):
        raise ValueError(f"a {type(value).__name__} is given for it; make a list of it")
    found = np.asarray(value)
    if found.dtype.kind == "O" and any(item is None for item in found.flat):
        raise ValueError("an element of it is None; float('nan') is a number that is none")
    if found.dtype.kind in "fc" and dtype.kind in "iub" and found.size:
        raise ValueError(f"{found.dtype.name} numbers are given for {dtype.name}")
    return np.asarray(value, dtype)


class Managed(ctypes.Structure):
    """How `DLManagedTensor` begins (dlpack.h)."""

    _fields_ = (("tensor", abi.DLTensor),)


def from_dlpack(value: Any) -> Array:
    """A copy of a tensor that speaks DLPack, also of element types that numpy lacks.

    Raises ValueError for one that is not in the CPU's memory.
    """
    for plain in ("detach", "resolve_neg"):  # of torch: DLPack does not tell of a negation to come
        value = getattr(value, plain)() if hasattr(value, plain) else value
    if hasattr(value, "__dlpack_device__"):
        device = int(value.__dlpack_device__()[0])
        if device != abi.CPU_DEVICE:
            raise ValueError(f"it lies on another device (DLPack's number {device}), not the CPU")
    capsule = value.__dlpack__()
    address_of = ctypes.pythonapi.PyCapsule_GetPointer
    address_of.restype, address_of.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    tensor = Managed.from_address(address_of(capsule, b"dltensor")).tensor
    try:
        dtype = abi.numpy_dtype(abi.dtype_name(tensor.dtype))
    except KeyError as error:
        raise ValueError(f"no model has its element type (DLPack's {error})") from None
    shape = tuple(tensor.shape[axis] for axis in range(tensor.ndim))
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    strides = None
    if tensor.strides:
        strides = [tensor.strides[axis] * dtype.itemsize for axis in range(tensor.ndim)]
    lengths = [0] if strides is None else [s * (n - 1) for s, n in zip(strides, shape, strict=True)]
    if min(lengths, default=0) < 0:
        raise ValueError("its strides are negative; copy it first")
    span = math.prod(shape) * dtype.itemsize if strides is None else sum(lengths) + dtype.itemsize
    memory: Any = (ctypes.c_uint8 * span).from_address(tensor.data + tensor.byte_offset)
    raw = np.dtype((np.void, dtype.itemsize))
    view: Array = np.ndarray(shape, raw, memory, 0, strides)
    return np.array(view, order="C").view(dtype)  # the capsule, alive until here, owns the memory
