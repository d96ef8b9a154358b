"""Transposed convolutions as plain ones that compute all phases of the stride at once.

With stride s an output position y meets the taps t = (y + pad) mod s + s j only: the position
divided by s says which input elements, the remainder (the phase) which taps. All phases share one
dense convolution with ceil(k / s) taps and s times the channels, whose result is interleaved. See
W. Shi et al., "Is the deconvolution layer the same as a convolutional layer?",
https://arxiv.org/abs/1609.07009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...compiler.ir.dims import Dim
from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, like, rewrite
from .choose_layouts import ChooseLayouts

RULES = Rules()


@dataclass(frozen=True)
class TransposedConv:
    """conv_transpose, channels last and not dilated -> conv, depth to space, crop.

    Permutations around it can be one with the depth to space, so they are placed anew.
    """

    name: str = "transposed_conv"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        changed = rewrite(graph, RULES)
        if changed:
            ChooseLayouts().run(graph)
        return changed


@dataclass(frozen=True)
class _Axis:
    """One spatial axis. taps: per phase. low, high: padding of the convolution.

    crop: leading elements of the interleaved result that are not part of the output.
    """

    size: Dim
    kernel: int
    stride: int
    taps: int
    low: int
    high: int
    crop: int

    @staticmethod
    def of(size: Dim, kernel: int, stride: int, pads: tuple[int, int], extra: int) -> _Axis:
        taps = -(-kernel // stride)
        skipped = min(pads[0] // stride, taps - 1)
        high = -(-(kernel + extra - pads[1] - stride) // stride)
        crop = pads[0] - skipped * stride
        return _Axis(size, kernel, stride, taps, taps - 1 - skipped, max(0, high), crop)

    @property
    def positions(self) -> Dim:
        """How many positions the convolution computes."""
        return self.size + self.low + self.high - self.taps + 1


@RULES.on("conv_transpose")
def phases(node: Node, rw: Rewriter) -> Replacement:
    """One convolution for all phases."""
    x, w = node.inputs[:2]
    attrs, count = node.attrs, x.type.rank - 2
    kernel = [dim for dim in w.shape[:count] if isinstance(dim, int) and dim > 0]
    fixed = all(isinstance(dim, int) for dim in (*w.shape, *attrs["pads"]))
    if attrs["layout"] != "NHWC" or any(d != 1 for d in attrs["dilations"]):
        return None
    if not fixed or len(kernel) != count:
        return None
    axes = [
        _Axis.of(
            x.shape[1 + i],
            kernel[i],
            attrs["strides"][i],
            (attrs["pads"][i], attrs["pads"][count + i]),
            attrs["output_padding"][i],
        )
        for i in range(count)
    ]
    groups = attrs["groups"]
    operands = [x, _filter(w, axes, groups, rw)]
    strides = tuple(axis.stride for axis in axes)
    per_group = w.shape[-1]
    if len(node.inputs) > 2:
        operands.append(_bias(node.inputs[2], strides, groups, rw))
    window = {
        "strides": (1,) * count,
        "dilations": (1,) * count,
        "pads": (*(axis.low for axis in axes), *(axis.high for axis in axes)),
        "groups": groups,
        "layout": "NHWC",
    }
    result = rw.emit("conv", operands, window)
    return _interleave(result, axes, (groups, per_group), node.output.shape, rw)


def _filter(w: Value, axes: list[_Axis], groups: int, rw: Rewriter) -> Value:
    """[k..., C, M/g] -> [taps..., C/g, g * phases * M/g], the taps of a phase in reverse."""
    count = len(axes)
    channels, per_group = w.shape[-2:]
    assert isinstance(channels, int)
    assert isinstance(per_group, int)
    missing = [axis.taps * axis.stride - axis.kernel for axis in axes]
    if any(missing):
        pads = (*(0,) * (count + 2), *missing, 0, 0)
        w = rw.emit("pad", [w, like(w, 0)], {"pads": pads, "mode": "constant"})
    split = [size for axis in axes for size in (axis.taps, axis.stride)]
    shape = (*split, groups, channels // groups, per_group)
    w = rw.emit("reshape", [w], {"shape": shape})
    taps, strides = range(0, 2 * count, 2), range(1, 2 * count, 2)
    perm = (*taps, 2 * count + 1, 2 * count, *strides, 2 * count + 2)
    w = rw.emit("transpose", [w], {"perm": perm})
    shape = (*(axis.taps for axis in axes), *w.shape[count:])
    reverse = {
        "starts": (*(axis.taps - 1 for axis in axes), *(0,) * (count + 3)),
        "stops": (*(-1,) * count, *w.shape[count:]),
        "steps": (*(-1,) * count, *(1,) * (count + 3)),
    }
    w = rw.emit("slice", [w], reverse)
    width = groups * math.prod(axis.stride for axis in axes) * per_group
    return rw.emit("reshape", [w], {"shape": (*shape[: count + 1], width)})


def _bias(bias: Value, strides: tuple[int, ...], groups: int, rw: Rewriter) -> Value:
    """The bias, repeated for every phase: [g * phases * M/g]."""
    channels, repeats = bias.shape[0], math.prod(strides)
    assert isinstance(channels, int)
    grouped = rw.emit("reshape", [bias], {"shape": (groups, 1, channels // groups)})
    wide = rw.emit("broadcast_to", [grouped], {"shape": (groups, repeats, channels // groups)})
    return rw.emit("reshape", [wide], {"shape": (repeats * channels,)})


def _interleave(
    x: Value, axes: list[_Axis], channels: tuple[int, Dim], shape: tuple[Dim, ...], rw: Rewriter
) -> Value:
    """[N, q..., g * phases * M/g] -> [N, q s..., M], cropped to `shape`."""
    count = len(axes)
    positions = [axis.positions for axis in axes]
    split = (x.shape[0], *positions, channels[0], *(axis.stride for axis in axes), channels[1])
    x = rw.emit("reshape", [x], {"shape": split})
    spatial = [side for i in range(count) for side in (1 + i, 2 + count + i)]
    x = rw.emit("transpose", [x], {"perm": (0, *spatial, 1 + count, 2 + 2 * count)})
    sizes = [at * axis.stride for at, axis in zip(positions, axes, strict=True)]
    x = rw.emit("reshape", [x], {"shape": (x.shape[0], *sizes, shape[-1])})
    starts = (0, *(axis.crop for axis in axes), 0)
    stops = tuple(start + dim for start, dim in zip(starts, shape, strict=True))
    attrs = {"starts": starts, "stops": stops, "steps": (1,) * len(shape)}
    return rw.emit("slice", [x], attrs)
