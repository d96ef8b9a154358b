"""Operators of ai.onnx.ml."""

from __future__ import annotations

from . import (
    features,
    labels,
    linear,
    maps,
    trees,
)

__all__ = [
    "features",
    "labels",
    "linear",
    "maps",
    "trees",
]
