"""From fused graph regions to kernels: the loop-level meaning of the core operators."""

from __future__ import annotations

from .bands import bands_of
from .blocks import chain_of
from .group import Lowered, lower_region, winograd_choice
from .reductions import REDUCE
from .scatter import SCATTER
from .scope import INLINE
from .winograd import has_near_weights

__all__ = [
    "INLINE",
    "REDUCE",
    "SCATTER",
    "Lowered",
    "bands_of",
    "chain_of",
    "has_near_weights",
    "lower_region",
    "winograd_choice",
]
