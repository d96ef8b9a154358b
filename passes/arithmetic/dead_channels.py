"""Channels that need not be read: dead by zero weights, one number everywhere, or equal to others.

A product with constants reads no channel whose weights are zero, and needs none that is known: what
it adds is a part of the bias. Of channels that are equal it reads one, by the sum of their weights;
so it does of channels of known numbers where windows reach over borders, and the numbers end.
`Demand` moves what is left out up through the network, to the layers that made it; networks that
were pruned structurally become smaller ones.

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
from .equal_channels import EqualChannels
from .known_channels import Known, KnownChannels, zero_places
from .work import moved, operations

_NUMBERS = -1  # the class of channels of known numbers, beside those of equal channels


@dataclass(frozen=True)
class DeadChannels:
    """Convolutions and products with constants read the channels that count, and no others.

    Expects dead nodes to be gone. step: channels are left out in so many at once, since kernels
    compute them in vectors; fewer than that fill no vector anyway. told: hears of channels that are
    left out.
    """

    told: Told | None = None
    step: int = 16
    name: str = "dead_channels"

    def run(self, graph: Graph) -> bool:
        """Leave out dead channels; whether there were any."""
        rules = Rules()
        known, equal = KnownChannels.of(graph), EqualChannels.of(graph)
        rules.on("conv", "conv_transpose", "matmul")(
            lambda node, rw: self._shrunk(node, rw, known, equal)
        )
        return rewrite(graph, rules)

    def _shrunk(
        self, node: Node, rw: Rewriter, known: KnownChannels, equal: EqualChannels
    ) -> Replacement:
        found = _Read.of(node)
        if found is None or not rw.may_round(node.output):
            return None
        x = node.inputs[0]
        plan = found.plan(known.along(x, found.axis), equal.along(x, found.axis))
        if not plan.dead.any():
            return None
        plan = plan.keeping(_in_steps(plan.dead, self.step))
        dead = plan.dead
        share = 1 - float(dead.mean())
        if dead.all() or operations(node) * (1 - share) <= moved(x.type) * share:
            return None
        weights = plan.weights(found.weights, found.w_axis)
        if weights is None:
            return None
        if self.told:
            before = operations(node)
            counts = f"{int(dead.sum())} of {dead.size} channels"
            why = f"{counts} are zero, known by zero weights, or equal to others"
            self.told(Saving("dead_channels", node.name, node.op, before, before * share, why))
        return found.without(plan, weights, rw)


def _in_steps(dead: Array, step: int) -> Array:
    """So many of the dead channels that a multiple of `step` stay; none where that saves none."""
    alive = int((~dead).sum())
    keep = alive if dead.size < step else int(-(-alive // step) * step)
    left = dead.copy()
    left[np.flatnonzero(dead)[: max(0, keep - alive)]] = False
    return left


@dataclass(frozen=True)
class _Plan:
    """Which channels are not read.

    dead: bool[channels], those. into: i64[channels], the channel that stands for each: itself, but
    for those whose weights another one takes, times `factors`. shifts: f64[channels], the number of
    those that are a part of the bias, else 0.
    """

    dead: Array
    into: Array
    factors: Array
    shifts: Array

    def keeping(self, dead: Array) -> _Plan:
        """The plan in which fewer channels are left out."""
        into = np.where(dead, self.into, np.arange(dead.size))
        return _Plan(dead, into, self.factors, np.where(dead, self.shifts, 0.0))

    def weights(self, given: Array, axis: int) -> Array | None:
        """The weights of the channels that are read; None where sums of them are too large."""
        taken = np.flatnonzero(self.into != np.arange(self.into.size))
        wide = given
        if taken.size:
            moved_weights = np.moveaxis(given.astype(np.float64), axis, 0)
            factors = self.factors[taken].reshape(-1, *(1,) * (given.ndim - 1))
            np.add.at(moved_weights, self.into[taken], moved_weights[taken] * factors)
            with np.errstate(over="ignore"):
                wide = np.moveaxis(moved_weights, 0, axis).astype(given.dtype)
        kept = np.ascontiguousarray(wide.take(np.flatnonzero(~self.dead), axis))
        return kept if not taken.size or bool(np.isfinite(kept).all()) else None


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
        if node.attrs["groups"] != 1 or node.attrs.get("pad_value", 0) != 0:
            return None
        first, rank = node.attrs["layout"] == "NCHW", w.type.rank
        w_axis = (1 if first else rank - 2) if node.op == "conv" else (0 if first else rank - 2)
        return _Read(node, channel_axis(node.attrs["layout"], rank), w_axis, w.data)

    @property
    def has_borders(self) -> bool:
        """Whether not every result meets the same weights: some windows reach over borders."""
        if self.node.op == "conv_transpose":
            return True
        return any(pad != 0 for pad in self.node.attrs.get("pads", ()))

    def plan(self, known: Known | None, labels: Array | None) -> _Plan:
        """What need not be read."""
        zero = zero_places(self.weights, self.w_axis)
        every, numbers = np.arange(zero.size), np.zeros(zero.size)
        shifted, counted = np.zeros(zero.size, bool), np.zeros(zero.size, bool)
        if known is not None:
            numbers = known.numbers
            counted = (numbers != 0) & known.mask & self.has_borders
            shifted = known.mask & ~counted
        shifts = np.where(shifted & ~zero, numbers, 0.0)
        into, factors = every.copy(), np.ones(zero.size)
        if labels is not None or counted.sum() > 1:
            classes = np.where(counted, _NUMBERS, every if labels is None else labels)
            into = _representatives(classes, ~(zero | shifted), np.abs(numbers))
            factors = np.where(counted, numbers / np.where(counted, numbers[into], 1.0), 1.0)
        return _Plan(zero | shifted | (into != every), into, factors, shifts)

    def without(self, plan: _Plan, weights: Array, rw: Rewriter) -> Value:
        """The product of the channels that are read."""
        node, kept = self.node, np.flatnonzero(~plan.dead)
        x, w, *bias = node.inputs
        read = rw.emit("gather", [x, constant(kept)], {"axis": self.axis})
        cut, shift = constant(weights, w.name), self._shift(plan.shifts)
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

    def _shift(self, numbers: Array) -> Array | None:
        """f64[outputs]: what the channels that are left out add everywhere; None: nothing."""
        gone = numbers != 0
        if not gone.any():
            return None
        moved_weights = np.moveaxis(self.weights, self.w_axis, -1)[..., gone].astype(np.float64)
        sums = moved_weights @ numbers[gone]
        if self.node.op == "matmul":
            return np.asarray(sums)
        first = self.node.attrs["layout"] == "NCHW"
        spatial = tuple(range(1, sums.ndim)) if first else tuple(range(sums.ndim - 1))
        return np.asarray(sums.sum(axis=spatial))


def _representatives(classes: Array, counts: Array, sizes: Array) -> Array:
    """i64[places]: of each place that counts, the one of its class that stands for all of it, the
    first of the largest; other places stand for themselves."""
    into = np.arange(classes.size)
    order = [place for place in np.argsort(-sizes, kind="stable").tolist() if counts[place]]
    chosen: dict[int, int] = {}
    for place in order:
        into[place] = chosen.setdefault(int(classes[place]), place)
    return into
