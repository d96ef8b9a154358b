"""`interpolated_table`: a function of 16-bit integers, from 513 of its results.

Results of what lies between two of them are interpolated, with 7 bits behind the point: the result
is i32, 128 times what the table says. Source: TOSA 1.0 specification, operator TABLE, i16_t.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Value
from ..types import DType, TensorType
from .common import need_dtype
from .registry import REQUIRED, Array, OpDef, Trait, register

INTERPOLATED_TABLE = "interpolated_table"
ENTRIES = 513
FRACTION_BITS = 7
LOWEST, HIGHEST = -(1 << 15), (1 << 15) - 1


def _infer(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], frozenset({DType.I16}), "what is looked up")
    values = attrs["values"]
    if len(values) != ENTRIES or not all(LOWEST <= value <= HIGHEST for value in values):
        raise ValueError(f"an interpolated table has {ENTRIES} values of 16 bits")
    steps = (after - before for before, after in itertools.pairwise(values))
    if not all(LOWEST <= step <= HIGHEST for step in steps):
        raise ValueError("neighbours in an interpolated table differ by more than 16 bits hold")
    return [TensorType(DType.I32, inputs[0].shape)]


def _evaluate(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    values = np.asarray(attrs["values"], np.int32)
    place = args[0].astype(np.int32) - LOWEST
    index, rest = place >> FRACTION_BITS, place & ((1 << FRACTION_BITS) - 1)
    below, above = values[index], values[index + 1]
    return [np.asarray((below << FRACTION_BITS) + (above - below) * rest)]


register(
    OpDef(
        INTERPOLATED_TABLE,
        _infer,
        _evaluate,
        Trait.POINTWISE,
        {"values": REQUIRED},
        (1, 1),
    )
)
