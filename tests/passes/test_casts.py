"""Which types hold every value of another: casts to them and back go."""

from __future__ import annotations

import numpy as np
import pytest

from tensmith.compiler.ir import DType
from tensmith.passes.simplify.rules.algebra import holds

DIGITS = {DType.F64: 52, DType.F32: 23, DType.F16: 10, DType.BF16: 7}  # stored, of a fraction
EXPONENTS = (-1022, -126, -24, -14, 15, 127, 1023)
TYPES = [dtype for dtype in DType if not dtype.is_narrow]


def extremes(dtype: DType) -> np.ndarray:
    """The values that another type is most likely to lack."""
    if dtype is DType.BOOL:
        return np.array([False, True])
    if dtype.is_float:
        numbers = [1 + 2.0 ** -DIGITS[dtype], *(2.0**n for n in EXPONENTS)]
        with np.errstate(all="ignore"):
            found = np.array(numbers).astype(dtype.numpy)
        return found[np.isfinite(found.astype(np.float64))]
    lowest = -(1 << (dtype.bits - 1)) if dtype.is_signed else 0
    highest = (1 << (dtype.bits - dtype.is_signed)) - 1
    return np.array([lowest, highest, highest - 1, 1], dtype.numpy)


@pytest.mark.parametrize("wide", TYPES, ids=str)
@pytest.mark.parametrize("narrow", TYPES, ids=str)
def test_types_hold_every_value(wide: DType, narrow: DType) -> None:
    values = extremes(narrow)
    with np.errstate(all="ignore"):
        kept = values.astype(wide.numpy)
    same = [_number(a) == _number(b) for a, b in zip(values, kept, strict=True)]
    assert holds(wide, narrow) == all(same)


def _number(value: np.generic) -> int | float:
    return int(value) if value.dtype.kind in "iub" else float(value)
