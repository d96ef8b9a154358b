"""Convolutions and pooling: what the multipliers and the pooling unit compute from windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .npu_operation import KernelWindow, NpuOperation, Upscaling
from .region_memory import RegionMemory
from .rescaling import Integers, ShiftRounding, rescale
from .violations import Rule, SimulationError

Array = np.ndarray[Any, np.dtype[Any]]
_LOWEST = -(1 << 40)  # below every input: padding of maxima
_CHUNK_ELEMENTS = 1 << 22  # of a matrix of windows
_EXACT = {np.float32: 1 << 24, np.float64: 1 << 53}  # below these, sums of floats are exact
_ACCUMULATOR_BITS = {"acc32": 32, "acc40": 40, "acc48": 48}
_AVERAGE_BITS = 31  # of the reciprocal that the NPU multiplies by for padded averages


def input_values(operation: NpuOperation, memory: RegionMemory) -> Array:
    """The IFM without its zero point, upscaled and as large as the windows reach."""
    ifm = operation.ifm
    stored = ifm.load(memory).astype(np.int64 if ifm.element >= 4 else np.int32)
    values: Array = np.subtract(stored, ifm.zero_point, dtype=stored.dtype)
    if operation.upscaling is Upscaling.NONE:
        return values
    ofm, window = operation.ofm, operation.window
    height = (ofm.height - 1) * window.stride_y + window.dilated_height
    width = (ofm.width - 1) * window.stride_x + window.dilated_width
    height, width = height - window.top - window.bottom, width - window.left - window.right
    if operation.upscaling is Upscaling.NEAREST:
        return values.repeat(2, 0).repeat(2, 1)[:height, :width]
    spread: Array = np.zeros((2 * ifm.height, 2 * ifm.width, ifm.depth), values.dtype)
    spread[::2, ::2] = values
    return spread[:height, :width]


def padded(values: Array, window: KernelWindow, fill: int) -> Array:
    """Values with what lies around them."""
    if not window.padded:
        return values
    pads = ((window.top, window.bottom), (window.left, window.right), (0, 0))
    return np.pad(values, pads, constant_values=fill)


def taps(values: Array, operation: NpuOperation) -> Iterator[tuple[int, int, Array]]:
    """(row, column, the elements of all windows there) for each element of the kernel."""
    window, ofm = operation.window, operation.ofm
    for row in range(window.height):
        y = row * window.dilation_y
        rows = slice(y, y + (ofm.height - 1) * window.stride_y + 1, window.stride_y)
        for column in range(window.width):
            x = column * window.dilation_x
            columns = slice(x, x + (ofm.width - 1) * window.stride_x + 1, window.stride_x)
            yield row, column, values[rows, columns]


def convolution(operation: NpuOperation, values: Array, weights: Array) -> Integers:
    """Sums of a convolution: values (height, width, inputs), weights (outputs, kernel, inputs)."""
    values = padded(values, operation.window, 0)
    bound = _magnitude(values) * int(np.abs(weights.astype(np.int64)).sum((1, 2, 3)).max(initial=0))
    dtype = next((kind for kind, most in _EXACT.items() if bound < most), None)
    if dtype is None:
        raise SimulationError(
            Rule.ACCUMULATOR_OVERFLOW, "sums of more than 53 bits", operation.position
        )
    matrix = np.ascontiguousarray(weights.reshape(len(weights), -1).T.astype(dtype))
    windows = _windows(values.astype(dtype), operation)
    height, width = windows.shape[:2]
    sums = np.empty((height, width, len(weights)), np.int64)
    rows = max(1, _CHUNK_ELEMENTS // (width * matrix.shape[0]))
    for y in range(0, height, rows):
        part = windows[y : y + rows].reshape(-1, matrix.shape[0])
        sums[y : y + rows] = (part @ matrix).reshape(-1, width, len(weights))
    return sums


def _windows(values: Array, operation: NpuOperation) -> Array:
    """A view: rows and columns of the OFM, of the kernel, and channels."""
    window, ofm = operation.window, operation.ofm
    y, x, c = values.strides
    return np.lib.stride_tricks.as_strided(
        values,
        (ofm.height, ofm.width, window.height, window.width, values.shape[2]),
        (
            y * window.stride_y,
            x * window.stride_x,
            y * window.dilation_y,
            x * window.dilation_x,
            c,
        ),
        writeable=False,
    )


def depthwise(operation: NpuOperation, values: Array, weights: Array) -> Integers:
    """Sums of each channel by itself: weights (channels, kernel, 1)."""
    values = padded(values, operation.window, 0)
    sums = np.zeros((operation.ofm.height, operation.ofm.width, values.shape[2]), np.int64)
    for row, column, part in taps(values, operation):
        sums += part * weights[:, row, column, 0].astype(values.dtype)
    return sums


def accumulated(operation: NpuOperation, sums: Integers) -> Integers:
    """The sums. Raises SimulationError where the accumulators do not hold them."""
    bits = _ACCUMULATOR_BITS[operation.accumulation.format]
    if _magnitude(sums) >= 1 << bits - 1:
        raise SimulationError(
            Rule.ACCUMULATOR_OVERFLOW,
            f"{operation.label}: a sum of {_magnitude(sums)} in {bits} bits",
            operation.position,
        )
    return sums


def pooled(operation: NpuOperation, values: Array, divides: bool) -> tuple[Integers, bool]:
    """What pooling makes of windows, and whether that is scaled already.

    Averages of windows that reach into the padding are divided by the number of elements that do
    not, with the reciprocal that the hardware has; so are others where it `divides`, else they are
    sums, which OFM_SCALE divides.
    """
    if operation.mode == "max":
        return _maxima(operation, padded(values, operation.window, _fill(values))), False
    if operation.mode == "min":
        return -_maxima(operation, padded(-values, operation.window, _fill(values))), False
    if operation.mode == "reduce_sum":
        if operation.window != KernelWindow():
            raise SimulationError(
                Rule.NOT_SIMULATED, f"reduce_sum of {operation.window}", operation.position
            )
        return values.sum(2, keepdims=True, dtype=np.int64), False
    if operation.mode.startswith("argmax"):
        return _places_of_maxima(operation, values), False
    sums = _sums(operation, padded(values, operation.window, 0))
    if operation.mode == "sum" or not (divides or operation.window.padded):
        return sums, False
    ones = np.ones((*values.shape[:2], 1), np.int64)
    return average(sums, _sums(operation, padded(ones, operation.window, 0))), True


def average(sums: Integers, counts: Integers) -> Integers:
    """Sums divided by counts, as the hardware does: times a reciprocal, to nearest, halves up.

    Of no elements the average is 0.
    """
    counts = np.maximum(counts, 1)
    bits = np.frexp((counts - 1).astype(np.float64))[1].astype(np.int64)
    factors = ((1 << _AVERAGE_BITS + bits) + (np.int64(1) << bits)) // counts
    return rescale(sums, factors, _AVERAGE_BITS + bits, ShiftRounding.NATURAL)


def _fill(values: Array) -> int:
    return max(_LOWEST, int(np.iinfo(values.dtype).min))


def _maxima(operation: NpuOperation, values: Array) -> Integers:
    window = operation.window
    if window.height * window.width > operation.ofm.height * operation.ofm.width:
        return np.asarray(_windows(values, operation).max((2, 3)), np.int64)
    parts = (part for _, _, part in taps(values, operation))
    highest = next(parts).copy()
    for part in parts:
        np.maximum(highest, part, out=highest)
    return highest.astype(np.int64)


def _places_of_maxima(operation: NpuOperation, values: Array) -> Integers:
    """Where in a window of one row or column its first maximum is, times 2**16."""
    window = operation.window
    if window.padded or (window.height if operation.mode == "argmax_x" else window.width) != 1:
        raise SimulationError(
            Rule.NOT_SIMULATED, f"{operation.mode} of {window}", operation.position
        )
    shape = (operation.ofm.height, operation.ofm.width, -1, values.shape[2])
    return np.asarray(_windows(values, operation).reshape(shape).argmax(2), np.int64) << 16


def _sums(operation: NpuOperation, values: Array) -> Integers:
    window = operation.window
    if window.height * window.width > operation.ofm.height * operation.ofm.width:
        return np.asarray(_windows(values, operation).sum((2, 3), dtype=np.int64))
    sums = np.zeros((operation.ofm.height, operation.ofm.width, values.shape[2]), np.int64)
    for _, _, part in taps(values, operation):
        sums += part
    return sums


def _magnitude(values: Array) -> int:
    return max(abs(int(values.min(initial=0))), abs(int(values.max(initial=0))))
