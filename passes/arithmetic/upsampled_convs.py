"""Convolutions behind nearest upsampling, computed at the low resolution.

Enlarged s times by repeating elements, an image is its transposed convolution with a window of s
ones; with what convolves it then, that is one transposed convolution with stride s and a window of
k + s - 1. Of its taps a phase of the stride meets ceil((k + s - 1) / s): 2 x 2 in place of 3 x 3
behind twice the size, 4 of 9 multiplications. `TransposedConv` computes all phases at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array, make_node
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import TensorType
from ...compiler.kernel.forms.winograd_choice import convolution_cycles
from ...compiler.target import CpuTarget, Target
from .work import elements, operations

_VECTORS = 2  # of channels at least: fewer took longer in phases, timed on Zen 5
_BYTES_PER_CYCLE = 16.0  # at which phases are interleaved: assumed, from what was timed on Zen 5


@dataclass(frozen=True)
class UpsampledConvs:
    """conv(nearest upsampling by whole numbers) -> conv_transpose, where that is faster.

    Expects channels first. target: whose costs decide, Winograd's algorithm at the high resolution
    included; None, or one that is no CPU: nothing changes. told: hears of what has changed.
    least_gain: how much of the cycles that has to save.
    """

    target: Target | None = None
    told: Told | None = None
    least_gain: float = 0.05
    name: str = "upsampled_convs"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        if not isinstance(self.target, CpuTarget):
            return False
        target, rules = self.target, Rules()
        rules.on("conv")(lambda node, rw: _phases(node, rw, target, self))
        return rewrite(graph, rules)


def _phases(node: Node, rw: Rewriter, target: CpuTarget, by: UpsampledConvs) -> Replacement:
    attrs, weights = node.attrs, node.inputs[1].data
    if weights is None or attrs["layout"] != "NCHW" or attrs["groups"] != 1:
        return None
    plain = {*attrs["strides"], *attrs["dilations"]} == {1} and attrs["pad_value"] == 0
    if not plain or not rw.may_round(node.output) or not node.output.dtype.is_float:
        return None
    source, scales = enlarged(node.inputs[0])
    count = node.output.type.rank - 2
    kernel = weights.shape[2:]
    pads = [k - 1 - pad for k, pad in zip((*kernel, *kernel), attrs["pads"], strict=True)]
    if all(scale == 1 for scale in scales) or any(pad < 0 for pad in pads):
        return None
    if min(weights.shape[:2]) < _VECTORS * target.lanes(32):
        return None
    before, after = (_cycles(node, source, scales, target, each) for each in (False, True))
    if before is None or after is None or after > before * (1 - by.least_gain):
        return None
    window = {
        "strides": scales,
        "dilations": (1,) * count,
        "pads": tuple(pads),
        "output_padding": (0,) * count,
        "groups": 1,
        "layout": "NCHW",
    }
    filters = constant(_spread(weights, scales), node.inputs[1].name)
    result = rw.emit("conv_transpose", [source, filters, *node.inputs[2:]], window)
    if result.shape != node.output.shape:
        return None
    if by.told:
        share = float(np.prod([taps_of(k, s) / k for k, s in zip(kernel, scales, strict=True)]))
        flops = operations(node)
        times = "x".join(map(str, scales))
        why = f"behind {times} nearest upsampling, phases of it share their taps"
        by.told(Saving("upsampled_convs", node.name, node.op, flops, flops * share, why))
    return result


def enlarged(value: Value) -> tuple[Value, tuple[int, ...]]:
    """(source, how many times each element is repeated along every spatial axis)."""
    scales = [1] * (value.type.rank - 2)
    while (node := value.producer) is not None and node.op == "gather":
        x, index = node.inputs
        axis = node.attrs["axis"] % x.type.rank
        if axis < 2 or index.data is None or index.data.ndim != 1 or scales[axis - 2] != 1:
            break
        size, found = x.shape[axis], index.data
        scale = found.size // size if isinstance(size, int) and size else 1
        if scale < 2 or not np.array_equal(found % size, np.arange(size).repeat(scale)):
            break
        scales[axis - 2], value = scale, x
    return value, tuple(scales)


def taps_of(kernel: int, scale: int) -> int:
    """Taps of one phase of a window behind an upsampling."""
    return -(-(kernel + scale - 1) // scale)


def _spread(weights: Array, scales: tuple[int, ...]) -> Array:
    """[M, C, k...] as the filter [C, M, k + s - 1...] of the transposed convolution."""
    kernel = weights.shape[2:]
    mirrored = np.flip(weights, tuple(range(2, weights.ndim))).swapaxes(0, 1).astype(np.float64)
    wide = [k + s - 1 for k, s in zip(kernel, scales, strict=True)]
    total = np.zeros((*mirrored.shape[:2], *wide))
    for offsets in product(*map(range, scales)):
        places = (slice(o, o + k) for o, k in zip(offsets, kernel, strict=True))
        total[(slice(None), slice(None), *places)] += mirrored
    return total.astype(weights.dtype)


def _cycles(
    node: Node, source: Value, scales: tuple[int, ...], target: CpuTarget, phases: bool
) -> float | None:
    """Estimated cycles of the convolution as it is, or in phases, which are interleaved then."""
    if not phases:
        return convolution_cycles(node, target)
    m, c, *kernel = node.inputs[1].type.static_shape
    taps = [taps_of(k, s) for k, s in zip(kernel, scales, strict=True)]
    dtype, count = source.dtype, len(scales)
    x = Value(TensorType(dtype, source.shape))
    w = Value(TensorType(dtype, (m * int(np.prod(scales)), c, *taps)))
    high = tuple(t // 2 for t in taps)
    window = {"strides": (1,) * count, "dilations": (1,) * count, "layout": "NCHW"}
    conv = make_node("conv", [x, w], {**window, "pads": (*(t - 1 for t in taps), *high)})
    cycles = convolution_cycles(conv, target)
    moved = 2.0 * dtype.bytes * elements(node.output.shape)
    return None if cycles is None else cycles + moved / _BYTES_PER_CYCLE
