"""The loop-level meaning of the core operators."""

from __future__ import annotations

from . import quantised as _quantised  # noqa: F401  (registers the rule)
from .reductions import REDUCE
from .scatter import SCATTER
from .scope import INLINE

__all__ = ["INLINE", "REDUCE", "SCATTER"]
