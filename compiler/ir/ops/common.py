"""What the operator families share: checks of inputs, unification of dims, numeric helpers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..assumptions import assume_equal
from ..dims import Dim
from ..graph import Value
from ..types import DType, TensorType
from .registry import Array

FLOATS = frozenset(dtype for dtype in DType if dtype.is_float)
INTEGERS = frozenset(dtype for dtype in DType if dtype.is_integer)
NUMBERS = FLOATS | INTEGERS
BOOLS = frozenset({DType.BOOL})
ANY = NUMBERS | BOOLS
INDICES = frozenset({DType.I64, DType.I32})


def need_dtype(value: Value, allowed: frozenset[DType], what: str) -> None:
    """Raise ValueError unless the element type of `value` is one of `allowed`."""
    if value.dtype not in allowed:
        names = " ".join(sorted(str(dtype.value) for dtype in allowed))
        raise ValueError(f"{what} is {value.dtype.value}, not one of {names}")


def same_dtype(values: Sequence[Value]) -> DType:
    """The element type that all values have. Raises ValueError when they differ."""
    dtypes = [value.dtype for value in values]
    if len(set(dtypes)) != 1:
        raise ValueError(f"element types differ: {' '.join(d.value for d in dtypes)}")
    return dtypes[0]


def need_axis(axis: Any, rank: int, what: str = "axis") -> int:
    """`axis` when 0 <= axis < rank, else ValueError."""
    if not isinstance(axis, int) or not 0 <= axis < rank:
        raise ValueError(f"{what} {axis} is not in [0, {rank})")
    return axis


def need_rank(value: Value, low: int, what: str, high: int | None = None) -> int:
    """The rank of `value`. Raises ValueError unless low <= rank <= high (low when not given)."""
    rank = value.type.rank
    top = low if high is None else high
    if not low <= rank <= top:
        wanted = f"{low}" if low == top else f"{low} to {top}"
        raise ValueError(f"{what} has rank {rank}, not {wanted}")
    return rank


def differ(a: Dim, b: Dim) -> bool:
    """Whether two dims are certainly different: their difference is a number and not 0."""
    difference = a - b
    return isinstance(difference, int) and difference != 0


def unify(a: Dim, b: Dim, what: str) -> Dim:
    """The more precise of two dims that must be equal. Raises ValueError when they are not."""
    if differ(a, b):
        raise ValueError(f"{what}: {a} is not {b}")
    assume_equal(a, b)
    return b if isinstance(b, int) else a


def like(value: Value) -> list[TensorType]:
    """The type of `value`, densely stored, as the only output type."""
    return [TensorType(value.dtype, value.shape)]


def widen(array: Array) -> Array:
    """Half-precision floats as f32; everything else as it is."""
    dtype = DType.of(array.dtype)
    return array.astype(np.float32) if dtype in (DType.F16, DType.BF16) else array


def accurate(array: Array) -> Array:
    """Floats as f64; everything else as it is."""
    return array.astype(np.float64) if DType.of(array.dtype).is_float else array
