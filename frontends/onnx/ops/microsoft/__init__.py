"""Operators of com.microsoft, and experimental ones."""

from __future__ import annotations

from . import (
    attention,
    attn_lstm,
    bits,
    decoding,
    experts,
    gates,
    grouped_attention,
    ngrams,
    operators,
    packed_rows,
    pictures,
    quantized,
    routers,
    sequences,
    sparse_attention,
    time_warping,
    tokens,
    twins,
)

__all__ = [
    "attention",
    "attn_lstm",
    "bits",
    "decoding",
    "experts",
    "gates",
    "grouped_attention",
    "ngrams",
    "operators",
    "packed_rows",
    "pictures",
    "quantized",
    "routers",
    "sequences",
    "sparse_attention",
    "time_warping",
    "tokens",
    "twins",
]
