"""Lowerings of ONNX operators, one file per family; importing them fills the table."""

from __future__ import annotations

from . import (
    activations,
    contrib,
    control,
    generators,
    indexing,
    math,
    matmul,
    movement,
    nn,
    normalization,
    quantization,
    recurrent,
    reductions,
    resize,
)

__all__ = [
    "activations",
    "contrib",
    "control",
    "generators",
    "indexing",
    "math",
    "matmul",
    "movement",
    "nn",
    "normalization",
    "quantization",
    "recurrent",
    "reductions",
    "resize",
]
