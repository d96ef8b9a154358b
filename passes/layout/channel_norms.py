"""Group and instance normalisation of pictures, by channels, so that these may come last.

Written as one row for every group, [N, G, C/G · H · W], a normalisation holds its picture to
channels first between convolutions that want them last. The mean of a group is the mean of the
means of its channels, and these are taken along axes that any layout keeps apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.ir.graph import Graph, Node, Value
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, like, rewrite

RULES = Rules()
_RANK = 4  # of pictures, channels first


@dataclass(frozen=True)
class ChannelNorms:
    """reshape(layer_norm(reshape(x), 1)) -> (x - mean) / sqrt(variance + epsilon), both by channel.

    The rows are groups of channels of a picture x [N, C, H, W], or single ones.
    """

    name: str = "channel_norms"

    def run(self, graph: Graph) -> bool:
        """Rewrite; whether there was one."""
        if not any(node.op == "conv" for node in graph.walk()):
            return False
        return rewrite(graph, RULES)


@RULES.on("layer_norm")
def by_channels(node: Node, rw: Rewriter) -> Replacement:
    """The rows of a normalisation as groups of channels."""
    rows, scale = node.inputs[:2]
    if len(node.inputs) != 2 or scale.data is None or not bool(np.all(scale.data == 1)):
        return None
    view = rw.producer(rows, "reshape")
    x = view.inputs[0] if view is not None and rows.type.rank != _RANK else rows
    found = _groups(x, rows, node.attrs["axis"])
    if found is None or not rw.may_round(node.output):
        return None
    centred = rw.emit("sub", [x, _mean(rw, x, found)])
    variance = _mean(rw, rw.emit("mul", [centred, centred]), found)
    epsilon = like(x, node.attrs["epsilon"])
    spread = rw.emit("sqrt", [rw.emit("add", [variance, epsilon])])
    inverse = rw.emit("div", [like(x, 1.0), spread])
    result = rw.emit("mul", [centred, inverse])
    return rw.emit("reshape", [result], {"shape": node.output.shape})


def _groups(x: Value, rows: Value, axis: int) -> int | None:
    """How many groups of channels the rows of a normalisation are; None where they are others."""
    if x.type.rank != _RANK or not x.dtype.is_float:
        return None
    batch, channels, height, width = x.shape
    if not all(isinstance(dim, int) and dim > 0 for dim in (channels, height, width)):
        return None
    if rows is x:
        return int(channels) if axis == 2 else None
    if rows.type.rank != 3 or rows.shape[0] != batch or axis != 2:
        return None
    groups = rows.shape[1]
    if not isinstance(groups, int) or channels % groups:
        return None
    return groups if rows.shape[2] == channels // groups * height * width else None


def _mean(rw: Rewriter, x: Value, groups: int) -> Value:
    """[N, C, 1, 1]: of every channel the mean of its group."""
    x = rw.emit("reduce_mean", [x], {"axes": (2, 3), "keepdims": True})
    batch, channels = x.shape[:2]
    if groups == channels:
        return x
    apart = (batch, groups, channels // groups, 1, 1)
    split = rw.emit("reshape", [x], {"shape": apart})
    mean = rw.emit("reduce_mean", [split], {"axes": (2,), "keepdims": True})
    wide = rw.emit("broadcast_to", [mean], {"shape": apart})
    return rw.emit("reshape", [wide], {"shape": x.shape})
