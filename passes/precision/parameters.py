"""Scales and zero points: along which axis of a tensor they change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.packed import PACKED_BITS, digits
from ...compiler.ir.ops.registry import Trait, has_trait
from ...compiler.ir.types import DType

Array = np.ndarray[Any, Any]
_ARITHMETIC = ("add", "sub", "mul")  # by which zero points leave sums
_MOVES = ("reshape", "transpose")
_BOUNDS = ("at_least", "at_most")  # which nothing but rounding to integers of few bits uses


def uniform(value: Value) -> bool:
    """Whether it is one number for a whole tensor."""
    return all(dim == 1 for dim in value.shape)


def varying_axis(parameter: Value, rank: int) -> int | None:
    """The axis, of a tensor of a rank, along which a parameter changes; -1: none, None: several."""
    axes = [
        axis for axis, dim in enumerate(parameter.shape, rank - parameter.type.rank) if dim != 1
    ]
    if parameter.type.rank > rank or len(axes) > 1:
        return None
    return axes[0] if axes else -1


def vector(parameter: Value, channels: int) -> Array:
    """A constant parameter as one number for each channel."""
    assert parameter.data is not None
    return np.broadcast_to(parameter.data.reshape(-1), (channels,))


def along(numbers: Array, axis: int, rank: int) -> Array:
    """Numbers, one for each step of an axis, shaped to broadcast to a tensor of a rank."""
    shape = [1] * rank
    shape[axis] = -1
    return numbers.reshape(shape)


def is_known(value: Value) -> bool:
    """Whether `known_numbers` gives its elements."""
    node = value.producer
    if value.data is not None or node is None:
        return value.data is not None
    if not value.type.is_static:  # a run says how the elements lie
        return False
    if node.op in _MOVES:
        return is_known(node.inputs[0])
    return node.op == "unpack" and node.inputs[0].data is not None


def known_numbers(value: Value) -> Array | None:
    """The elements of a constant, also of one that is moved or unpacked: i16 where integers of 8
    bits or less."""
    if not is_known(value):
        return None
    node = value.producer
    if value.data is not None:
        few = not value.dtype.is_float and value.data.itemsize == 1
        return value.data.astype(np.int16) if few else value.data
    assert node is not None
    if node.op in _MOVES:
        found = known_numbers(node.inputs[0])
        assert found is not None
        moved = found.transpose(node.attrs["perm"]) if node.op == "transpose" else found
        return np.ascontiguousarray(moved).reshape(value.type.static_shape)
    packed = node.inputs[0].data
    assert packed is not None
    bits = PACKED_BITS[value.dtype]
    numbers = digits(packed, bits)[: int(np.prod(value.type.static_shape))].astype(np.int16)
    if value.dtype.value.startswith("i"):
        numbers = (numbers ^ (1 << (bits - 1))) - (1 << (bits - 1))
    return numbers.reshape(value.type.static_shape)


def one_scale(node: Node | None) -> bool:
    """Whether a node quantises or dequantises by one scale and one zero point."""
    return (
        node is not None
        and has_trait(node, Trait.QUANTISATION)
        and uniform(node.inputs[1])
        and uniform(node.inputs[2])
    )


def _is_of_sums(value: Value) -> bool:
    """Whether an i32 is made of sums (of products) of integers, by arithmetic."""
    node = value.producer
    if node is None or value.dtype is not DType.I32:
        return False
    if node.op in _ARITHMETIC:
        return any(map(_is_of_sums, node.inputs))
    return node.op == "reduce_sum" or has_trait(node, Trait.CONTRACTION)


def scales_of(nodes: Sequence[Node]) -> set[Value]:
    """Constant numbers, other than 0, by which values are quantised and dequantised, what zero
    points are multiplied by in sums, and what sums of integers are multiplied by.

    Every layer of a network has its own: they are operands, so that all layers have one kernel.
    """
    found: set[Value] = set()
    for node in nodes:
        if _has_parameters(node):
            found.update(node.inputs)
            scaled = node.inputs[0].producer
            if node.op in _BOUNDS and scaled is not None and scaled.op in ("mul", "div"):
                found.update(scaled.inputs)
    return {v for v in found if v.data is not None and v.data.size == 1 and v.data.any()}


def _has_parameters(node: Node) -> bool:
    if has_trait(node, Trait.QUANTISATION) or node.op in (*_BOUNDS, "quotient"):
        return True
    if node.op == "add" and any(v.producer and v.producer.op == "rint" for v in node.inputs):
        return True
    if node.op == "mul" and any(map(_is_float_of_sum, node.inputs)):
        return True
    return node.op in _ARITHMETIC and any(map(_is_of_sums, node.inputs))


def _is_float_of_sum(value: Value) -> bool:
    node = value.producer
    return node is not None and node.op == "cast" and node.inputs[0].dtype is DType.I32
