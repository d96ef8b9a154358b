"""Checks that a run makes: indices in range, dims that fit, elements that are not zero.

They have effects but no results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import RunError
from ..assumptions import AT_MOST, EQUAL, FITS, ONE_OR_EQUAL, OTHER, RELATIONS
from ..graph import Value
from ..types import DType, TensorType
from .common import INDICES, need_dtype
from .registry import REQUIRED, Array, OpDef, Trait, register


def _infer_check_index(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    indices, sizes = inputs[0], attrs["sizes"]
    need_dtype(indices, INDICES, "the indices")
    if len(sizes) != 1 and indices.shape[-1:] != (len(sizes),):
        raise ValueError(f"{indices.type} has no {len(sizes)} indices along its last axis")
    return []


def _check_index(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    sizes = attrs["sizes"]
    for column, size in zip(args[0].reshape(-1, len(sizes)).T, sizes, strict=True):
        wrong = column[(column < -size) | (column >= size)]
        if wrong.size:
            raise RunError(f"{attrs['what']}: index {wrong[0]} is out of range for size {size}")
    return []


def _infer_check_nonzero(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    if not (inputs[0].dtype.is_integer or inputs[0].dtype is DType.BOOL):
        raise ValueError(f"{inputs[0].type} holds neither integers nor booleans")
    return []


def _check_nonzero(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    if not np.all(args[0]):
        raise RunError(attrs["what"])
    return []


def _infer_check_dims(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    if attrs["relation"] not in RELATIONS:
        raise ValueError(f"relation '{attrs['relation']}' is none of {', '.join(RELATIONS)}")
    return []


def _check_dims(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    left, right = attrs["left"], attrs["right"]
    holds = {
        EQUAL: left == right,
        AT_MOST: left <= right,
        ONE_OR_EQUAL: left in (1, right),
        OTHER: left != right,
        FITS: left <= right,
    }
    if not holds[attrs["relation"]]:
        raise RunError(f"{attrs['what']} (here {left} and {right})")
    return []


register(
    OpDef(
        "check_index",
        _infer_check_index,
        _check_index,
        Trait.EFFECT,
        {"sizes": REQUIRED, "what": REQUIRED},
        arity=(1, 1),
    )
)
register(
    OpDef(
        "check_nonzero",
        _infer_check_nonzero,
        _check_nonzero,
        Trait.EFFECT,
        {"what": REQUIRED},
        arity=(1, 1),
    )
)
register(
    OpDef(
        "check_dims",
        _infer_check_dims,
        _check_dims,
        Trait.EFFECT,
        {"relation": REQUIRED, "left": REQUIRED, "right": REQUIRED, "what": REQUIRED},
        arity=(0, 0),
    )
)
