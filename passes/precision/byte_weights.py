"""Constant weights of products of bytes: whether they are bytes, and what is taken off them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .kept_bytes import BIT

Array = np.ndarray[Any, Any]
STEPS = 4  # of a group
FEWEST = 3  # steps that are worth being filled up to a group
EXACT_F32 = 1 << 24  # integers up to here are exact
LARGEST = 255  # of the data
Ends = tuple[Array, Array]


def ends_of(weights: Array, op: str) -> Ends:
    """The least and the greatest of the weights of each column, of which there are some."""
    axes = (0,) if op == "matmul" else tuple(range(1, weights.ndim))
    low, high = weights.min(axes), weights.max(axes)
    return low.astype(np.int64), high.astype(np.int64)


def why_no_bytes(
    op: str, weights: Array, attrs: Mapping[str, Any], ends: Ends | None = None
) -> str:
    """Why weights (integers) make no product with bytes that is fast; "" where they do.

    ends: the least and greatest of each column, if these are known.
    """
    if op == "matmul" and weights.ndim != 2:
        return "its weights are several matrices"
    if not weights.size:
        return "it has no weights"
    low, high = ends or ends_of(weights, op)
    if (high - low).max() > LARGEST:
        return "its weights span more than 8 bits"
    depth = weights.shape[-2 if op == "matmul" else 1]
    if depth % STEPS and (depth < FEWEST or attrs.get("groups", 1) > 1):
        signed, _ = signed_bytes(op, weights, (low, high))
        if greatest_sum(signed, op) >= EXACT_F32:
            return "its channels make no groups, and floats would not add them up exactly"
    return ""


def greatest_sum(weights: Array, op: str) -> int:
    """The greatest sum of products with bytes."""
    size = np.abs(weights.astype(np.int64))
    sums = size.sum(0) if op == "matmul" else size.reshape(len(size), -1).sum(1)
    return int(sums.max()) * LARGEST


def signed_bytes(op: str, weights: Array, ends: Ends) -> tuple[Array, Array]:
    """(weights as signed bytes, what was taken off those of each column, shaped like a result);
    ends: the least and greatest of each column, which are 8 bits apart at most."""
    low, high = (int(ends[0].min()), int(ends[1].max()))
    if low >= -BIT and high < BIT:
        return weights.astype(np.int8), np.zeros((), np.int32)
    if high - low <= LARGEST:
        shift = np.asarray(low + BIT, np.int32)
        return (weights - shift).astype(np.int8), shift
    shift = (ends[0] + BIT).astype(np.int32)
    if op == "matmul":
        return (weights - shift).astype(np.int8), shift
    rest = (1,) * (weights.ndim - 1)
    taken = (weights - shift.reshape(-1, *rest)).astype(np.int8)
    return taken, shift.reshape(-1, *rest[1:])
