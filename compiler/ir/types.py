"""Element types, storage layouts and tensor types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np

from ..errors import InternalError
from .assumptions import assume_equal
from .dims import Dim, product


class DType(Enum):
    """Element types; the value is the name in text form.

    is_narrow: whether elements are stored and converted only: no operator computes with them.
    bits, bytes: of one element in memory (bools and narrow types take a byte). is_float,
    is_integer, is_signed: whether it is a floating-point, integer, signed integer type to compute
    with (bool is none of these).
    """

    is_narrow: bool
    bits: int
    bytes: int
    is_float: bool
    is_integer: bool
    is_signed: bool

    F64 = "f64"
    F32 = "f32"
    F16 = "f16"
    BF16 = "bf16"
    I64 = "i64"
    I32 = "i32"
    I16 = "i16"
    I8 = "i8"
    U64 = "u64"
    U32 = "u32"
    U16 = "u16"
    U8 = "u8"
    BOOL = "bool"
    F8E4M3FN = "f8e4m3fn"
    F8E4M3FNUZ = "f8e4m3fnuz"
    F8E5M2 = "f8e5m2"
    F8E5M2FNUZ = "f8e5m2fnuz"
    F8E8M0FNU = "f8e8m0fnu"
    F4E2M1FN = "f4e2m1fn"
    I4 = "i4"
    U4 = "u4"
    I2 = "i2"
    U2 = "u2"

    def __init__(self, text: str) -> None:
        width = text.lstrip("bfiu")
        computes = width.isdigit() and int(width) >= 8
        self.is_narrow = not computes and text != "bool"
        self.bits = int(width) if computes else 8
        self.bytes = self.bits // 8
        self.is_float = computes and text[0] in "bf"
        self.is_integer = computes and text[0] in "iu"
        self.is_signed = computes and text[0] == "i"

    __hash__ = object.__hash__  # that of Enum is a function in Python

    @property
    def numpy(self) -> np.dtype[Any]:
        """The numpy type with the same elements."""
        return _NUMPY[self]

    @staticmethod
    def of(dtype: Any) -> DType:
        """The DType of a numpy type. Raises InternalError for one that has none."""
        found = _FROM_NUMPY.get(np.dtype(dtype))
        if found is None:
            raise InternalError(f"element type {np.dtype(dtype)} has no DType")
        return found

    def __str__(self) -> str:
        return str(self.value)


_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F64: np.dtype(np.float64),
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.BF16: np.dtype(ml_dtypes.bfloat16),
    DType.I64: np.dtype(np.int64),
    DType.I32: np.dtype(np.int32),
    DType.I16: np.dtype(np.int16),
    DType.I8: np.dtype(np.int8),
    DType.U64: np.dtype(np.uint64),
    DType.U32: np.dtype(np.uint32),
    DType.U16: np.dtype(np.uint16),
    DType.U8: np.dtype(np.uint8),
    DType.BOOL: np.dtype(np.bool_),
    DType.F8E4M3FN: np.dtype(ml_dtypes.float8_e4m3fn),
    DType.F8E4M3FNUZ: np.dtype(ml_dtypes.float8_e4m3fnuz),
    DType.F8E5M2: np.dtype(ml_dtypes.float8_e5m2),
    DType.F8E5M2FNUZ: np.dtype(ml_dtypes.float8_e5m2fnuz),
    DType.F8E8M0FNU: np.dtype(ml_dtypes.float8_e8m0fnu),
    DType.F4E2M1FN: np.dtype(ml_dtypes.float4_e2m1fn),
    DType.I4: np.dtype(ml_dtypes.int4),
    DType.U4: np.dtype(ml_dtypes.uint4),
    DType.I2: np.dtype(ml_dtypes.int2),
    DType.U2: np.dtype(ml_dtypes.uint2),
}
_FROM_NUMPY = {numpy_type: dtype for dtype, numpy_type in _NUMPY.items()}


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory: row-major, inside a border of one number or a larger tensor.

    border: per axis the number of elements (before, after); () means none (dense). fill: what they
    all are.
    parent: the dims of the storage that the tensor is a part of; () means that it has its own.
    """

    border: tuple[tuple[int, int], ...] = ()
    parent: tuple[Dim, ...] = ()
    fill: int = 0

    def __str__(self) -> str:
        if self.parent:
            return f" within [{', '.join(map(str, self.parent))}]"
        sides = "+".join(f"{lo}:{hi}" for lo, hi in self.border)
        of = f" of {self.fill}" if self.fill else ""
        return f" border {sides}{of}" if sides else ""


DENSE = Layout()


@dataclass(frozen=True)
class TensorType:
    """Element type, shape (row-major logical dims) and storage layout of a tensor."""

    dtype: DType
    shape: tuple[Dim, ...]
    layout: Layout = DENSE

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def elements(self) -> Dim:
        """Number of elements, border not counted."""
        return product(self.shape)

    @property
    def is_static(self) -> bool:
        """Whether every dim is an int."""
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints. Raises InternalError when a dim is symbolic."""
        if not self.is_static:
            raise InternalError(f"a static shape is needed, not {self}")
        return tuple(int(dim) for dim in self.shape)  # type: ignore[arg-type]

    def with_shape(self, shape: tuple[Dim, ...]) -> TensorType:
        """The same element type, densely stored, with another shape."""
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another element type."""
        return TensorType(dtype, self.shape)

    def with_layout(self, layout: Layout) -> TensorType:
        """The same tensor stored in another way."""
        return replace(self, layout=layout)

    def __str__(self) -> str:
        dims = ", ".join(str(dim) for dim in self.shape)
        return f"{self.dtype}[{dims}]{self.layout}"


def broadcast_dims(a: Dim, b: Dim) -> Dim:
    """The dim that two dims broadcast to (a symbol against a number: the number, unless it is 1).

    Raises ValueError when both are numbers, differ, and neither is 1.
    """
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise ValueError(f"dimensions {a} and {b} do not broadcast")
    assume_equal(a, b)
    return a if isinstance(a, int) else b if isinstance(b, int) else a


def broadcast_shapes(*shapes: tuple[Dim, ...]) -> tuple[Dim, ...]:
    """numpy's broadcast of shapes. Raises ValueError for shapes that do not fit."""
    rank = max((len(shape) for shape in shapes), default=0)
    out: list[Dim] = [1] * rank
    for shape in shapes:
        for axis, dim in enumerate(shape, start=rank - len(shape)):
            out[axis] = broadcast_dims(out[axis], dim)
    return tuple(out)
