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


def best_block(kernel: Kernel) -> int:
    """Channels of a block that the kernel had better go over as a whole; 0: of all of them."""
    found = [_best_block(stage, kernel.shared) for stage in kernel.stages]
    return max(found, default=0)


def in_channel_blocks(kernel: Kernel, size: int) -> Kernel:
    """The kernel with a loop over blocks of so many channels around those over positions.

    Stages that have no such channels stay as they are.
    """
    if not size:
        return kernel
    stages = tuple(_blocked(stage, kernel.shared, size) for stage in kernel.stages)
    return replace(kernel, stages=stages)


def _channels(stage: Stage, shared: int) -> int:
    """How many channels a stage has that its windows keep apart; 0 for another kind of stage."""
    own = stage.axes[shared:]
    if len(own) < 3 or len(stage.reductions) != 1 or not stage.reduce_axes:
        return 0
    operands = contraction_of(stage).operands
    if not operands or any(operand.stride(own[-1].name) != 1 for operand in operands):
        return 0  # something is shared by all channels: a sum over them
    known = own[-2].extent, own[-1].extent, stage.reduce_axes[0].extent
    return int(own[-1].extent) if all(isinstance(n, int) for n in known) else 0  # type: ignore[arg-type]


def _best_block(stage: Stage, shared: int) -> int:
    channels = _channels(stage, shared)
    size = next((n for n in BLOCKS if channels % n == 0), 0)
    if not size or channels <= BLOCKS[0]:
        return 0
    taps, width = stage.reduce_axes[0].extent, stage.axes[-2].extent
    bytes_ = contraction_of(stage).operands[0].load.dtype.bytes
    assert isinstance(taps, int)
    assert isinstance(width, int)
    return size if taps * width * channels * bytes_ >= ROWS_BYTES else 0


def _blocked(stage: Stage, shared: int, size: int) -> Stage:
    channels = _channels(stage, shared)
    if size < 1 or channels % size or channels <= size:
        return stage
    split = split_axis(stage, stage.axes[-1], size)
    *lead, outer, inner = split.axes
    return replace(split, axes=(*lead[:shared], outer, *lead[shared:], inner))
