"""What convolutions and poolings share: window attributes and their arithmetic on dims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..assumptions import assume_at_most
from ..dims import Dim, ceildiv, dmin, evaluate, floordiv

LAYOUTS = ("NCHW", "NHWC")


def spatial_axes(layout: str, rank: int) -> tuple[int, ...]:
    """The spatial axes of a tensor of `rank`: behind the channels, or between batch and channels.

    Raises ValueError for an unknown layout.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout '{layout}' is neither NCHW nor NHWC")
    return tuple(range(2, rank)) if layout == "NCHW" else tuple(range(1, rank - 1))


def channel_axis(layout: str, rank: int) -> int:
    """The axis of the channels."""
    return 1 if layout == "NCHW" else rank - 1


def to_channels_first(rank: int) -> tuple[int, ...]:
    """The permutation from N...C to NC...."""
    return (0, rank - 1, *range(1, rank - 1))


def to_channels_last(rank: int) -> tuple[int, ...]:
    """The permutation from NC... to N...C."""
    return (0, *range(2, rank), 1)


def check_window(attrs: dict[str, Any], spatial: int) -> None:
    """Raise ValueError unless strides, dilations, pads fit `spatial` axes and are in range."""
    for key in ("strides", "dilations"):
        values = attrs[key]
        if len(values) != spatial:
            raise ValueError(f"{key} {values} has {len(values)} entries for {spatial} axes")
        if any(not isinstance(value, int) or value < 1 for value in values):
            raise ValueError(f"{key} {values} must be positive integers")
    pads = attrs["pads"]
    if len(pads) != 2 * spatial:
        raise ValueError(f"pads has {len(pads)} entries, not {2 * spatial}")
    if any(isinstance(pad, int) and pad < 0 for pad in pads):
        raise ValueError("pads must not be negative")


def extent(kernel: Dim, dilation: int) -> Dim:
    """How many input elements a dilated window spans."""
    return (kernel - 1) * dilation + 1


def windows(
    size: Dim, kernel: Dim, stride: int, dilation: int, pads: tuple[Dim, Dim], ceil_mode: bool
) -> Dim:
    """How many windows fit into an axis; a last window that starts in the end padding is dropped.

    Raises ValueError when the padded input is smaller than one window, or, with ceil_mode, by a
    whole stride.
    """
    span = extent(kernel, dilation)
    room = size + pads[0] + pads[1] - span
    missing = stride - 1 if ceil_mode else 0
    if isinstance(room, int) and room < -missing:
        raise ValueError(f"a window of {span} does not fit into {size} with padding {pads}")
    assume_at_most(span - missing, size + pads[0] + pads[1])
    if ceil_mode:
        return dmin(ceildiv(room, stride) + 1, ceildiv(size + pads[0], stride))
    return floordiv(room, stride) + 1


def output_dims(
    sizes: Sequence[Dim], kernel: Sequence[Dim], attrs: dict[str, Any]
) -> tuple[Dim, ...]:
    """The spatial output dims of a convolution or pooling with the given attributes."""
    count = len(sizes)
    pads = attrs["pads"]
    return tuple(
        windows(
            sizes[i],
            kernel[i],
            attrs["strides"][i],
            attrs["dilations"][i],
            (pads[i], pads[count + i]),
            attrs.get("ceil_mode", False),
        )
        for i in range(count)
    )


def sizes_of(dims: Sequence[Dim]) -> list[int]:
    """Dims that are known to be numbers. Raises InternalError when one is symbolic."""
    return [evaluate(dim, {}) for dim in dims]


def tap(offset: Sequence[int], attrs: dict[str, Any], out: Sequence[int]) -> tuple[Any, ...]:
    """An index of the padded input (spatial axes last): what one kernel element meets.

    offset: the element's position in the kernel. out: number of windows of each axis.
    """
    slices = [
        slice(o * d, o * d + (n - 1) * s + 1 if n else o * d, s)
        for o, d, s, n in zip(offset, attrs["dilations"], attrs["strides"], out, strict=True)
    ]
    return (..., *slices)
