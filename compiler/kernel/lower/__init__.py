"""The loop-level meaning of the core operators."""

from __future__ import annotations

from . import quantised as _quantised  # noqa: F401  (registers the rule)
from .attention import ATTENTION
from .reductions import REDUCE
from .scatter import SCATTER
from .scope import INLINE

ANCHORS = frozenset({*REDUCE, ATTENTION})  # what groups grow around

__all__ = ["ANCHORS", "ATTENTION", "INLINE", "REDUCE", "SCATTER"]
