"""Compressed weights and scales of convolutions: decoded, and put into the order of channels.

Weights come in the order in which the multipliers take them: blocks of the OFM's depth, of the
IFM's depth, parts of the kernel, micro-blocks. Source: the weight encoder of ethos-u-vela 5.2.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ....runtime.library import open_library
from ...common.host_library import host_library
from .violations import Rule, SimulationError

Integers = np.ndarray[Any, np.dtype[np.int64]]
Weights = np.ndarray[Any, np.dtype[np.int16]]
_SOURCE = Path(__file__).with_name("weight_stream.c")
_FAULTS = {
    -1: "it ends inside a slice",
    -2: "it has a slice that is not known",
    -3: "it has more weights than the operation",
}
SUBKERNEL = 8  # elements that a part of a kernel spans, dilated
_TAIL = 32768  # weights beyond those of the operation that are decoded to say how many there are


@dataclass(frozen=True)
class WeightLayout:
    """What decides the order of weights.

    depth, height, width, inputs: of the OFM's channels and of the kernel; of a depthwise one inputs
    is 1. dilations: y, x. block: OFM channels at a time. microblock: OFM and IFM channels.
    wide: the IFM has 16 bits. order: depth_first, part_kernel or depthwise.
    """

    depth: int
    height: int
    width: int
    inputs: int
    dilations: tuple[int, int]
    block: int
    microblock: tuple[int, int]
    wide: bool
    order: str


@lru_cache(maxsize=256)
def decoded_weights(stream: bytes, layout: WeightLayout) -> Weights:
    """Weights (depth, height, width, inputs) of a stream; read-only.

    Raises ValueError for a stream that is damaged, or has another number of weights.
    """
    places = _places(layout)
    weights = np.zeros((layout.depth, layout.height, layout.width, layout.inputs), np.int16)
    scattered(weights, places, decode_exactly(stream, len(places)))
    weights.flags.writeable = False
    return weights


def decode_exactly(stream: bytes, count: int) -> Weights:
    """So many weights of a stream. Raises ValueError if it is damaged or has another number."""
    values = decode(stream, count + _TAIL)
    if len(values) != count:
        raise ValueError(f"it has {len(values)} weights, the operation takes {count}")
    return values


def scattered(weights: Weights, places: Integers, values: Weights) -> None:
    """Put values to their places. Raises ValueError for some of no place that are not 0."""
    real = places >= 0
    if values[~real].any():
        raise ValueError("weights between those of the operation are not 0")
    weights.reshape(-1)[places[real]] = values[real]


def decode(stream: bytes, most: int) -> Weights:
    """The weights of a compressed stream, at most so many. Raises ValueError if it is damaged."""
    out = np.empty(most, np.int16)
    made = int(_library().tensmith_decode_weights(stream, len(stream), out.ctypes.data, most))
    if made < 0:
        raise ValueError(_FAULTS[made])
    return out[:made]


@cache
def _library() -> ctypes.CDLL:
    library = open_library(host_library("libtensmith_weights.so", [_SOURCE]))
    function = library.tensmith_decode_weights
    function.argtypes = (ctypes.c_char_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)
    function.restype = ctypes.c_int64
    return library


@lru_cache(maxsize=64)
def _places(layout: WeightLayout) -> Integers:
    """For each weight of a stream its index in (depth, height, width, inputs); -1: filling."""
    inner = layout.microblock[1]
    part, depthwise = layout.order == "part_kernel", layout.order == "depthwise"
    block_inputs = 16 if part or layout.wide else 32
    rounding = 4 if depthwise else (2 if layout.wide else 4) if part else 1
    steps = [max(SUBKERNEL // dilation, 1) for dilation in layout.dilations]
    found = []
    for first in range(0, layout.depth, layout.block):
        depth = min(layout.block, layout.depth - first)
        for first_input in range(0, 1 if depthwise else layout.inputs, block_inputs):
            inputs = min(block_inputs, layout.inputs - first_input) if part else block_inputs
            inputs = inner if depthwise else inputs
            for y in range(0, layout.height, steps[0]):
                for x in range(0, layout.width, steps[1]):
                    size = (min(layout.height - y, steps[0]), min(layout.width - x, steps[1]))
                    elements = _elements(layout, y, x, size, rounding)
                    channels = _inputs(layout, first_input, inputs)
                    outputs = _outputs(layout, first, depth)
                    found.append(_ordered(outputs, elements, channels, part))
    return np.concatenate(found) if found else np.zeros(0, np.int64)


FILLING = -(1 << 48)  # so low that no index stays in range with it


def _elements(
    layout: WeightLayout, y: int, x: int, size: tuple[int, int], rounding: int
) -> Integers:
    """Offsets of the elements of a part of the kernel, which is filled up to a multiple."""
    height, width = size
    element = np.arange(-(-height * width // rounding) * rounding, dtype=np.int64)
    rows = element // width
    offset = ((y + rows) * layout.width + x + element % width) * layout.inputs
    return np.where(rows < height, offset, FILLING)


def _inputs(layout: WeightLayout, first: int, count: int) -> Integers:
    """Offsets of IFM channels: (micro-blocks, channels of one)."""
    inner = layout.microblock[1]
    if layout.order == "depthwise":
        return np.zeros((1, 1), np.int64)
    channel = first + np.arange(-(-count // inner) * inner, dtype=np.int64)
    return np.where(channel < layout.inputs, channel, FILLING).reshape(-1, inner)


def _outputs(layout: WeightLayout, first: int, count: int) -> Integers:
    """Offsets of OFM channels: (micro-blocks, channels of one)."""
    outer = layout.microblock[0]
    channel = first + np.arange(-(-count // outer) * outer, dtype=np.int64)
    size = layout.height * layout.width * layout.inputs
    return np.where(channel < layout.depth, channel * size, FILLING).reshape(-1, outer)


def _ordered(outputs: Integers, elements: Integers, inputs: Integers, part: bool) -> Integers:
    """Indices of the weights of one block, in the order of the stream."""
    if part:  # micro-blocks of inputs, of outputs, elements, outputs, inputs
        total = outputs[None, :, None, :, None] + elements[None, None, :, None, None]
        total = total + inputs[:, None, None, None, :]
    else:  # micro-blocks of outputs, elements, micro-blocks of inputs, outputs, inputs
        total = outputs[:, None, None, :, None] + elements[None, :, None, None, None]
        total = total + inputs[None, None, :, None, :]
    total = total.ravel()
    return np.where(total < 0, -1, total)


def read_scales(stream: bytes, depth: int) -> tuple[Integers, Integers, Integers]:
    """Biases (40 bits), scales (32 bits) and shifts (6 bits) of channels: ten bytes each."""
    table = np.frombuffer(stream, np.uint8, 10 * depth).reshape(depth, 10).astype(np.int64)
    bias = (table[:, :5] << (8 * np.arange(5))).sum(1)
    scale = (table[:, 5:9] << (8 * np.arange(4))).sum(1)
    return bias - ((bias >> 39) << 40), scale, table[:, 9] & 63


def damaged(what: str, fault: ValueError, position: int) -> SimulationError:
    """The error for a stream that cannot be decoded."""
    return SimulationError(Rule.WEIGHT_STREAM, f"{what}: {fault}", position)
