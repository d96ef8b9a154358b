"""How a model is quantised: ranges of tensors, and what becomes of every product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

STEPS = 255  # of data, which are u8
MOST = 127  # of weights, which are s8 and symmetric
LEAST_SCALE = np.float32(2.0**-100)  # of a channel or tensor of zeros


@dataclass(frozen=True)
class Limits:
    """Between which numbers a tensor lies; 0 lies in it, whatever is given."""

    low: float
    high: float

    def u8(self) -> tuple[np.float32, int]:
        """(scale, zero point) by which u8 stand for the range. 0 is one of the steps."""
        low, high = min(self.low, 0.0), max(self.high, 0.0)
        scale = max(np.float32((high - low) / STEPS), LEAST_SCALE)
        return scale, int(np.clip(np.rint(-low / float(scale)), 0, STEPS))


@dataclass(frozen=True)
class Recipe:
    """What is quantised.

    ranges: of tensors, by name. integer: keys of the products that are computed in integers.
    dynamic: those of them whose data's range a run finds. biases: what is added to the results of
    products, one number for each channel. scales: of channels of tensors, relative to that of the
    tensor (`channel_scales.py`), whose range is that of its channels divided by them.
    """

    ranges: Mapping[str, Limits] = field(default_factory=dict)
    integer: frozenset[str] = frozenset()
    dynamic: frozenset[str] = frozenset()
    biases: Mapping[str, Array] = field(default_factory=dict)
    scales: Mapping[str, Array] = field(default_factory=dict)

    def u8(self, name: str) -> tuple[Array, Array]:
        """(scale, zero point) by which u8 stand for a tensor: one number, or one for a channel."""
        scale, zero = self.ranges[name].u8()
        channels = self.scales.get(name)
        scales = scale if channels is None else np.maximum(scale * channels, LEAST_SCALE)
        return np.asarray(scales, np.float32), np.full(np.shape(scales), zero, np.uint8)


def quantised_weights(weights: Array, axis: int) -> tuple[Array, Array]:
    """(s8, scales), symmetric, one scale for each step of an axis."""
    others = tuple(a for a in range(weights.ndim) if a != axis)
    peak = np.abs(weights).max(axis=others, keepdims=True, initial=0.0)
    scale = np.maximum((peak / np.float32(MOST)).astype(np.float32), LEAST_SCALE)
    steps = np.clip(np.rint(weights / scale), -MOST, MOST).astype(np.int8)
    return steps, scale.reshape(-1)
