"""What becomes of sums: scaled, moved by the zero point, clipped, looked up in a table."""

from __future__ import annotations

from typing import Any

import numpy as np

from .feature_map import FeatureMap
from .npu_operation import Activation, IntegerScale, LookupTable
from .region_memory import Bytes
from .rescaling import Integers, rescale

Array = np.ndarray[Any, np.dtype[Any]]
_INTERPOLATED_BITS = 7  # of an index of 16 bits


def finish(
    sums: Integers,
    scale: IntegerScale | None,
    zero_point: int,
    activation: Activation,
    internal: Bytes,
    ofm: FeatureMap,
) -> Array:
    """The results of sums (scale None: they are scaled already), in the type of the OFM."""
    if scale is not None and (scale.factor, scale.shift) != (1, 0):
        sums = rescale(sums, scale.factor, scale.shift, scale.rounding, scale.first_bits)
    results = np.clip(sums + zero_point, activation.low, activation.high)
    if activation.table is not None:
        return looked_up(results, activation.table, internal, ofm.dtype)
    return results.astype(ofm.dtype)


def looked_up(indices: Integers, table: LookupTable, internal: Bytes, dtype: Any) -> Array:
    """Elements of a table: indices of 8 bits pick one, those of 16 bits interpolate between two."""
    entries = internal[table.start : table.start + table.size]
    if table.index == 1:
        first = 0 if np.dtype(dtype) == np.uint8 else 128
        return np.asarray(entries.view(dtype)[indices + first])
    pairs = entries.view("<i4")[(indices >> _INTERPOLATED_BITS) + 256].astype(np.int64)
    base, slope = ((pairs & 0xFFFF) ^ 0x8000) - 0x8000, pairs >> 16
    part = indices & (1 << _INTERPOLATED_BITS) - 1
    if np.dtype(dtype).itemsize == 4:
        return np.asarray((base << _INTERPOLATED_BITS) + slope * part, dtype)
    half = 1 << _INTERPOLATED_BITS - 1
    limits = np.iinfo(np.int16)
    results = np.clip(base + (slope * part + half >> _INTERPOLATED_BITS), limits.min, limits.max)
    return np.asarray(results, dtype)
