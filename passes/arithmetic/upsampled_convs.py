"""Convolutions behind nearest upsampling, computed at the low resolution.

Enlarged s times by repeating elements, an image is its transposed convolution with a window of s
ones; with what convolves it then, that is one transposed convolution with stride s and a window of
k + s - 1. Of its taps a phase of the stride meets ceil((k + s - 1) / s): 2 x 2 in place of 3 x 3
behind twice the size, 4 of 9 multiplications. `TransposedConv` computes all phases at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.dims import estimate, exact_quotient
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array, make_node
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.ir.types import TensorType
from ...compiler.kernel.contraction import UNKNOWN_EXTENT
from ...compiler.kernel.forms.winograd import images_together
from ...compiler.kernel.forms.winograd_choice import convolution_cycles
from ...compiler.target import CpuTarget, Target
from .work import elements, operations

_LEAST_VECTORS = 2  # of channels: fewer took longer in phases, timed on Zen 5
_BYTES_PER_CYCLE = 16.0  # at which phases are interleaved: assumed, from what was timed on Zen 5


@dataclass(frozen=True)
class UpsampledConvs:
    """conv(nearest upsampling by whole numbers) -> conv_transpose, where that is faster.

    Parts of a concat that are enlarged are convolved by themselves, and added. Expects channels
    first. target: whose costs decide, Winograd's algorithm at the high resolution included; None,
    or one that is no CPU: nothing changes. told: hears of what has changed. least_gain: how much
    of the cycles that has to save. cache_bytes: what stays near a core, roughly: larger results
    took longer to add up than was saved, timed on Zen 5.
    """

    target: Target | None = None
    told: Told | None = None
    least_gain: float = 0.05
    cache_bytes: int = 4 << 20
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
    kernel = weights.shape[2:]
    if any(k - 1 < pad for k, pad in zip((*kernel, *kernel), attrs["pads"], strict=True)):
        return None
    terms = _terms(node, weights, _LEAST_VECTORS * target.lanes(32))
    size = elements(node.output.shape) * node.output.dtype.bytes
    if all(term.is_plain for term in terms) or (len(terms) > 1 and size >= by.cache_bytes):
        return None
    before, costs = convolution_cycles(node, target), [t.cycles(node, target) for t in terms]
    known = [cost for cost in costs if cost is not None]
    if before is None or len(known) < len(costs):
        return None
    if sum(known) > before * (1 - by.least_gain):
        return None
    bias = node.inputs[2:]
    result = terms[0].emit(node, bias, rw)
    for term in terms[1:]:
        result = rw.emit("add", [result, term.emit(node, [], rw)])
    if result.shape != node.output.shape:
        return None
    if by.told:
        flops = operations(node)
        left = sum(term.share * term.weights.shape[1] for term in terms) / weights.shape[1]
        why = "behind nearest upsampling, phases of it share their taps"
        by.told(Saving("upsampled_convs", node.name, node.op, flops, flops * left, why))
    return result


@dataclass(frozen=True)
class _Term:
    """What some of its channels add to a convolution. sources: these, side by side; scales: by
    which they are enlarged along every spatial axis."""

    sources: tuple[Value, ...]
    scales: tuple[int, ...]
    weights: Array

    @property
    def is_plain(self) -> bool:
        """Whether nothing is enlarged."""
        return all(scale == 1 for scale in self.scales)

    @property
    def taps(self) -> tuple[int, ...]:
        """Of one phase."""
        pairs = zip(self.weights.shape[2:], self.scales, strict=True)
        return tuple(taps_of(kernel, scale) for kernel, scale in pairs)

    @property
    def share(self) -> float:
        """Of the multiplications, that is left."""
        return float(np.prod(self.taps) / np.prod(self.weights.shape[2:]))

    def cycles(self, node: Node, target: CpuTarget) -> float | None:
        """Estimated cycles, and those of interleaving phases and of adding them to others."""
        m, c = self.weights.shape[:2]
        dtype, taps, count = node.output.dtype, self.taps, len(self.scales)
        first = self.sources[0]
        x = Value(TensorType(dtype, (first.shape[0], c, *first.shape[2:])))
        w = Value(TensorType(dtype, (m * int(np.prod(self.scales)), c, *taps)))
        pads = (*(t - 1 for t in taps), *(t // 2 for t in taps))
        window = {"strides": (1,) * count, "dilations": (1,) * count, "layout": "NCHW"}
        around = node.attrs["pads"] if self.is_plain else pads
        conv = make_node("conv", [x, w], {**window, "pads": around})
        cycles = convolution_cycles(conv, target)
        moved = 0.0 if self.is_plain else 2.0 * dtype.bytes * _usual_elements(node.output)
        return None if cycles is None else cycles + moved / _BYTES_PER_CYCLE

    def emit(self, node: Node, bias: list[Value], rw: Rewriter) -> Value:
        """The convolution of these channels, transposed where they are enlarged."""
        source = self.sources[0]
        if len(self.sources) > 1:
            source = rw.emit("concat", self.sources, {"axis": 1})
        name = node.inputs[1].name
        if self.is_plain:
            filters = constant(np.ascontiguousarray(self.weights), name)
            return rw.emit("conv", [source, filters, *bias], node.attrs)
        count, kernel = len(self.scales), self.weights.shape[2:]
        pads = zip((*kernel, *kernel), node.attrs["pads"], strict=True)
        window = {
            "strides": self.scales,
            "dilations": (1,) * count,
            "pads": tuple(k - 1 - pad for k, pad in pads),
            "output_padding": (0,) * count,
            "groups": 1,
            "layout": "NCHW",
        }
        filters = constant(_spread(self.weights, self.scales), name)
        return rw.emit("conv_transpose", [source, filters, *bias], window)


def _usual_elements(value: Value) -> int:
    """Of the pictures and sizes that `convolution_cycles` counts."""
    batch, channels, *dims = value.shape
    usual = (estimate(dim, UNKNOWN_EXTENT) for dim in (channels, *dims))
    return images_together(batch, dims) * math.prod(usual)


def _terms(node: Node, weights: Array, least: int) -> list[_Term]:
    """The enlarged parts of what a convolution reads, each of `least` channels, and the others
    together, first. None where only a run knows how many channels a part has."""
    joined = node.inputs[0].producer
    is_joined = joined is not None and joined.op == "concat" and joined.attrs["axis"] == 1
    values = joined.inputs if joined is not None and is_joined else node.inputs[:1]
    ones = (1,) * (node.output.type.rank - 2)
    plain: list[tuple[Value, Array]] = []
    terms: list[_Term] = []
    first = 0
    for value in values:
        width = value.shape[1]
        if not isinstance(width, int):
            return []
        part = weights[:, first : first + width]
        first += width
        source, scales = enlarged(value)
        if scales == ones or min(part.shape[:2]) < least:
            plain.append((value, part))
        else:
            terms.append(_Term((source,), scales, part))
    if not plain:
        return terms
    others = np.concatenate([part for _, part in plain], axis=1)
    return [_Term(tuple(value for value, _ in plain), ones, others), *terms]


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
    return (value, tuple(scales)) if max(scales, default=1) > 1 else _repeated(value)


def _repeated(value: Value) -> tuple[Value, tuple[int, ...]]:
    """As `enlarged`, of elements that are repeated along axes of their own, as is written for sizes
    that only a run knows."""
    plain = (value, (1,) * (value.type.rank - 2))
    chain: list[Node] = []
    node = value.producer
    for op in ("reshape", "broadcast_to", "reshape"):
        if node is None or node.op != op:
            return plain
        chain.append(node)
        node = node.inputs[0].producer
    source = chain[2].inputs[0]
    if source.type.rank != value.type.rank:
        return plain
    found = [
        exact_quotient(large, dim) for dim, large in zip(source.shape, value.shape, strict=True)
    ]
    scales = [scale for scale in found if isinstance(scale, int) and scale > 0]
    if len(scales) < len(found) or scales[:2] != [1, 1]:
        return plain
    dims = list(zip(source.shape, scales, strict=True))
    apart = tuple(d for dim, n in dims for d in ((dim, 1) if n > 1 else (dim,)))
    wide = tuple(d for dim, n in dims for d in ((dim, n) if n > 1 else (dim,)))
    shapes = (chain[2].output.shape, chain[1].output.shape)
    return (source, tuple(scales[2:])) if shapes == (apart, wide) else plain


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
