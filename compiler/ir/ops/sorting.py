"""Operators that order or select elements; a function of the runtime computes each.

How many elements are selected is an output of its own (i64[1]): the operator's other outputs have
room for all, and `read_dims` makes the number a dim that slices them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..assumptions import assume_at_most
from ..graph import Value
from ..types import DType, TensorType
from .common import ANY, FLOATS, differ, need_dtype, need_rank, widen
from .registry import REQUIRED, Array, OpDef, Trait, register


def _infer_argsort(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, count = inputs[0], attrs["count"]
    need_dtype(x, ANY, "the operand")
    if not x.type.rank:
        raise ValueError("a scalar has no order")
    excess = count - x.shape[-1]
    if isinstance(count, int) and (count < 0 or (isinstance(excess, int) and excess > 0)):
        raise ValueError(f"{count} of {x.shape[-1]} elements")
    assume_at_most(count, x.shape[-1])
    return [TensorType(DType.I64, (*x.shape[:-1], count))]


def _argsort(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x = widen(args[0])
    if attrs["descending"]:
        flipped = np.flip(x, -1)
        order = x.shape[-1] - 1 - np.flip(np.argsort(flipped, -1, kind="stable"), -1)
    else:
        order = np.argsort(x, -1, kind="stable")
    return [np.asarray(order[..., : attrs["count"]]).astype(np.int64, order="C")]


def _infer_nonzero(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    need_rank(x, 1, "the operand")
    need_dtype(x, frozenset({DType.BOOL}), "the operand")
    return [TensorType(DType.I64, x.shape), TensorType(DType.I64, (1,))]


def _nonzero(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    found = np.flatnonzero(args[0])
    places = np.zeros(args[0].shape, np.int64)
    places[: len(found)] = found
    return [places, np.array([len(found)], np.int64)]


def _infer_unique(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_rank(inputs[0], 2, "the operand")
    need_dtype(inputs[0], ANY, "the operand")
    line = TensorType(DType.I64, inputs[0].shape[:1])
    return [line, line, line, TensorType(DType.I64, (1,))]


def _unique(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    rows = args[0].shape[0]
    _, first, inverse, counts = np.unique(
        widen(args[0]), return_index=True, return_inverse=True, return_counts=True, axis=0
    )
    inverse = inverse.reshape(-1)
    if not attrs["sorted"]:
        order = np.argsort(first, kind="stable")
        rank = np.argsort(order, kind="stable")
        first, counts, inverse = first[order], counts[order], rank[inverse]

    def padded(values: Array) -> Array:
        return np.concatenate([values, np.zeros(rows - len(values), np.int64)]).astype(np.int64)

    return [padded(first), padded(inverse), padded(counts), np.array([len(first)], np.int64)]


def _infer_nms(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    boxes, scores, limit, *thresholds = inputs
    need_rank(boxes, 3, "boxes")
    need_rank(scores, 3, "scores")
    need_dtype(limit, frozenset({DType.I64}), "the limit")
    for value in (boxes, scores, *thresholds):
        need_dtype(value, frozenset({DType.F32}), "an operand")
    batches, classes, count = scores.shape
    room = batches * classes * count
    return [TensorType(DType.I64, (room, 3)), TensorType(DType.I64, (1,))]


def _corners(boxes: Array, center: bool) -> tuple[Array, ...]:
    """(low y, low x, high y, high x) of boxes in either form."""
    if center:
        x, y, w, h = (boxes[:, i] for i in range(4))
        return y - h / 2, x - w / 2, y + h / 2, x + w / 2
    a, b = boxes[:, :2], boxes[:, 2:]
    low, high = np.minimum(a, b), np.maximum(a, b)
    return low[:, 0], low[:, 1], high[:, 0], high[:, 1]


def _overlap(corners: tuple[Array, ...], i: int, kept: list[int]) -> Array:
    """Intersection over union of box i with each of `kept`."""
    y0, x0, y1, x1 = corners
    height = np.minimum(y1[i], y1[kept]) - np.maximum(y0[i], y0[kept])
    width = np.minimum(x1[i], x1[kept]) - np.maximum(x0[i], x0[kept])
    common = np.maximum(height, 0) * np.maximum(width, 0)
    areas = (y1 - y0) * (x1 - x0)
    union = areas[i] + areas[kept] - common
    return np.asarray(np.where(union > 0, common / np.where(union > 0, union, 1), 0))


def _nms(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    boxes, scores, limit, iou, least = args
    found: list[tuple[int, int, int]] = []
    for batch in range(scores.shape[0]):
        corners = _corners(boxes[batch], attrs["center"])
        for label in range(scores.shape[1]):
            line, kept = scores[batch, label], list[int]()
            for i in np.argsort(-line, kind="stable"):
                if len(kept) >= int(limit) or not line[i] > least:
                    break
                if not (_overlap(corners, int(i), kept) > iou).any():
                    kept.append(int(i))
            found += [(batch, label, i) for i in kept]
    rows = np.zeros((scores.size, 3), np.int64)
    rows[: len(found)] = np.array(found, np.int64).reshape(-1, 3)
    return [rows, np.array([len(found)], np.int64)]


def _infer_det(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    need_dtype(x, FLOATS, "the operand")
    if x.type.rank < 2:
        raise ValueError(f"{x.type} is no matrix")
    return [TensorType(x.dtype, x.shape[:-2])]


def _det(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    wide = np.linalg.det(args[0].astype(np.float64))
    return [np.asarray(wide).astype(args[0].dtype)]


def _infer_inverse(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    need_dtype(x, FLOATS, "the operand")
    if x.type.rank < 2 or differ(x.shape[-2], x.shape[-1]):
        raise ValueError(f"{x.type} is no square matrix")
    return [x.type]


def _inverse(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    """A singular matrix has an inverse of NaN."""
    wide = args[0].astype(np.float64)
    found = np.full_like(wide, np.nan)
    for index in np.ndindex(wide.shape[:-2]):
        with suppress(np.linalg.LinAlgError):
            found[index] = np.linalg.inv(wide[index])
    return [found.astype(args[0].dtype)]


register(
    OpDef(
        "argsort",
        _infer_argsort,
        _argsort,
        Trait.DISCRETE,
        attrs={"count": REQUIRED, "descending": False},
        arity=(1, 1),
    )
)
register(OpDef("nonzero", _infer_nonzero, _nonzero, Trait.DISCRETE, arity=(1, 1)))
register(
    OpDef("unique", _infer_unique, _unique, Trait.DISCRETE, attrs={"sorted": True}, arity=(1, 1))
)
register(OpDef("nms", _infer_nms, _nms, Trait.DISCRETE, attrs={"center": False}, arity=(5, 5)))
register(OpDef("det", _infer_det, _det, arity=(1, 1)))
register(OpDef("inverse", _infer_inverse, _inverse, arity=(1, 1)))
