"""RESIZE of the Ethos-U85: results between the elements of the input, or the nearest ones."""

from __future__ import annotations

import numpy as np

from .npu_operation import NpuOperation, ResizeSteps
from .region_memory import RegionMemory
from .rescaling import Integers

_FRACTION_BITS = 16  # of results, which OFM_SCALE takes away again


def resized(operation: NpuOperation, memory: RegionMemory) -> Integers:
    """Results times 2**16; bilinear ones also times the scales of both axes, as TOSA has them."""
    assert operation.resize is not None
    values = operation.ifm.load(memory).astype(np.int64) - operation.ifm.zero_point
    sizes = zip(operation.resize, operation.ofm.shape, operation.ifm.shape, strict=False)
    rows, columns = (_weights(operation.mode, steps, *counts) for steps, *counts in sizes)
    lower, upper, first, second = rows
    values = values[lower] * first[:, None, None] + values[upper] * second[:, None, None]
    lower, upper, first, second = columns
    values = values[:, lower] * first[:, None] + values[:, upper] * second[:, None]
    return values << _FRACTION_BITS


def _weights(
    mode: str, steps: ResizeSteps, count: int, size: int
) -> tuple[Integers, Integers, Integers, Integers]:
    """For each result along an axis: the two elements around it, and how much of each it is."""
    place = np.arange(count, dtype=np.int64) * steps.step + steps.offset
    whole, part = place // steps.scale, place % steps.scale
    scale = steps.scale
    if mode != "bilinear":
        whole += (2 * part >= scale) & (mode == "nearest")
        part, scale = np.zeros_like(part), 1
    lower, upper = (np.clip(number, 0, size - 1) for number in (whole, whole + 1))
    return lower, upper, scale - part, part
