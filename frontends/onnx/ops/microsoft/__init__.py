"""Operators of com.microsoft, and experimental ones."""

from __future__ import annotations

from . import (
    attention,
    bits,
    experts,
    gates,
    grouped_attention,
    operators,
    pictures,
    quantized,
    tokens,
    twins,
)

__all__ = [
    "attention",
    "bits",
    "experts",
    "gates",
    "grouped_attention",
    "operators",
    "pictures",
    "quantized",
    "tokens",
    "twins",
]
