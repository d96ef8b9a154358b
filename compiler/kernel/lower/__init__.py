"""From fused graph regions to kernels: the loop-level meaning of the core operators."""

from __future__ import annotations

from .group import Lowered, lower_region, winograd_choice
from .reductions import REDUCE
from .scatter import SCATTER
from .scope import INLINE

__all__ = ["INLINE", "REDUCE", "SCATTER", "Lowered", "lower_region", "winograd_choice"]
