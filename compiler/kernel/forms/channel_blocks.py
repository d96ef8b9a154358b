"""Depthwise convolutions over blocks of channels, so that overlapping windows meet in the cache.

With channels last, the rows that a window covers are as wide as all channels: where these do not
fit the first-level cache, every window fetches its elements anew from the second. Of one block of
channels the rows fit. A block is several cache lines wide: single lines, one for every position,
would fall into few sets of the cache.
"""

from __future__ import annotations

from dataclasses import replace

from ..contraction import contraction_of
from ..kernel import Kernel, Stage
from ..simplify import split_axis

BLOCKS = (64, 48, 32)  # channels; the first that divides their number
ROWS_BYTES = 32 << 10  # of the rows under a window, from which on they are cut


def in_channel_blocks(kernel: Kernel) -> Kernel:
    """The kernel with a loop over blocks of channels around those over positions."""
    stages = tuple(_blocked(stage, kernel.shared) for stage in kernel.stages)
    return replace(kernel, stages=stages)


def _blocked(stage: Stage, shared: int) -> Stage:
    own = stage.axes[shared:]
    if len(own) < 3 or len(stage.reductions) != 1 or not stage.reduce_axes:
        return stage
    channel = own[-1]
    operands = contraction_of(stage).operands
    if not operands or any(operand.stride(channel.name) != 1 for operand in operands):
        return stage  # something is shared by all channels: a sum over them
    width, channels, taps = own[-2].extent, channel.extent, stage.reduce_axes[0].extent
    if not (isinstance(width, int) and isinstance(channels, int) and isinstance(taps, int)):
        return stage
    size = next((n for n in BLOCKS if channels % n == 0), 0)
    rows_bytes = taps * width * channels * operands[0].load.dtype.bytes
    if not size or channels <= BLOCKS[0] or rows_bytes < ROWS_BYTES:
        return stage
    split = split_axis(stage, channel, size)
    *lead, outer, inner = split.axes
    return replace(split, axes=(*lead[:shared], outer, *lead[shared:], inner))
