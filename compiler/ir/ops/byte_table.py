"""`byte_table`: any function of a byte, as its 256 results.

Elements are the bits of bytes, signed or not; attribute `values`: the bits of the result for each
of them, in the order of unsigned numbers; `dtype`: U8 or I8, of the result. In kernels the values
are a second operand, u8[256], and no attribute, so that tables share a kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Value
from ..types import DType, TensorType
from .common import need_dtype
from .registry import REQUIRED, Array, OpDef, Trait, register

BYTE_TABLE = "byte_table"
SIZE = 256
_BYTES = frozenset({DType.U8, DType.I8})


def _infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], _BYTES, "what is looked up")
    values, dtype = attrs["values"], attrs["dtype"]
    if dtype not in _BYTES:
        raise ValueError(f"a table of {dtype} is none of bytes")
    if (values is None) != (len(inputs) == 2):
        raise ValueError("the values are an attribute, or an operand")
    if len(inputs) == 2:
        if inputs[1].dtype is not DType.U8 or inputs[1].shape != (SIZE,):
            raise ValueError(f"a table of bytes is u8[{SIZE}], not {inputs[1].type}")
    elif len(values) != SIZE or not all(0 <= value < SIZE for value in values):
        raise ValueError(f"a table of bytes has {SIZE} values of 0 to {SIZE - 1}")
    return [TensorType(dtype, inputs[0].shape)]


def _evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    values = args[1] if len(args) == 2 else attrs["values"]
    return [looked_up(args[0], values, attrs["dtype"])]


def looked_up(x: Array, values: Sequence[int] | Array, dtype: DType) -> Array:
    """What a table has for every byte."""
    found = np.asarray(values, np.uint8)[np.asarray(x).view(np.uint8)]
    return np.asarray(found).view(dtype.numpy)


register(
    OpDef(
        BYTE_TABLE,
        _infer,
        _evaluate,
        Trait.POINTWISE,
        {"values": None, "dtype": REQUIRED},
        (1, 2),
    )
)
