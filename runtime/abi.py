"""ctypes mirror of `tensmith.h`, and numpy's names of its element types."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import numpy as np

ABI_VERSION = 7
IDLE = {"spin": 0, "park": 1}  # `ts_options.idle`
CPU_DEVICE, CUDA_DEVICE = 1, 2

STATUS_NAMES = (
    "TS_OK",
    "TS_ERROR_ARGUMENT",
    "TS_ERROR_INPUT",
    "TS_ERROR_OUTPUT",
    "TS_ERROR_CPU",
    "TS_ERROR_MEMORY",
    "TS_ERROR_WEIGHTS",
    "TS_ERROR_MODEL",
    "TS_ERROR_BUSY",
    "TS_ERROR_THREADS",
    "TS_ERROR_VERSION",
    "TS_ERROR_CANCELLED",
    "TS_ERROR_LIMIT",
    "TS_ERROR_DEVICE",
)
ERROR_ARGUMENT, ERROR_INPUT, ERROR_OUTPUT, ERROR_VERSION = 1, 2, 3, 10


class DLDataType(ctypes.Structure):
    """DLPack element type."""

    _fields_ = (("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16))


class DLTensor(ctypes.Structure):
    """DLPack tensor; `strides` in elements."""

    _fields_ = (
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("dtype", DLDataType),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    )


class TensorInfo(ctypes.Structure):
    """`ts_tensor_info`."""

    _fields_ = (
        ("name", c_char_p),
        ("dtype", DLDataType),
        ("ndim", c_int32),
        ("dims", POINTER(c_int64)),
        ("dim_names", POINTER(c_char_p)),
    )


class Options(ctypes.Structure):
    """`ts_options`."""

    _fields_ = (
        ("size", c_uint32),
        ("threads", c_int32),
        ("weights_path", c_char_p),
        ("max_trips", c_int64),
        ("device", c_int32),
        ("idle", c_int32),
        ("stream", c_void_p),
        ("cache", c_void_p),
    )


MOST_STAGES = 16  # TS_MOST_STAGES
LEAST_CACHE_BYTES = 65536  # TS_LEAST_CACHE_BYTES


class CounterTable(ctypes.Structure):
    """`ts_counters`."""

    _fields_ = (
        ("size", c_uint32),
        ("stages", c_int32),
        ("calls", c_int64),
        ("rows", c_int64),
        ("deferred", c_int64),
        ("answered", c_int64 * MOST_STAGES),
    )


class CacheTable(ctypes.Structure):
    """`ts_cache_counters`."""

    _fields_ = (
        ("size", c_uint32),
        ("hits", c_int64),
        ("misses", c_int64),
        ("entries", c_int64),
        ("bytes", c_int64),
        ("evicted", c_int64),
    )


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "ts_abi_version": (c_uint32, ()),
    "ts_model_get": (c_void_p, ()),
    "ts_name": (c_char_p, (c_void_p,)),
    "ts_manifest": (c_char_p, (c_void_p,)),
    "ts_input_count": (c_int32, (c_void_p,)),
    "ts_output_count": (c_int32, (c_void_p,)),
    "ts_input_info": (POINTER(TensorInfo), (c_void_p, c_int32)),
    "ts_output_info": (POINTER(TensorInfo), (c_void_p, c_int32)),
    "ts_input_is_optional": (c_int32, (c_void_p, c_int32)),
    "ts_create": (c_int32, (c_void_p, POINTER(Options), POINTER(c_void_p))),
    "ts_run": (c_int32, (c_void_p, c_void_p, c_int32, c_void_p, c_int32)),
    "ts_bench": (c_int32, (c_void_p, c_void_p, c_int32, c_void_p, c_int32, c_int64, c_void_p)),
    "ts_set_stream": (c_int32, (c_void_p, c_void_p)),
    "ts_read_counters": (c_int32, (c_void_p, POINTER(CounterTable))),
    "ts_cache_create": (c_int32, (c_uint64, POINTER(c_void_p))),
    "ts_cache_destroy": (None, (c_void_p,)),
    "ts_cache_read": (c_int32, (c_void_p, POINTER(CacheTable))),
    "ts_cancel": (None, (c_void_p,)),
    "ts_threads": (c_int32, (c_void_p,)),
    "ts_last_error": (c_char_p, (c_void_p,)),
    "ts_destroy": (None, (c_void_p,)),
}


def declare(library: ctypes.CDLL) -> None:
    """Give the functions of a loaded artifact their types.

    Raises AttributeError if the library is not a Tensmith artifact.
    """
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


_NAMES = {
    (2, 64): "f64",
    (2, 32): "f32",
    (2, 16): "f16",
    (4, 16): "bf16",
    (0, 64): "i64",
    (0, 32): "i32",
    (0, 16): "i16",
    (0, 8): "i8",
    (1, 64): "u64",
    (1, 32): "u32",
    (1, 16): "u16",
    (1, 8): "u8",
    (6, 8): "bool",
    (10, 8): "f8e4m3fn",
    (11, 8): "f8e4m3fnuz",
    (12, 8): "f8e5m2",
    (13, 8): "f8e5m2fnuz",
    (14, 8): "f8e8m0fnu",
    (17, 4): "f4e2m1fn",
    (0, 4): "i4",
    (1, 4): "u4",
    (0, 2): "i2",
    (1, 2): "u2",
}
_ML_DTYPES = {"bf16": "bfloat16", "i4": "int4", "u4": "uint4", "i2": "int2", "u2": "uint2"}


def dtype_name(dtype: DLDataType) -> str:
    """Name of a DLPack element type: "f32", "i64", "bool", ..."""
    return _NAMES[dtype.code, dtype.bits]


def dtype_code(name: str) -> DLDataType:
    """The DLPack element type of a name."""
    code, bits = next(key for key, value in _NAMES.items() if value == name)
    return DLDataType(code, bits, 1)


def numpy_dtype(name: str) -> np.dtype[Any]:
    """numpy's type for a name.

    bf16 and the types of less than 8 bits or with an exponent in their name are those of
    `ml_dtypes` (one element to a byte), or without it their bits as u16 and u8.
    """
    if name == "bool":
        return np.dtype(np.bool_)
    if name in _ML_DTYPES or "e" in name:
        try:
            import ml_dtypes
        except ImportError:
            return np.dtype(np.uint16 if name == "bf16" else np.uint8)
        wanted = _ML_DTYPES.get(name) or f"float{name[1]}_{name[2:]}"
        found: np.dtype[Any] = np.dtype(getattr(ml_dtypes, wanted))
        return found
    return np.dtype(f"{name[0]}{int(name[1:]) // 8}")
