"""Convolutions behind space-to-depth, computed on the picture itself.

Of b x b pixels that become channels of one, a window of k x k taps reads bk x bk neighbouring
pixels, each by a weight of its own: it is a window of so many taps with b times the stride. The
multiplications are the same, and the picture is not copied.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from ...compiler.kernel.forms.winograd_choice import winograd_gain
from ...compiler.target import CpuTarget, Target
from .work import moved, operations

_WINOGRAD_VECTORS = 2  # of channels: with fewer, Winograd took longer than these windows (Zen 5)


@dataclass(frozen=True)
class UnshuffledConvs:
    """conv(space to depth) -> conv with a larger window and stride, where that is faster.

    Expects channels first. target: whose costs decide: where Winograd's algorithm computes the
    small windows faster, nothing changes; None, or one that is no CPU: nothing does. told: hears of
    what has changed.
    """

    target: Target | None = None
    told: Told | None = None
    name: str = "unshuffled_convs"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        if not isinstance(self.target, CpuTarget):
            return False
        target, rules = self.target, Rules()
        rules.on("conv")(lambda node, rw: self._merged(node, rw, target))
        return rewrite(graph, rules)

    def _merged(self, node: Node, rw: Rewriter, target: CpuTarget) -> Replacement:
        x, w, *bias = node.inputs
        attrs = node.attrs
        plain = (
            attrs["layout"] == "NCHW" and attrs["groups"] == 1 and set(attrs["dilations"]) == {1}
        )
        if w.data is None or not plain or x.type.rank != 4 or rw.uses(x) != 1:
            return None
        found = unshuffled(x)
        fills = w.data.shape[1] >= _WINOGRAD_VECTORS * target.lanes(32)
        if found is None or (fills and winograd_gain(node, target) > 1):
            return None
        block = found.block
        source = found.source
        kernel = tuple(k * block for k in w.data.shape[2:])
        wide = np.zeros((w.data.shape[0], int(source.shape[1]), *kernel), w.data.dtype)
        for channel, (of, row, column) in enumerate(found.places.tolist()):
            wide[:, of, row::block, column::block] = w.data[:, channel]
        window = {
            "strides": tuple(stride * block for stride in attrs["strides"]),
            "pads": tuple(pad * block for pad in attrs["pads"]),
        }
        result = rw.emit("conv", [source, constant(wide, w.name), *bias], {**attrs, **window})
        if result.shape != node.output.shape:
            return None
        if self.told:
            before = operations(node) + moved(x.type)
            why = "its window reads the pixels where they are, before they become channels"
            self.told(Saving(self.name, node.name, node.op, before, operations(node), why))
        return result


@dataclass(frozen=True)
class Unshuffled:
    """A picture whose pixels, in blocks of `block` x `block`, become channels.

    places: i64[channels, 3], for each channel that of the source, and the row and column within a
    block.
    """

    source: Value
    block: int
    places: Array


def unshuffled(value: Value) -> Unshuffled | None:
    """The space-to-depth that makes a value, of either way in which it is written."""
    node = value.producer
    if node is None:
        return None
    found = _phases(node) if node.op == "concat" else _rearranged(node)
    if found is None:
        return None
    channels = found.source.shape[1]
    every = len({tuple(place) for place in found.places.tolist()})
    return found if channels and every == channels * found.block**2 == value.shape[1] else None


def _phases(node: Node) -> Unshuffled | None:
    """Every so many pixels, from different ones on, side by side."""
    parts = [part.producer for part in node.inputs]
    if node.attrs["axis"] != 1 or any(part is None or part.op != "slice" for part in parts):
        return None
    slices = [part for part in parts if part is not None]
    source = slices[0].inputs[0]
    block = slices[0].attrs["steps"][-1]
    if block < 2 or any(dim % block != 0 for dim in source.shape[2:]):
        return None
    places: list[tuple[int, int, int]] = []
    for part in slices:
        starts, stops, steps = (part.attrs[key] for key in ("starts", "stops", "steps"))
        if part.inputs[0] is not source or steps != (1, 1, block, block):
            return None
        known = all(isinstance(end, int) for end in (*starts, stops[1]))
        if starts[0] != 0 or not known or part.output.shape[2:] != node.output.shape[2:]:
            return None
        if part.output.shape[0] != source.shape[0] or max(starts[2:]) >= block:
            return None
        if any(
            out * block != dim
            for out, dim in zip(part.output.shape[2:], source.shape[2:], strict=True)
        ):
            return None
        places += [(channel, starts[2], starts[3]) for channel in range(starts[1], stops[1])]
    return Unshuffled(source, block, np.asarray(places, np.int64))


def _rearranged(node: Node) -> Unshuffled | None:
    """Pixels along axes of their own, which move in front and are merged with the channels."""
    moved_axes = node.inputs[0].producer if node.op == "reshape" else None
    apart = moved_axes.inputs[0].producer if moved_axes is not None else None
    if moved_axes is None or apart is None or (moved_axes.op, apart.op) != ("transpose", "reshape"):
        return None
    source, shape, perm = apart.inputs[0], apart.output.shape, moved_axes.attrs["perm"]
    if source.type.rank != 4 or len(shape) != 6 or (perm[0], *perm[4:]) != (0, 2, 4):
        return None
    channels, block = source.shape[1], shape[3]
    if not isinstance(channels, int) or not isinstance(block, int) or shape[5] != block:
        return None
    n, _, h, w = source.shape
    grid = (shape[2], shape[4])
    if shape[:2] != (n, channels) or (grid[0] * block, grid[1] * block) != (h, w) or block < 2:
        return None
    if node.output.shape != (n, channels * block * block, *grid):
        return None
    axes = {1: channels, 3: block, 5: block}
    order = perm[1:4]
    found = np.indices([axes[axis] for axis in order]).reshape(3, -1)
    places = found[[order.index(axis) for axis in (1, 3, 5)]].T
    return Unshuffled(source, block, places)
