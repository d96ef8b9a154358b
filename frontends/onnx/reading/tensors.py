"""TensorProto to numpy arrays, with every size checked before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ....compiler.errors import InvalidModelError
from ....compiler.ir import DType
from ....compiler.ir.ops.packed import PACKED_BITS
from .external_data import ModelFolder
from .foreign import POINTER_BYTES, pointer

Array = np.ndarray[Any, Any]
MAX_RANK = 32
_SPARSE_LIMIT = 1 << 31  # bytes of a sparse tensor with its zeros: what a dense one can have
_T = onnx.TensorProto

DTYPES: dict[int, DType] = {
    _T.DOUBLE: DType.F64,
    _T.FLOAT: DType.F32,
    _T.FLOAT16: DType.F16,
    _T.BFLOAT16: DType.BF16,
    _T.INT64: DType.I64,
    _T.INT32: DType.I32,
    _T.INT16: DType.I16,
    _T.INT8: DType.I8,
    _T.UINT64: DType.U64,
    _T.UINT32: DType.U32,
    _T.UINT16: DType.U16,
    _T.UINT8: DType.U8,
    _T.BOOL: DType.BOOL,
    _T.FLOAT8E4M3FN: DType.F8E4M3FN,
    _T.FLOAT8E4M3FNUZ: DType.F8E4M3FNUZ,
    _T.FLOAT8E5M2: DType.F8E5M2,
    _T.FLOAT8E5M2FNUZ: DType.F8E5M2FNUZ,
    _T.FLOAT8E8M0: DType.F8E8M0FNU,
    _T.FLOAT4E2M1: DType.F4E2M1FN,
    _T.INT4: DType.I4,
    _T.UINT4: DType.U4,
    _T.INT2: DType.I2,
    _T.UINT2: DType.U2,
}
# elements of which a byte of the file holds several: bits of one
_PACKED = {DType.F4E2M1FN: 4, **PACKED_BITS}
_FIELDS = {
    _T.DOUBLE: "double_data",
    _T.FLOAT: "float_data",
    _T.INT64: "int64_data",
    _T.UINT64: "uint64_data",
    _T.UINT32: "uint64_data",
}


class UnsupportedType(Exception):
    """An element type that has no counterpart in the IR."""


def dtype_of(code: int) -> DType:
    """The DType of an ONNX element type.

    Raises UnsupportedType for a type that the IR lacks and InvalidModelError for an unknown code.
    """
    if code in DTYPES:
        return DTYPES[code]
    if code not in _T.DataType.values() or code == _T.UNDEFINED:
        raise InvalidModelError(f"element type {code} does not exist in ONNX")
    raise UnsupportedType(f"element type {_T.DataType.Name(code)}")


def to_array(
    tensor: onnx.TensorProto, *, raw: memoryview | None = None, folder: ModelFolder | None = None
) -> Array:
    """The elements of a tensor: a view of `raw` or of a mapped file where possible, read-only.

    raw: `raw_data` that was left out of the message. folder: the model's, where external data must
    lie. Raises InvalidModelError when data and dims disagree, UnsupportedType for the element type.
    """
    name = tensor.name or "constant"
    shape, dtype = _checked_shape(tensor), dtype_of(tensor.data_type)
    count = math.prod(shape)
    if tensor.data_location == _T.EXTERNAL:
        return _external(tensor, count, dtype, folder).reshape(shape)
    if raw is None and tensor.raw_data:
        raw = memoryview(tensor.raw_data)
    if raw is not None:
        return _from_raw(name, raw, count, dtype).reshape(shape)
    return _from_fields(tensor, count, dtype).reshape(shape)


def _checked_shape(tensor: onnx.TensorProto) -> tuple[int, ...]:
    name, shape = tensor.name or "constant", tuple(tensor.dims)
    if any(dim < 0 for dim in shape) or len(shape) > MAX_RANK:
        raise _invalid(name, f"dims {list(shape)[:8]} are negative or more than {MAX_RANK}")
    if tensor.HasField("segment"):
        raise _invalid(name, "it is a segment of a larger tensor")
    return shape


def packed_bytes(
    tensor: onnx.TensorProto, *, raw: memoryview | None = None, folder: ModelFolder | None = None
) -> Array | None:
    """The bytes of a tensor that holds several integers in each, flat u8; None of another.

    As `to_array`: a view where possible, and the same errors.
    """
    name = tensor.name or "constant"
    shape, dtype = _checked_shape(tensor), dtype_of(tensor.data_type)
    if dtype not in PACKED_BITS:
        return None
    stored = _stored_bytes(math.prod(shape), dtype)
    if tensor.data_location == _T.EXTERNAL:
        path, offset, length = _place(tensor, folder, stored)
        if length != stored:
            raise _invalid(name, f"{length} bytes of data, {stored} expected")
        if not stored:
            return np.zeros(0, np.uint8)
        return np.memmap(path, np.uint8, mode="r", offset=offset, shape=(stored,))
    if raw is None and tensor.raw_data:
        raw = memoryview(tensor.raw_data)
    found = np.array(tensor.int32_data, np.int32).astype(np.uint8) if raw is None else (
        np.frombuffer(raw, np.uint8))  # fmt: skip
    if found.size != stored:
        raise _invalid(name, f"{found.size} bytes of data, {stored} expected")
    return found


def sparse_array(sparse: onnx.SparseTensorProto, *, folder: ModelFolder | None = None) -> Array:
    """A sparse tensor (values at indices, zeros elsewhere) as an array of all elements.

    Raises InvalidModelError when the parts disagree or there are too many elements, UnsupportedType
    for the element type.
    """
    name = sparse.values.name or "constant"
    shape = tuple(sparse.dims)
    if any(dim < 0 for dim in shape) or len(shape) > MAX_RANK:
        raise _invalid(name, f"dims {list(shape)[:8]} are negative or more than {MAX_RANK}")
    dtype = dtype_of(sparse.values.data_type)
    if math.prod(shape) * dtype.bytes > _SPARSE_LIMIT:
        raise _invalid(name, f"its dims {list(shape)[:8]} are absurdly large")
    values = to_array(sparse.values, folder=folder)
    indices = to_array(sparse.indices, folder=folder)
    if values.ndim != 1 or indices.shape not in ((len(values),), (len(values), len(shape))):
        raise _invalid(name, f"values {list(values.shape)}, indices {list(indices.shape)}")
    if not np.issubdtype(indices.dtype, np.integer):
        raise _invalid(name, f"its indices are of type {indices.dtype}")
    sizes = np.array([math.prod(shape)] if indices.ndim == 1 else shape, np.int64)
    columns = indices.reshape(len(values), len(sizes))
    if np.any((columns < 0) | (columns >= sizes)):
        raise _invalid(name, "an index is out of range")
    array = np.zeros(shape, values.dtype)
    if indices.ndim == 1:
        array.reshape(-1)[indices] = values
    else:
        array[tuple(columns.T)] = values
    return array


def _invalid(name: str, why: str, remedy: str = "export it again") -> InvalidModelError:
    return InvalidModelError(f"tensor '{name}' is malformed", why=why, remedy=remedy)


def to_bytes(tensor: onnx.TensorProto) -> Array:
    """The elements of a tensor of strings: UTF-8, u8 [..., width], zeros after the shorter ones.

    Raises InvalidModelError when data and dims disagree.
    """
    shape = tuple(tensor.dims)
    if any(dim < 0 for dim in shape) or len(shape) > MAX_RANK:
        raise _invalid(tensor.name, f"dims {list(shape)[:8]} are negative or more than {MAX_RANK}")
    found = [bytes(item) for item in tensor.string_data]
    if len(found) != math.prod(shape):
        raise _invalid(tensor.name, f"{len(found)} strings, {math.prod(shape)} expected")
    return padded(found).reshape(*shape, -1) if found else np.zeros((*shape, 0), np.uint8)


def padded(strings: Sequence[bytes]) -> Array:
    """Bytes as a table, u8 [number, width of the longest], zeros after the shorter ones."""
    table = np.zeros((len(strings), max(map(len, strings), default=0)), np.uint8)
    for row, text in zip(table, strings, strict=True):
        row[: len(text)] = np.frombuffer(text, np.uint8)
    return table


def _from_raw(name: str, raw: memoryview, count: int, dtype: DType) -> Array:
    expected = _stored_bytes(count, dtype)
    if raw.nbytes != expected:
        raise _invalid(name, f"{raw.nbytes} bytes of data, {expected} expected")
    if dtype in _PACKED:
        return _unpack(np.frombuffer(raw, np.uint8), count, dtype)
    if dtype.is_narrow:
        return np.frombuffer(raw, np.uint8).view(dtype.numpy)
    return np.frombuffer(raw, dtype.numpy.newbyteorder("<"))


def _stored_bytes(count: int, dtype: DType) -> int:
    return -(-count * _PACKED.get(dtype, dtype.bits) // 8)


def _unpack(packed: Array, count: int, dtype: DType) -> Array:
    """Several elements per byte, the first in the low bits, become one per byte."""
    bits = _PACKED[dtype]
    parts = [packed >> shift & ((1 << bits) - 1) for shift in range(0, 8, bits)]
    return np.ascontiguousarray(np.stack(parts, -1).reshape(-1)[:count]).view(dtype.numpy)


def _from_fields(tensor: onnx.TensorProto, count: int, dtype: DType) -> Array:
    field = _FIELDS.get(tensor.data_type, "int32_data")
    data = getattr(tensor, field)
    packed = dtype in _PACKED
    expected = _stored_bytes(count, dtype) if packed else count
    if len(data) != expected:
        raise _invalid(tensor.name, f"{len(data)} elements in {field}, {expected} expected")
    if packed:
        return _unpack(np.array(data, np.int32).astype(np.uint8), count, dtype)
    if dtype.is_narrow:
        return np.array(data, np.int32).astype(np.uint8).view(dtype.numpy)
    if dtype in (DType.F16, DType.BF16):
        return np.array(data, np.int32).astype(np.uint16).view(dtype.numpy)
    natural: dict[str, Any] = {
        "float_data": np.float32,
        "double_data": np.float64,
        "int64_data": np.int64,
    }
    natural |= {"uint64_data": np.uint64, "int32_data": np.int32}
    return np.array(data, natural[field]).astype(dtype.numpy)


def external_bytes(tensor: onnx.TensorProto, folder: ModelFolder | None) -> bytes:
    """The data of a tensor that lies outside of the model, as `raw_data` would hold it.

    Raises InvalidModelError where it is not there.
    """
    path, offset, length = _place(tensor, folder)
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def _place(
    tensor: onnx.TensorProto, folder: ModelFolder | None, usual: int | None = None
) -> tuple[Path, int, int]:
    """The file, the offset and the number of bytes of external data; `usual` where it says none."""
    name = tensor.name
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if folder is None:
        raise _invalid(name, "external data, but the model has no folder")
    try:
        path = folder.find(entries.get("location", ""))
    except ValueError as error:
        raise _invalid(name, str(error), folder.remedy) from None
    size = path.stat().st_size
    _refuse_pointer(name, entries["location"], path)
    offset = _number(name, entries, "offset", 0)
    rest = max(size - offset, 0)
    length = _number(name, entries, "length", rest if usual is None else usual)
    if offset + length > size:
        raise _invalid(name, f"bytes {offset} to {offset + length} of a file of {size} bytes")
    return path, offset, length


def _external(
    tensor: onnx.TensorProto, count: int, dtype: DType, folder: ModelFolder | None
) -> Array:
    stored = _stored_bytes(count, dtype)
    path, offset, length = _place(tensor, folder, stored)
    if length != stored:
        raise _invalid(tensor.name, f"{length} bytes of data, {stored} expected")
    if count == 0:
        return np.zeros(0, dtype.numpy)
    if dtype.is_narrow:
        octets = np.memmap(path, np.uint8, mode="r", offset=offset, shape=(stored,))
        return _unpack(octets, count, dtype) if dtype in _PACKED else octets.view(dtype.numpy)
    return np.memmap(path, dtype.numpy, mode="r", offset=offset, shape=(count,))


def _refuse_pointer(name: str, location: str, path: Path) -> None:
    """Raise InvalidModelError for a file that Git LFS would put in the place of the data."""
    with path.open("rb") as file:
        found = pointer(file.read(POINTER_BYTES + 1))
    if found is not None:
        raise _invalid(name, f"external data '{location[:80]}' is {found[0]}", found[1])


def _number(name: str, entries: dict[str, str], key: str, default: int) -> int:
    text = entries.get(key, "")
    if not text:
        return default
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise _invalid(name, f"{key} '{text[:30]}' of its external data is not a size")
    return int(text)
