"""The order of weights in streams of the Ethos-U85, and its fast format, which is not compressed.

Source: the weight encoder of ethos-u-vela 5.2 (regor's EthosU85WeightEncoder).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from .weight_streams import FILLING, SUBKERNEL, Integers, Weights, decode_exactly, scattered

_INTERLEAVED = 4  # OFM channels that lie together, for each core in turn
_HEADER_BITS = 256  # of the fast format
_LUT_ENTRIES, _LUT_BITS, _LUT_AT, _ADJUST_AT = 16, 9, 112, 104
_UNIT_BITS = 256  # that a fast stream is made of


@dataclass(frozen=True)
class U85WeightLayout:
    """What decides the order of weights.

    depth, height, width, inputs: of the OFM's channels and of the kernel; of a depthwise one inputs
    is 1. strides, dilations: y, x. block, input_block: channels of OFM and IFM at a time.
    microblock: of those of the OFM in a cycle. wide: the IFM has 16 bits; order: depth_first,
    part_kernel or depthwise; sparse: half of the weights are 0.
    """

    depth: int
    height: int
    width: int
    inputs: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    block: int
    input_block: int
    microblock: int
    wide: bool
    order: str
    sparse: bool
    cores: int
    macs: int

    @property
    def input_step(self) -> int:
        """IFM channels that all elements of a kernel are worked on for."""
        if self.order == "depthwise":
            return 1
        narrow = self.order == "part_kernel" and self.wide and not self.sparse
        return 8 if narrow else self.input_block

    @property
    def rounding(self) -> int:
        """Of how many elements a kernel is a multiple."""
        if self.order == "depthwise":
            return 10
        if self.order == "part_kernel":
            return 10 if self.wide or self.sparse else 5
        return 1

    @property
    def gap(self) -> int:
        """Elements of filling behind every ten of a depthwise kernel."""
        if self.order != "depthwise" or (not self.wide and self.macs <= 256):
            return 0
        return 2 if self.macs <= 512 else 6


@lru_cache(maxsize=256)
def u85_weights(streams: tuple[bytes, ...], layout: U85WeightLayout, fast: bool) -> Weights:
    """Weights (depth, height, width, inputs) of the streams of all cores; read-only.

    Raises ValueError for a stream that is damaged, or has another number of weights.
    """
    shape = (layout.depth, layout.height, layout.width, layout.inputs)
    weights = np.zeros(shape, np.int16)
    if fast:
        parts = [_places(layout, core) for core in range(layout.cores)]
        places = _interleaved(parts, layout)
        scattered(weights, places, fast_weights(streams[0], len(places)))
    else:
        for core, stream in enumerate(streams):
            places = _places(layout, core)
            scattered(weights, places, decode_exactly(stream, len(places)))
    weights.flags.writeable = False
    return weights


def _interleaved(parts: list[Integers], layout: U85WeightLayout) -> Integers:
    """The weights of all cores in one stream, in turn."""
    if len(parts) == 1:
        return parts[0]
    unit = layout.microblock * layout.input_step * layout.rounding // layout.cores
    return np.stack([part.reshape(-1, unit) for part in parts], 1).ravel()


def fast_weights(stream: bytes, count: int) -> Weights:
    """The weights of a fast stream: bytes, or indices of 2 or 4 bits into 16 values.

    Raises ValueError for a stream that is too short, or longer than such a number of weights.
    """
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
    if len(bits) < _HEADER_BITS:
        raise ValueError("it is shorter than its header")
    raw, small = bool(bits[0]), bool(bits[1])
    width = 8 if raw else 2 if small else 4
    used = _HEADER_BITS + -(-count * width // _UNIT_BITS) * _UNIT_BITS
    if len(bits) != used:
        raise ValueError(f"it has {len(bits) // 8} bytes, {count} weights take {used // 8}")
    codes = _numbers(bits[_HEADER_BITS : _HEADER_BITS + count * width], width)
    if raw:
        adjust = int(_numbers(bits[_ADJUST_AT:_LUT_AT], 8)[0])
        signed = (codes ^ 128) - 128
        return (signed - ((adjust ^ 128) - 128)).astype(np.int16)
    folded = _numbers(bits[_LUT_AT : _LUT_AT + _LUT_ENTRIES * _LUT_BITS], _LUT_BITS)
    values = np.where(folded & 1, -(folded >> 1), folded >> 1)
    return values[codes].astype(np.int16)


def _numbers(bits: np.ndarray[Any, np.dtype[np.uint8]], width: int) -> Integers:
    """Numbers of so many bits each, low ones first."""
    return bits.reshape(-1, width).astype(np.int64) @ (1 << np.arange(width, dtype=np.int64))


@lru_cache(maxsize=64)
def _places(layout: U85WeightLayout, core: int) -> Integers:
    """For each weight of a core's stream its index in (depth, height, width, inputs)."""
    found: list[Integers] = []
    kernels = list(_kernels(layout))
    starts = list(range(0, layout.inputs, layout.input_block))
    for number, first in enumerate(range(0, layout.depth, layout.block)):
        depth = min(layout.block, layout.depth - first)
        for first_input in reversed(starts) if number % 2 else starts:
            inputs = min(layout.input_block, layout.inputs - first_input)
            for elements in kernels:
                for begin in range(first_input, first_input + inputs, layout.input_step):
                    for unit in range(first, first + depth, layout.microblock):
                        found.append(_unit(layout, core, elements, begin, unit))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


