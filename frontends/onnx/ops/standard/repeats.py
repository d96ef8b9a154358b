"""Enlarging by whole numbers, where that repeats every element: for sizes that only a run knows.

Written as an axis of its own along which elements are repeated, no index is computed, and passes
see what is done.
"""

from __future__ import annotations

from collections.abc import Mapping

from .....compiler.ir import Dim, Value
from .....compiler.ir.dims import exact_quotient, product
from ...site import Site

# coordinates and their rounding by which an output element i is the element i // factor
_WAYS = {
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
    ("pytorch_half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "round_prefer_ceil"),
    ("tf_half_pixel_for_nn", "floor"),
    ("asymmetric", "floor"),
    ("asymmetric", "by scale"),
}


def repeats(size: Dim, out: Dim, scale: Value, way: tuple[str, str]) -> int:
    """How often a Resize repeats every element of an axis; 0 where it does otherwise, or the size
    is known: constant indices say it then.

    way: coordinate_transformation_mode and nearest_mode.
    """
    if isinstance(size, int) or way not in _WAYS:
        return 0
    found = exact_quotient(out, size)
    if not isinstance(found, int) or found < 2:
        return 0
    return found if scale.data is None or float(scale.data) == found else 0


def repeated(s: Site, x: Value, factors: Mapping[int, int]) -> Value:
    """Every element along some axes as often as is said, one after the other; 0: as it is."""
    if not any(factors.values()):
        return x
    times = [factors.get(axis, 0) for axis in range(x.type.rank)]
    dims = list(zip(x.shape, times, strict=True))
    x = s.reshape(x, tuple(d for dim, n in dims for d in ((dim, 1) if n else (dim,))))
    shape = tuple(d for dim, n in dims for d in ((dim, n) if n else (dim,)))
    x = s.emit("broadcast_to", [x], shape=shape)
    return s.reshape(x, tuple(product((dim, max(1, n))) for dim, n in dims))
