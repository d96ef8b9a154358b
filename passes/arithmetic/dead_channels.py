"""Channels that zero weights make dead: nothing reads them, or they are one number everywhere.

A product with constants reads no channel whose weights are zero, and needs none that is known: what
it adds is a part of the bias. `Demand` moves what is left out up through the network, to the
layers that made it; networks that were pruned structurally become smaller ones.

A weight of zero times NaN or infinity is taken as zero, and so is a channel known as zero times
either: what an infinite or undefined element would make of other channels is left out with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array
from ...compiler.ir.ops.windows import channel_axis
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from .known_channels import Known, KnownChannels, zero_places
from .work import moved, operations


@dataclass(frozen=True)
class DeadChannels:
    """Convolutions and products with constants read the channels that count, and no others.

    Expects dead nodes to be gone. step: channels are left out in so many at once, since kernels
    compute them in vectors. told: hears of channels that are left out.
    """

    told: Told | None = None
    step: int = 16
    name: str = "dead_channels"

    def run(self, graph: Graph) -> bool:
        """Leave out dead channels; whether there were any."""
        rules = Rules()
        known = KnownChannels.of(graph)
        rules.on("conv", "matmul")(lambda node, rw: self._shrunk(node, rw, known))
        return rewrite(graph, rules)

    def _shrunk(self, node: Node, rw: Rewriter, known: KnownChannels) -> Replacement:
        found = _Read.of(node)
        if found is None or not rw.may_round(node.output):
            return None
        fact = known.along(node.inputs[0], found.axis)
        dead = found.dead(fact)
        if not dead.any():
            return None
        dead = _in_steps(dead, self.step)
        share = 1 - float(dead.mean())
        x = node.inputs[0]
        if dead.all() or operations(node) * (1 - share) <= moved(x.type) * share:
            return None
        if self.told:
            before = operations(node)
            why = f"{int(dead.sum())} of {dead.size} channels are zero or known by zero weights"
            self.told(Saving("dead_channels", node.name, node.op, before, before * share, why))
        return found.without(dead, fact, rw)


def _in_steps(dead: Array, step: int) -> Array:
    """So many of the dead channels that a multiple of `step` stay; none where that saves none."""
    keep = int(-(-int((~dead).sum()) // step) * step)
    left = dead.copy()
    places = np.flatnonzero(dead)
    left[places[: max(0, keep - int((~dead).sum()))]] = False
    return left


@dataclass(frozen=True)
class _Read:
    """What a product with constants reads: channels along `axis` of its operand, which `w_axis` of
    its weights multiplies."""

    node: Node
    axis: int
    w_axis: int
    weights: Array

    @staticmethod
    def of(node: Node) -> _Read | None:
        """None for what has no constant weights, or groups."""
        x, w = node.inputs[:2]
        if w.data is None or not w.dtype.is_float or x.is_constant or not w.data.size:
            return None
        if node.attrs.get("product") or w.dtype is not node.output.dtype:
            return None
        if node.op == "matmul":
            return _Read(node, x.type.rank - 1, 0, w.data) if w.type.rank == 2 else None
        if node.attrs["groups"] != 1 or node.attrs["pad_value"] != 0:
            return None
        layout, rank = node.attrs["layout"], w.type.rank
        return _Read(node, channel_axis(layout, rank), 1 if layout == "NCHW" else rank - 2, w.data)

    @property
    def pads(self) -> bool:
        """Whether windows reach over borders."""
        return any(pad != 0 for pad in self.node.attrs.get("pads", ()))

    def dead(self, known: Known | None) -> Array:
        """bool[channels]: what need not be read."""
        dead = zero_places(self.weights, self.w_axis)
        if known is None:
            return dead
        counts = (known.numbers != 0) & self.pads
        return np.asarray(dead | (known.mask & ~counts))

    def without(self, dead: Array, known: Known | None, rw: Rewriter) -> Value:
        """The product of the other channels."""
        node, kept = self.node, np.flatnonzero(~dead)
        x, w, *bias = node.inputs
        read = rw.emit("gather", [x, constant(kept)], {"axis": self.axis})
        cut = constant(np.ascontiguousarray(self.weights.take(kept, self.w_axis)), w.name)
        shift = None if known is None else self._shift(dead, known)
        if bias and shift is not None:
            wide = rw.emit("add", [bias[0], constant(shift.astype(bias[0].dtype.numpy))])
            return rw.emit(node.op, [read, cut, wide], node.attrs)
        result = rw.emit(node.op, [read, cut, *bias], node.attrs)
        if shift is None:
            return result
        axis = result.type.rank - 1 if node.op == "matmul" else self.axis
        shape = [1] * result.type.rank
        shape[axis] = -1
        return rw.emit("add", [result, constant(shift.astype(w.dtype.numpy).reshape(shape))])

    def _shift(self, dead: Array, known: Known) -> Array | None:
        """f64[outputs]: what the channels that are left out add everywhere; None: nothing."""
        gone = dead & known.mask & (known.numbers != 0)
        if not gone.any():
            return None
        moved_weights = np.moveaxis(self.weights, self.w_axis, -1)[..., gone].astype(np.float64)
        sums = moved_weights @ known.numbers[gone]
        if self.node.op == "matmul":
            return np.asarray(sums)
        first = self.node.attrs["layout"] == "NCHW"
        spatial = tuple(range(1, sums.ndim)) if first else tuple(range(sums.ndim - 1))
        return np.asarray(sums.sum(axis=spatial))