def _kernels(layout: U85WeightLayout) -> Iterator[Integers]:
    """Offsets of the elements of each part of the kernel, in order, with filling."""
    steps = [max(SUBKERNEL // dilation, 1) for dilation in layout.dilations]
    for x in range(0, layout.width, steps[1]):
        for y in range(0, layout.height, steps[0]):
            size = (min(layout.height - y, steps[0]), min(layout.width - x, steps[1]))
            offsets = [
                ((y + row) * layout.width + x + column) * layout.inputs
                for row, column in _elements(layout, *size)
            ]
            total = -(-len(offsets) // layout.rounding) * layout.rounding
            left, ordered = total, []
            for offset in offsets:
                left -= 1
                ordered.append(offset)
                if layout.gap and left % layout.rounding == 0:
                    ordered += [FILLING] * layout.gap
            ordered += [FILLING] * ((left + layout.gap) if left else 0)
            yield np.array(ordered, np.int64)


def _elements(layout: U85WeightLayout, height: int, width: int) -> Iterator[tuple[int, int]]:
    """Rows and columns of a part of the kernel: those that strides reach together, to and fro."""
    stride_y, stride_x = (1, 1) if layout.order == "depth_first" else layout.strides
    for begin_y in range(stride_y):
        for begin_x in range(stride_x):
            columns = range(begin_x, width, stride_x)
            for number, row in enumerate(range(begin_y, height, stride_y)):
                for column in reversed(columns) if number % 2 else columns:
                    yield row, column


def _unit(
    layout: U85WeightLayout, core: int, elements: Integers, first_input: int, first: int
) -> Integers:
    """Indices of the weights of one micro-block of outputs."""
    step = 1 if layout.order == "depthwise" else 16 if layout.sparse else 8
    size = layout.height * layout.width * layout.inputs
    groups = np.arange(core * _INTERLEAVED, layout.microblock, _INTERLEAVED * layout.cores)
    channel = first + groups[:, None] + np.arange(_INTERLEAVED)
    outputs = np.where(channel < layout.depth, channel * size, FILLING)
    channel = first_input + np.arange(layout.input_step, dtype=np.int64)
    inputs = np.where(channel < layout.inputs, channel, FILLING).reshape(-1, step)
    # Elements, parts of the inputs, groups of outputs, outputs, inputs.
    total = elements[:, None, None, None, None] + inputs[None, :, None, None, :]
    total = (total + outputs[None, None, :, :, None]).ravel()
    return np.where(total < 0, -1, total)


def read_u85_scales(stream: bytes, depth: int, wide: bool) -> tuple[Integers, Integers, Integers]:
    """Biases, scales and shifts of channels, ten bytes each.

    Biases have 32 bits and scales 31, or (wide) 48 and 15; shifts have 6.
    """
    table = np.frombuffer(stream, np.uint8, 10 * depth).reshape(depth, 10).astype(np.int64)
    count = 6 if wide else 4
    bias = (table[:, :count] << (8 * np.arange(count))).sum(1)
    bias -= (bias >> 8 * count - 1) << 8 * count
    scale = (table[:, count:8] << (8 * np.arange(8 - count))).sum(1)
    return bias, scale, table[:, 8] & 63
