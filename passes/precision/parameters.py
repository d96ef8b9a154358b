"""Scales and zero points: along which axis of a tensor they change."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...compiler.ir.graph import Node, Value
from ...compiler.ir.ops.registry import Trait, has_trait

Array = np.ndarray[Any, Any]


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


def one_scale(node: Node | None) -> bool:
    """Whether a node quantises or dequantises by one scale and one zero point."""
    return (
        node is not None
        and has_trait(node, Trait.QUANTISATION)
        and uniform(node.inputs[1])
        and uniform(node.inputs[2])
    )
