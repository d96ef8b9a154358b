"""Which convolutions of words Winograd's algorithm computes exactly, and with which tiles.

They are of bytes that were made words. 16 bits have to hold what transforms make of these, and 32
bits the results before they are divided: by a power of two that is, as what is multiplied by an odd
number may wrap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.graph import Node, Value
from ...ir.groups import inner_result, is_fused
from ...ir.ops.registry import Array
from ...ir.types import DType
from .winograd_transforms import LARGEST, LARGEST_WEIGHT, Tiling, whole_factor, words_hold

BYTES = (DType.U8, DType.I8)


@dataclass(frozen=True)
class Sums:
    """Of a convolution of words that bytes were: the greatest size that one may have."""

    largest: int

    def holds(self, tilings: Sequence[Tiling]) -> bool:
        """Whether nothing is lost with such tiles."""
        return words_hold(tilings) and self.largest << whole_factor(tilings)[1] < 1 << 31


def sums_of_bytes(node: Node, conv: Node) -> Sums | None:
    """What the convolution of a fused node adds up, if bytes are what it multiplies.

    Its operands come straight from the inputs of the region, but for reshapes.
    """
    operands = dict(zip(node.regions[0].inputs, node.inputs, strict=True))
    source = conv.inputs[0]
    while source.producer is not None and source.producer.op == "reshape":
        source = source.producer.inputs[0]
    data, weights = _bytes_of(operands[source]), operands[conv.inputs[1]].data
    return None if data is None or weights is None else sums_of(weights, data)


def _bytes_of(value: Value) -> DType | None:
    """The type of the bytes that a group makes words."""
    made = inner_result(value).producer if is_fused(value.producer) else None
    cast = made is not None and made.op == "cast" and made.inputs[0].dtype in BYTES
    return made.inputs[0].dtype if made is not None and cast else None


def sums_of(weights: Array, data: DType) -> Sums | None:
    """What bytes add up to times constant weights [taps..., C, O]; None where these are none."""
    if not weights.size:
        return None
    if weights.min() < -LARGEST_WEIGHT or weights.max() > LARGEST_WEIGHT:
        return None
    return Sums(_greatest(weights, data))


def _greatest(weights: Array, data: DType) -> int:
    """The greatest size of a sum of bytes times weights [taps..., C, O]."""
    wide = weights.reshape(-1, weights.shape[-1])
    positive = np.maximum(wide, 0).sum(0, dtype=np.int64)
    negative = positive - wide.sum(0, dtype=np.int64)
    if data is DType.I8:
        return LARGEST_WEIGHT * int((positive + negative).max())
    return LARGEST * int(np.maximum(positive, negative).max())
