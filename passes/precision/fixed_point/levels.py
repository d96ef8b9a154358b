"""Functions of numbers that reach over many powers of two, by a table for every factor of 32.

A table of 513 results has few of them where the number is small: each further one is looked up
with 32 times the number, and is 0 where that is too large, as the one before is 0 where the number
is small. The largest of all counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ....compiler.ir.graph import Value, constant
from ....compiler.ir.ops.interpolated_table import ENTRIES, FRACTION_BITS, HIGHEST
from ....compiler.ir.rewrite import Rewriter
from ....compiler.ir.types import DType
from .operands import rescaled

Array = np.ndarray[Any, Any]
LEVEL = 32  # by which the ranges of neighbouring tables differ
_SPAN = 1 << 16  # of what a table is looked up with
_FIRST = (ENTRIES - 1) // LEVEL - 1  # entry from which a table has results that one below has too
_LAST = ENTRIES - 3  # entry up to which it has those that one above has too


def levels_of(most: float, least: float) -> int:
    """How many tables it takes for numbers from `least` to `most`."""
    count = 1
    while most / LEVEL**count > least:
        count += 1
    return count


def function_of(
    x: Value, most: float, levels: int, function: Callable[[Array], Array], rw: Rewriter
) -> Value:
    """A positive function of x (i32, from 0 to most), as i32; below the range of the last table it
    is what it is at a 32nd of that."""
    found: Value | None = None
    for level in range(levels):
        reach = most / LEVEL**level
        below = constant(np.int32(-round(reach / 2)))
        index = rescaled(rw.emit("add", [x, below]), _SPAN / reach, DType.I16, rw)
        values, peak = _entries(reach, function, level > 0, level + 1 < levels)
        share = rw.emit("interpolated_table", [index], {"values": values})
        unit = peak / (HIGHEST << FRACTION_BITS)
        share = rescaled(share, unit, DType.I32, rw)
        found = share if found is None else rw.emit("max", [found, share])
    assert found is not None
    return found


def _entries(
    reach: float, function: Callable[[Array], Array], is_below: bool, is_above: bool
) -> tuple[tuple[int, ...], float]:
    """(the entries of a table, as shares of HIGHEST; what that is one of)"""
    places = np.arange(ENTRIES) * reach / (ENTRIES - 1)
    results = function(np.maximum(places, reach / LEVEL))
    if is_above:
        results[:_FIRST] = 0
    if is_below:
        results[_LAST + 1 :] = 0
    peak = float(results.max())
    shares = np.clip(np.rint(HIGHEST * results / peak), 0, HIGHEST)
    return tuple(shares.astype(int).tolist()), peak
