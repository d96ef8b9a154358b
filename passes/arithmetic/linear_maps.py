"""Channel maps (1×1 convolutions, products with constants) where they cost least.

M(resize(x)) = resize(M(x)), M(N(x)) = (M N)(x), M(concat(x, y)) = M'(x) + M''(y): a map moves in
front of what treats all channels alike, where fewer positions are left, and becomes one with other
maps that it meets. Which way is cheapest is counted for the whole of what is linear in front of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...compiler.decisions import Saving, Told
from ...compiler.ir.graph import Graph, Node, Value, constant
from ...compiler.ir.ops.registry import Array, Trait, has_trait
from ...compiler.ir.rewrite import Replacement, Rewriter, Rules, rewrite
from .linear_steps import ChannelMap, LinearStep, Mapped, channel_weights, linear_step
from .work import elements, is_free, moved, operations, stored

_MOST_NODES = 96  # that are looked at in front of one map
_MOST_CONSTANT = 1 << 16  # elements that a map of a constant may have more than the constant
_LEAST_GAIN = 0.02  # of what it is compared with: less is not worth another order of the graph

Costs = Mapping[object, float]


@dataclass(frozen=True)
class LinearMaps:
    """Move maps of channels to where they cost least.

    Expects scales to be folded, channels first. Guarantees that operations and bytes become fewer.
    told: hears of what has moved.
    """

    told: Told | None = None
    name: str = "linear_maps"

    def run(self, graph: Graph) -> bool:
        """Move maps in the graph and its regions; whether any moved."""
        rules = Rules()
        rules.on("conv", "matmul")(lambda node, rw: _cheapest(node, rw, self.told))
        return rewrite(graph, rules)


def _cheapest(node: Node, rw: Rewriter, told: Told | None) -> Replacement:
    found = channel_weights(node)
    if found is None or not rw.may_round(node.output) or node.inputs[0].is_constant:
        return None
    axis, weights = found
    if rw.producer(node.inputs[0]) is None:
        return None
    plan = _Placement(rw, weights.shape[0], node.output.dtype.bytes)
    top = Mapped(node.inputs[0], axis, ChannelMap.of(weights))
    if plan.step(top) is None:
        return None
    plan.explore(top)
    now, then = plan.stay(top, top=True), plan.best(top)
    before, after = _total(now), _total(then)
    if not plan.ends_in_map(top):
        after += moved(node.output.type) + elements(node.output.shape)
    if _flops(then) > _flops(now):
        return None
    if after >= before * (1 - _LEAST_GAIN):
        return None
    if told:
        why = "a map of channels commutes with what treats them alike, and is one with other maps"
        told(Saving("linear_maps", node.name, node.op, before, after, why))
    result = plan.emit(top)
    if len(node.inputs) == 3:
        result = _with_bias(rw, result, node.inputs[2], axis)
    return result if result.shape == node.output.shape else None


def _with_bias(rw: Rewriter, value: Value, bias: Value, axis: int) -> Value:
    """The bias of a convolution added to what stands for its result."""
    conv = rw.producer(value, "conv")
    if conv is not None and len(conv.inputs) == 2 and rw.uses(value) == 0:
        return rw.emit("conv", [*conv.inputs, bias], conv.attrs)
    return rw.emit("add", [value, _vector(bias.data, axis, value)])


def _flops(costs: Costs) -> float:
    """Of maps."""
    return sum(cost for key, cost in costs.items() if isinstance(key, tuple) and key[0] == "flops")


def _total(costs: Costs) -> float:
    return sum(costs.values())


def _vector(data: Array | None, axis: int, like: Value) -> Value:
    """A constant that varies along one axis of a value."""
    shape = [1] * like.type.rank
    shape[axis] = -1
    return constant(np.asarray(data).astype(like.dtype.numpy).reshape(shape))


@dataclass
class _Placement:
    """Where one map goes: what is linear in front of it, and what every way costs.

    width: channels that the map makes. alone: nodes that nothing else reads.
    """

    rw: Rewriter
    width: int
    bytes: int
    alone: set[Node] = field(default_factory=set)
    _steps: dict[tuple[Value, int, int], LinearStep | None] = field(default_factory=dict)
    _best: dict[tuple[Value, int, int], tuple[bool, Costs]] = field(default_factory=dict)
    _made: dict[tuple[Value, int, int], Value] = field(default_factory=dict)
    _kept: list[Mapped] = field(default_factory=list)  # so that their weights keep their identity

    def step(self, at: Mapped) -> LinearStep | None:
        """The map moved in front of what makes a value."""
        key = _key(at)
        if key not in self._steps:
            node = self.rw.producer(at.value)
            found = None
            if node is not None and len(self._steps) < _MOST_NODES:
                found = linear_step(node, at.axis, at.weights)
            if found is not None and not self.rw.may_round(at.value):
                found = None
            self._kept.append(at)
            self._steps[key] = found
        return self._steps[key]

    def explore(self, top: Mapped) -> None:
        """Find the nodes that only the map reads, through others of the kind."""
        reads: Counter[Value] = Counter({top.value: 1})
        users: dict[Value, set[Node | None]] = {top.value: {None}}
        order: list[Node] = []
        waiting = [top]
        while waiting:
            at = waiting.pop()
            found = self.step(at)
            if found is None or found.node in order:
                continue
            order.append(found.node)
            for value in found.node.inputs:
                reads[value] += 1
                users.setdefault(value, set()).add(found.node)
            waiting.extend(found.operands)
        changed = True
        while changed:
            fresh = {
                node
                for node in order
                if node not in self.alone
                and self.rw.uses(node.output) <= reads[node.output]
                and all(user is None or user in self.alone for user in users[node.output])
            }
            changed = bool(fresh)
            self.alone |= fresh

    def stay(self, at: Mapped, top: bool = False) -> Costs:
        """What it costs to map a value as it is: the map, and what makes the value."""
        costs: dict[object, float] = {}
        size = elements(at.value.shape)
        narrow = at.weights.shape[1]
        if not at.value.is_constant:
            made = size / narrow * self.width
            costs["flops", _key(at)] = 2 * size * self.width
            costs["made", _key(at)] = 2 * self.bytes * made
        self._existing(at, costs)
        source = self._behind_views(at.value)
        node = self.rw.producer(source)
        if node is not None and is_free(node) and (node in self.alone or not top):
            costs["read", source] = moved(source.type)
        return costs

    def _behind_views(self, value: Value) -> Value:
        """What lies in memory where a value is a view."""
        while (node := self.rw.producer(value)) is not None and has_trait(node, Trait.VIEW):
            value = node.inputs[0]
        return value

    def _existing(self, at: Mapped, costs: dict[object, float]) -> None:
        """What makes a value now, as far as nothing else needs it."""
        found = self.step(at)
        if found is None or found.node not in self.alone or found.node in costs:
            return
        is_map = channel_weights(found.node) is not None
        costs["flops" if is_map else "other", found.node] = operations(found.node)
        costs[found.node] = stored(found.node)
        for operand in found.operands:
            self._existing(operand, costs)

    def best(self, at: Mapped) -> Costs:
        """What the cheapest way costs."""
        key = _key(at)
        if key not in self._best:
            here = self.stay(at)
            through = self._through(at)
            if through is None or _total(through) >= _total(here) or _flops(through) > _flops(here):
                self._best[key] = (False, here)
            else:
                self._best[key] = (True, through)
        return self._best[key][1]

    def ends_in_map(self, at: Mapped) -> bool:
        """Whether a map is what makes the mapped value, the cheapest way."""
        self.best(at)
        found = self.step(at)
        if not self._best[_key(at)][0] or found is None:
            return True
        return found.dropped and found.shift is None and self.ends_in_map(found.operands[0])

    def _through(self, at: Mapped) -> Costs | None:
        found = self.step(at)
        if found is None:
            return None
        costs: dict[object, float] = {}
        for operand in found.operands:
            if operand.value.data is not None and self._grows(operand):
                return None
            costs.update(self.best(operand))
        share = self.width / at.weights.shape[1]
        if found.joined:
            size = elements(at.value.shape) * share
            costs["joined", _key(at)] = size * (len(found.operands) - 1)
        elif not found.dropped:
            costs["moved", _key(at)] = (operations(found.node) + stored(found.node)) * share
        return costs

    def _grows(self, at: Mapped) -> bool:
        data = at.value.data
        assert data is not None
        return bool(
            data.size / max(1, at.weights.shape[1]) * self.width > data.size + _MOST_CONSTANT
        )

    def emit(self, at: Mapped) -> Value:
        """Make the mapped value, the cheapest way."""
        key = _key(at)
        if key not in self._made:
            self.best(at)
            self._made[key] = self._moved(at) if self._best[key][0] else self._mapped(at)
        return self._made[key]

    def _moved(self, at: Mapped) -> Value:
        found = self.step(at)
        assert found is not None
        parts = [self.emit(operand) for operand in found.operands]
        if found.joined:
            result = parts[0]
            for part in parts[1:]:
                result = self.rw.emit("add", [result, part])
        elif found.dropped:
            (result,) = parts
        else:
            operands = [*parts]
            for place, value in found.others:
                operands.insert(place, value)
            result = self.rw.emit(found.node.op, operands, found.attrs, name=found.node.name)
        if found.shift is not None:
            result = self.rw.emit("add", [result, _vector(found.shift(), at.axis, result)])
        return result

    def _mapped(self, at: Mapped) -> Value:
        value, axis, weights = at.value, at.axis, at.weights
        if value.data is not None:
            return _mapped_constant(at)
        rank = value.type.rank
        matrix = weights.array.astype(value.dtype.numpy)
        if rank == 1:  # channels that broadcast
            row = self.rw.emit("reshape", [value], {"shape": (1, *value.shape)})
            row = self.rw.emit("matmul", [row, constant(np.ascontiguousarray(matrix.T))])
            return self.rw.emit("reshape", [row], {"shape": matrix.shape[:1]})
        if axis == rank - 1:
            return self.rw.emit("matmul", [value, constant(np.ascontiguousarray(matrix.T))])
        if axis == 1 and rank in (3, 4, 5):
            spatial = rank - 2
            filters = constant(matrix.reshape(*matrix.shape, *(1,) * spatial))
            window = {"strides": (1,) * spatial, "dilations": (1,) * spatial}
            return self.rw.emit("conv", [value, filters], {**window, "pads": (0,) * 2 * spatial})
        perm = (*(other for other in range(rank) if other != axis), axis)
        last = self.rw.emit("transpose", [value], {"perm": perm})
        last = self.rw.emit("matmul", [last, constant(np.ascontiguousarray(matrix.T))])
        back = tuple(perm.index(other) for other in range(rank))
        return self.rw.emit("transpose", [last], {"perm": back})


def _mapped_constant(at: Mapped) -> Value:
    """The map of a constant; of one number for all channels, the sum of its rows."""
    data, axis, weights = at.value.data, at.axis, at.weights.array
    assert data is not None
    wide = data.astype(np.float64)
    if axis < 0:
        wide, axis = wide.reshape(*(1,) * -axis, *wide.shape), 0
    if wide.shape[axis] == 1 and weights.shape[1] != 1:
        weights = weights.sum(axis=1, keepdims=True)
    mapped = np.moveaxis(np.tensordot(weights, wide, axes=(1, axis)), 0, axis)
    return constant(np.ascontiguousarray(mapped.astype(data.dtype)))


def _key(at: Mapped) -> tuple[Value, int, int]:
    return at.value, at.axis, id(at.weights)
