"""Parts of what convolutions and poolings make: windows, with what they reach beyond the part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Node
from ...compiler.ir.ops.windows import channel_axis, extent, spatial_axes
from .narrowing import Narrowed, Rule, same
from .parts import Part, Picks, Places, picks, whole


@dataclass(frozen=True)
class _Axis:
    """A spatial axis of a windowed operator: sizes of the operand and of a window, its steps."""

    size: Dim
    kernel: Dim
    stride: int
    dilation: int
    low: Dim
    high: Dim

    @property
    def is_known(self) -> bool:
        return all(isinstance(dim, int) for dim in (self.size, self.kernel, self.low, self.high))


def _axes(node: Node, kernel: Sequence[Dim]) -> list[_Axis]:
    x, attrs = node.inputs[0], node.attrs
    spatial = spatial_axes(attrs["layout"], x.type.rank)
    count = len(spatial)
    return [
        _Axis(
            x.shape[axis], kernel[i], attrs["strides"][i], attrs["dilations"][i],
            attrs["pads"][i], attrs["pads"][count + i],
        )
        for i, axis in enumerate(spatial)
    ]  # fmt: skip


def _filter_axes(node: Node) -> tuple[int, tuple[int, ...]]:
    """Which axis of a filter makes the results' channels, and the spatial ones."""
    rank, first = node.inputs[1].type.rank, node.attrs["layout"] == "NCHW"
    spatial = tuple(range(2, rank)) if first else tuple(range(rank - 2))
    if node.op == "conv_transpose":
        return (1 if first else rank - 1), spatial
    return (0 if first else rank - 1), spatial


def _window(axis: _Axis, found: Places | None) -> tuple[Places | None, _Axis] | None:
    """What windows at some places read, and their steps and padding then; None for other places
    than evenly spaced ones."""
    if not isinstance(found, Picks) or not isinstance(found.places, range) or not axis.is_known:
        return None
    size, low = int(axis.size), int(axis.low)  # type: ignore[arg-type]
    places = found.places
    step = places.step if len(places) > 1 else 1
    first = places.start * axis.stride - low
    last = places[-1] * axis.stride - low + int(extent(axis.kernel, axis.dilation))  # type: ignore[arg-type]
    start, stop = max(0, first), min(size, last)
    if start >= stop:
        return None
    moved = replace(axis, stride=axis.stride * step, low=start - first, high=last - stop)
    return picks(range(start, stop), axis.size), moved


def _conv(node: Node, part: Part) -> Narrowed:
    _x, w, *bias = node.inputs
    channels, spatial = _filter_axes(node)
    chosen = part[channel_axis(node.attrs["layout"], len(part))]
    alone = _is_depthwise(node) and (chosen is None or isinstance(chosen, Picks))
    if node.attrs["groups"] != 1 and not alone:
        chosen = None
    narrow = _windows(node, part, [w.shape[axis] for axis in spatial], chosen, by_channel=alone)
    filters = tuple(chosen if axis == channels else None for axis in range(w.type.rank))
    needs = (*narrow.needs, filters, *((chosen,) for _ in bias))
    return replace(narrow, needs=needs)


def _is_depthwise(node: Node) -> bool:
    """Whether every channel is made of the one in its place alone."""
    axis = channel_axis(node.attrs["layout"], node.output.type.rank)
    count = node.attrs["groups"]
    return bool(count == node.inputs[0].shape[axis] == node.output.shape[axis] != 1)


def _pool(node: Node, part: Part) -> Narrowed:
    chosen = part[channel_axis(node.attrs["layout"], len(part))]
    fits = not node.attrs["ceil_mode"]
    return _windows(node, part, node.attrs["kernel"], chosen, fits, by_channel=True)


def _windows(
    node: Node,
    part: Part,
    kernel: Sequence[Dim],
    channels: Places | None,
    fits: bool = True,
    by_channel: bool = False,
) -> Narrowed:
    """A part of windows.

    fits: whether all windows lie within the padded operand. by_channel: whether each channel needs
    itself only; else the operand has all of them.
    """
    layout, rank = node.attrs["layout"], len(part)
    computed, need = list(whole(rank)), list(whole(rank))
    computed[0] = need[0] = part[0]
    computed[channel_axis(layout, rank)] = channels
    if by_channel:
        need[channel_axis(layout, rank)] = channels
    axes = _axes(node, kernel)
    for i, axis in enumerate(spatial_axes(layout, rank)):
        found = _window(axes[i], part[axis]) if fits else None
        if found is not None:
            computed[axis] = part[axis]
            need[axis], axes[i] = found
    attrs: dict[str, Any] = {
        "strides": tuple(axis.stride for axis in axes),
        "pads": (*(axis.low for axis in axes), *(axis.high for axis in axes)),
    }
    if by_channel and "groups" in node.attrs and channels is not None:
        attrs["groups"] = channels.count
    return Narrowed(tuple(computed), (tuple(need),), same(node, **attrs))


def _conv_transpose(node: Node, part: Part) -> Narrowed:
    _x, w, *bias = node.inputs
    layout, rank, attrs = node.attrs["layout"], len(part), node.attrs
    channels, spatial = _filter_axes(node)
    chosen = part[channel_axis(layout, rank)] if attrs["groups"] == 1 else None
    computed, need = list(whole(rank)), list(whole(rank))
    computed[0] = need[0] = part[0]
    computed[channel_axis(layout, rank)] = chosen
    axes, extra = _axes(node, [w.shape[axis] for axis in spatial]), list(attrs["output_padding"])
    for i, axis in enumerate(spatial_axes(layout, rank)):
        found = _reached(axes[i], part[axis])
        if found is not None:
            computed[axis] = part[axis]
            need[axis], axes[i], extra[i] = found
    changed = {
        "pads": (*(axis.low for axis in axes), *(axis.high for axis in axes)),
        "output_padding": tuple(extra),
    }
    filters = tuple(chosen if axis == channels else None for axis in range(w.type.rank))
    needs = (tuple(need), filters, *((chosen,) for _ in bias))
    return Narrowed(tuple(computed), needs, same(node, **changed))


def _reached(axis: _Axis, found: Places | None) -> tuple[Places | None, _Axis, int] | None:
    """What reaches a run of places, and how the result is cropped and padded then."""
    if not isinstance(found, Picks) or not isinstance(found.places, range) or not axis.is_known:
        return None
    places, stride = found.places, axis.stride
    size, low = int(axis.size), int(axis.low)  # type: ignore[arg-type]
    span = int(extent(axis.kernel, axis.dilation))  # type: ignore[arg-type]
    start = max(0, -(-(places.start + low - span + 1) // stride))
    stop = min(size, (places[-1] + low) // stride + 1)
    if (places.step != 1 and len(places) > 1) or start >= stop:
        return None
    before = places.start + low - start * stride
    after = (stop - start - 1) * stride + span - before - len(places)
    extra = max(0, -after)
    if before < 0 or extra >= max(stride, axis.dilation):
        return None
    moved = replace(axis, low=before, high=after + extra)
    return picks(range(start, stop), axis.size), moved, extra


WINDOW_RULES: dict[str, Rule] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "max_pool": _pool,
    "avg_pool": _pool,
}
