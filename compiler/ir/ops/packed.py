"""Integers of 2 and 4 bits, several in a byte, the first in the low bits, as ONNX stores them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..dims import Dim, ceildiv, product
from ..graph import Value
from ..types import DType, TensorType, broadcast_shapes
from .common import need_dtype
from .registry import REQUIRED, Array, OpDef, Trait, register

WORD_BITS = 32
FEWEST_PACKED = 1 << 14  # elements of a constant; fewer are floats in the first-level cache
PACKED_BITS = {DType.U4: 4, DType.I4: 4, DType.U2: 2, DType.I2: 2}
DIGITS = {"digit2": 2, "digit4": 4}


def digits(packed: Array, bits: int) -> Array:
    """The numbers of 2, 4 or 8 bits along the last axis of bytes, one in a byte each, u8."""
    if bits == 8:
        return packed
    count = 8 // bits
    found = np.empty((*packed.shape, count), np.uint8)
    for place in range(count):
        np.bitwise_and(packed >> np.uint8(place * bits), (1 << bits) - 1, out=found[..., place])
    return found.reshape(*packed.shape[:-1], packed.shape[-1] * count)


def pack_digits(numbers: Array, bits: int) -> Array:
    """Unsigned numbers of so many bits along the last axis as bytes, the last filled with zeros."""
    if bits == 8:
        return np.ascontiguousarray(numbers, np.uint8)
    count = 8 // bits
    missing = -numbers.shape[-1] % count
    filled = np.pad(numbers, [(0, 0)] * (numbers.ndim - 1) + [(0, missing)])
    split = filled.reshape(*filled.shape[:-1], -1, count).astype(np.uint8)
    packed = np.zeros(split.shape[:-1], np.uint8)
    for place in range(count):
        packed |= split[..., place] << np.uint8(place * bits)
    return packed


def _infer_unpack(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    need_dtype(inputs[0], frozenset({DType.U8}), "what is unpacked")
    dtype, shape = attrs["dtype"], attrs["shape"]
    if dtype not in PACKED_BITS:
        raise ValueError(f"elements of {dtype} are not several in a byte")
    wanted: Dim = ceildiv(product(shape) * PACKED_BITS[dtype], 8)
    if inputs[0].shape != (wanted,):
        raise ValueError(f"{inputs[0].type} does not hold {shape} of {dtype}")
    return [TensorType(dtype, tuple(shape))]


def _unpack(args: Sequence[Array], attrs: dict[str, Any]) -> list[Array]:
    dtype, shape = attrs["dtype"], attrs["shape"]
    count = int(np.prod(shape, dtype=np.int64))
    numbers = digits(np.asarray(args[0]), PACKED_BITS[dtype])[:count]
    return [numbers.view(dtype.numpy).reshape(shape)]


def _infer_digit(inputs: Sequence[Value], attrs: dict[str, Any]) -> list[TensorType]:
    for value in inputs:
        need_dtype(value, frozenset({DType.U32}), "a word, or a place in it,")
    return [TensorType(DType.F32, broadcast_shapes(*(value.shape for value in inputs)))]


def _digit(args: Sequence[Array], attrs: dict[str, Any], bits: int) -> list[Array]:
    """The signed number of so many bits at a place of a word, counted from the low end."""
    word, place = args
    raised = word << (WORD_BITS - bits - bits * place.astype(np.int64)).astype(np.uint32)
    return [np.asarray(raised.view(np.int32) >> (WORD_BITS - bits), np.float32)]


register(
    OpDef(
        "unpack",
        _infer_unpack,
        _unpack,
        Trait.QUANTISATION,
        {"dtype": REQUIRED, "shape": REQUIRED},
        (1, 1),
    )
)
for _name, _bits in DIGITS.items():
    _evaluate = partial(_digit, bits=_bits)
    register(OpDef(_name, _infer_digit, _evaluate, Trait.POINTWISE, arity=(2, 2)))
