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
    ml_common,
    ml_forest,
    ml_trees,
    movement,
    nn,
    normalization,
    quantization,
    recurrent,
    reductions,
    resize,
    selection,
)

__all__ = [
    "activations",
    "contrib",
    "control",
    "generators",
    "indexing",
    "math",
    "matmul",
    "ml_common",
    "ml_forest",
    "ml_trees",
    "movement",
    "nn",
    "normalization",
    "quantization",
    "recurrent",
    "reductions",
    "resize",
    "selection",
]
