"""The core operators, one file per family; importing this package registers them."""

from __future__ import annotations

from . import (
    byte_table,
    checks,
    composite,
    contraction,
    control,
    dim_tensors,
    forest,
    indexing,
    interpolated_table,
    movement,
    packed,
    pointwise,
    pooling,
    quantised_product,
    quantization,
    reduction,
    segment,
    sorting,
    step_groups,
    text_numbers,
)

__all__ = [
    "byte_table",
    "checks",
    "composite",
    "contraction",
    "control",
    "dim_tensors",
    "forest",
    "indexing",
    "interpolated_table",
    "movement",
    "packed",
    "pointwise",
    "pooling",
    "quantised_product",
    "quantization",
    "reduction",
    "segment",
    "sorting",
    "step_groups",
    "text_numbers",
]
