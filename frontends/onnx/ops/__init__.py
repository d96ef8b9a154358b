"""Lowerings of ONNX operators, one file per family; importing them fills the table."""

from __future__ import annotations

from . import activations, generators, indexing, math, matmul, movement, nn, reductions

__all__ = [
    "activations",
    "generators",
    "indexing",
    "math",
    "matmul",
    "movement",
    "nn",
    "reductions",
]
