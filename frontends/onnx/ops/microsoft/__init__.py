"""Operators of com.microsoft, and experimental ones."""

from __future__ import annotations

from . import (
    attention,
    bits,
    decoding,
    experts,
    gates,
    grouped_attention,
    operators,
    pictures,
    quantized,
    routers,
    sparse_attention,
    time_warping,
    tokens,
    twins,
)

__all__ = [
    "attention",
    "bits",
    "decoding",
    "experts",
    "gates",
    "grouped_attention",
    "operators",
    "pictures",
    "quantized",
    "routers",
    "sparse_attention",
    "time_warping",
    "tokens",
    "twins",
]
