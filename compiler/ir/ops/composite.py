"""Operators of several kernel stages: softmax, layer norm, attention. All compute in f64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph import Value
from ..types import TensorType, broadcast_shapes
from .common import FLOATS, accurate, differ, like, need_axis, need_dtype, same_dtype, unify
from .registry import REQUIRED, Array, OpDef, Trait, register


def _infer_softmax(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], FLOATS, "the operand")
    need_axis(attrs["axis"], inputs[0].type.rank)
    return like(inputs[0])


def softmax(x: Array, axis: int) -> Array:
    """exp(x) over its sum along `axis`, computed around the largest element."""
    if not x.shape[axis]:
        return x
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def _softmax(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    with np.errstate(all="ignore"):
        return [softmax(accurate(args[0]), attrs["axis"]).astype(args[0].dtype, copy=False)]


def _infer_layer_norm(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x = inputs[0]
    same_dtype(inputs)
    need_dtype(x, FLOATS, "the operand")
    axis = need_axis(attrs["axis"], x.type.rank)
    normal = x.shape[axis:]
    for value in inputs[1:]:
        shape = broadcast_shapes(value.shape, normal)
        if len(shape) != len(normal) or any(map(differ, shape, normal)):
            raise ValueError(f"{value.type} does not broadcast to the normalised shape {normal}")
    return like(x)


def _layer_norm(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    x, axes = accurate(args[0]), tuple(range(attrs["axis"], args[0].ndim))
    with np.errstate(all="ignore"):
        centred = x - np.mean(x, axis=axes, keepdims=True)
        variance = np.mean(centred * centred, axis=axes, keepdims=True)
        out = centred / np.sqrt(variance + attrs["epsilon"]) * accurate(args[1])
    if len(args) == 3:
        out = out + accurate(args[2])
    return [out.astype(args[0].dtype, copy=False)]


def _infer_attention(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    q, k, v = inputs[:3]
    dtype = same_dtype(inputs)
    need_dtype(q, FLOATS, "the operand")
    if min(value.type.rank for value in (q, k, v)) < 2:
        raise ValueError("q, k and v need rank 2 or more")
    unify(q.shape[-1], k.shape[-1], "the depths of q and k differ")
    unify(k.shape[-2], v.shape[-2], "the lengths of k and v differ")
    batch = broadcast_shapes(q.shape[:-2], k.shape[:-2], v.shape[:-2])
    scores = (*batch, q.shape[-2], k.shape[-2])
    if len(inputs) == 4:
        shape = broadcast_shapes(inputs[3].shape, scores)
        if len(shape) != len(scores) or any(map(differ, shape, scores)):
            raise ValueError(f"the mask {inputs[3].type} does not broadcast to {scores}")
    return [TensorType(dtype, (*batch, q.shape[-2], v.shape[-1]))]


def _attention(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    q, k, v = map(accurate, args[:3])
    with np.errstate(all="ignore"):
        scores = np.matmul(q, k.swapaxes(-1, -2)) * attrs["scale"]
        if len(args) == 4:
            scores = scores + accurate(args[3])
        out = np.matmul(softmax(scores, scores.ndim - 1), v)
    return [out.astype(args[0].dtype, copy=False)]


_KIND = Trait.COMPOSITE
_ROWS = _KIND | Trait.NORMALISATION
register(OpDef("softmax", _infer_softmax, _softmax, _ROWS, {"axis": REQUIRED}, arity=(1, 1)))
register(
    OpDef(
        "layer_norm",
        _infer_layer_norm,
        _layer_norm,
        _ROWS,
        {"axis": REQUIRED, "epsilon": 1e-5},
        arity=(2, 3),
    )
)
register(OpDef("attention", _infer_attention, _attention, _KIND, {"scale": REQUIRED}, arity=(3, 4)))
