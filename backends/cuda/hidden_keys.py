"""Keys that a mask hides from queries: of a mask that is a constant, whatever the data is.

A causal mask, a window or padding: all queries of a block see keys of one range, and what lies
outside is not gone over. Of masks that a run makes, programs find the range (`visible_keys.py`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ...compiler.ir.dims import coefficient, product, symbol
from ...compiler.ir.types import DType
from ...compiler.kernel.contraction import extent_of
from ...compiler.kernel.expr import Apply, Expr, Load, depends_on
from ...compiler.kernel.kernel import Axis
from ...compiler.kernel.schedule.tiles import Band, Tiles
from ...passes.arithmetic.hidden_scores import LEAST_GAIN, hides_below
from .attention_kernel import Attention

Array = np.ndarray[Any, Any]
LEAST_KEYS = 1024  # for which programs look at a mask that a run makes: assumed, not measured


def band_of(attention: Attention, tiles: Tiles, known: Mapping[str, Array]) -> Band | None:
    """The band of keys that queries see (see `Tiles`); None where too little is outside.

    known: elements of constants, by parameter. Queries that see no key at all keep every one, as
    their weights are defined by masked scores.
    """
    axes = (*attention.batch, *attention.rows, *attention.keys)
    if not all(isinstance(axis.extent, int) and axis.extent for axis in axes):
        return None
    sizes = [
        math.prod(extent_of(axis) for axis in part)
        for part in (attention.batch, attention.rows, attention.keys)
    ]
    seen = np.ones(sizes[1:], bool)
    for load in _added(attention.scores.stores[0].value):
        elements = _elements(load, axes, known)
        if elements is not None:
            seen &= ~(elements.reshape(sizes) <= hides_below(load.buffer.dtype)).all(axis=0)
    seen |= ~seen.any(axis=1, keepdims=True)
    rows, keys = sizes[1:]
    numbers = np.arange(rows)
    behind = int((numbers - seen.argmax(axis=1)).max())
    ahead = int((keys - 1 - seen[:, ::-1].argmax(axis=1) - numbers).max())
    places = np.flatnonzero(seen.any(axis=0))
    band = behind, ahead, int(places[0]), int(places[-1])
    taken = sum(_steps(first, band, tiles) for first in range(0, rows, tiles.rows))
    every = -(-rows // tiles.rows) * -(-keys // tiles.depth)
    return band if taken <= (1 - LEAST_GAIN) * every else None


def added_loads(attention: Attention) -> tuple[Load, ...]:
    """The masks of scores: floats that are added, and that differ from key to key."""
    return tuple(
        load
        for load in _added(attention.scores.stores[0].value)
        if load.dtype in (DType.F32, DType.F16, DType.BF16)
        and not load.dynamic
        and any(depends_on(load, axis.name) for axis in attention.keys)
    )


def looks_at_masks(attention: Attention, known: Mapping[str, Array]) -> bool:
    """Whether programs are to find the keys that a mask shows, which a run makes."""
    keys = product(axis.extent for axis in attention.keys)
    many = not isinstance(keys, int) or keys >= LEAST_KEYS
    loads = added_loads(attention)
    return many and bool(loads) and not any(load.buffer.name in known for load in loads)


def _steps(query: int, band: Band, tiles: Tiles) -> int:
    """Steps of the block of queries that begins with a number."""
    behind, ahead, first, last = band
    low = max(first, query - behind) // tiles.depth
    high = min(last, query + tiles.rows - 1 + ahead) // tiles.depth + 1
    return max(0, high - low)


def _added(value: Expr) -> Iterator[Load]:
    """The elements that are added to a score as they are."""
    match value:
        case Apply(op="add", args=args):
            for arg in args:
                yield from _added(arg)
        case Apply(op="cast", args=(Load() as load,)) | (Load() as load):
            yield load


def _elements(load: Load, axes: Sequence[Axis], known: Mapping[str, Array]) -> Array | None:
    """What a load finds in a constant for every point of the axes; None where that is not known."""
    data = known.get(load.buffer.name)
    strides = [coefficient(load.offset, axis.name) for axis in axes]
    if data is None or load.dynamic or not load.buffer.dtype.is_float:
        return None
    steps = [step for step in strides if isinstance(step, int) and step >= 0]
    if len(steps) < len(strides):
        return None
    moved = sum((symbol(axis.name) * n for axis, n in zip(axes, steps, strict=True)), start=0)
    start = load.offset - moved
    if not isinstance(start, int) or start < 0:
        return None
    flat = np.ascontiguousarray(data).reshape(-1).astype(np.float32)[start:]
    extents = [extent_of(axis) for axis in axes]
    last = sum((n - 1) * step for n, step in zip(extents, steps, strict=True))
    if last >= flat.size:
        return None
    bytes_ = [step * flat.itemsize for step in steps]
    return np.lib.stride_tricks.as_strided(flat, extents, bytes_, writeable=False)
