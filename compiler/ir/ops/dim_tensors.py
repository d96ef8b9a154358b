"""Operators between dims and tensors: `iota`, `dims`, `read_dims`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dims import Sym
from ..graph import Value
from ..types import DType, TensorType
from .common import NUMBERS, need_axis, need_rank
from .registry import REQUIRED, Array, OpDef, Trait, register


def _infer_iota(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_axis(attrs["axis"], len(attrs["shape"]))
    if attrs["dtype"] not in NUMBERS:
        raise ValueError(f"dtype {attrs['dtype']!r} is no number type")
    if any(isinstance(dim, int) and dim < 0 for dim in attrs["shape"]):
        raise ValueError(f"shape {attrs['shape']} has a negative dimension")
    return [TensorType(attrs["dtype"], attrs["shape"])]


def _iota(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    shape, axis = attrs["shape"], attrs["axis"]
    line = np.arange(shape[axis]).astype(attrs["dtype"].numpy)
    column = line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return [np.asarray(np.broadcast_to(column, shape), order="C")]


def _infer_dims(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    if not all(isinstance(dim, (int, Sym)) for dim in attrs["values"]):
        raise ValueError(f"values {attrs['values']} are not dims")
    return [TensorType(DType.I64, (len(attrs["values"]),))]


def _dims(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    return [np.array(attrs["values"], dtype=np.int64).reshape(-1)]


def _infer_read_dims(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    x, symbols = inputs[0], attrs["symbols"]
    need_rank(x, 1, "the operand")
    if x.dtype is not DType.I64:
        raise ValueError(f"the operand is {x.dtype.value}, not i64")
    if x.shape[0] != len(symbols):
        raise ValueError(f"{x.shape[0]} elements for {len(symbols)} symbols")
    if len(set(symbols)) != len(symbols) or not all(isinstance(name, str) for name in symbols):
        raise ValueError(f"symbols {symbols} must be distinct names")
    return []


register(
    OpDef(
        "iota",
        _infer_iota,
        _iota,
        attrs={"shape": REQUIRED, "axis": 0, "dtype": DType.I64},
        arity=(0, 0),
    )
)
register(OpDef("dims", _infer_dims, _dims, attrs={"values": REQUIRED}, arity=(0, 0)))
register(
    OpDef(
        "read_dims",
        _infer_read_dims,
        None,
        Trait.EFFECT,
        {"symbols": REQUIRED},
        arity=(1, 1),
    )
)
